package sessionapi_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/api/sessionapi"
	"github.com/posterngate/postern/controlplane/recording"
	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/controlplane/recording/index/sqlite"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/test/wait"
)

var (
	began           = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	recordingKey, _ = secret.ParsePrivateKey(bytes.Repeat([]byte{5}, 32))

	nodeKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, ed25519.SeedSize))
)

// live knows one session that lives, whether or not its recording has arrived.
type live struct{ reason string }

func (l *live) Kill(_ context.Context, session, reason string) (string, error) {
	if session != "bobs-live" && session != "alices-live" && session != "fresh" {
		return "", fault.New(codes.NotFound, "no node has session %q", session)
	}
	l.reason = reason
	return "node-1", nil
}

// house is the API over real recordings; the caller is named by the header As.
type house struct {
	recordings *recording.Service
	client     apiv1connect.SessionServiceClient
	live       *live
	heads      map[string]record.Chain
	keys       map[string]*record.DataKey
	wrapped    map[string]record.WrappedKey
}

// ring opens what is sealed to recordingKey.
type ring struct{}

func (ring) Unwrap(_ context.Context, session postern.SessionID, w record.WrappedKey) (secret.Bytes, error) {
	return w.Unwrap(recordingKey, session)
}

func open(t *testing.T) *house {
	t.Helper()
	dir := t.TempDir()
	blobs, err := blob.OpenFolder(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := sqlite.Open(context.Background(), filepath.Join(dir, "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	recordings, err := recording.New(recording.Config{Blobs: blobs, Index: rows, Store: storetest.NewMemory(), Keys: ring{},
		NodeKeys: func(string) ([]crypto.PublicKey, error) { return []crypto.PublicKey{nodeKey.Public()}, nil },
		Rejected: func(_ context.Context, r recording.Rejection) error { return fmt.Errorf("rejected: %+v", r) }})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{recordings: recordings, live: &live{}, heads: map[string]record.Chain{}, keys: map[string]*record.DataKey{}, wrapped: map[string]record.WrappedKey{}}
	_, handler := apiv1connect.NewSessionServiceHandler(sessionapi.New(recordings, h.live))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if name := r.Header.Get("As"); name != "" {
			c := &authz.Caller{Subject: postern.Subject{Name: name}}
			if _, role, ok := strings.Cut(name, ":"); ok {
				for one := range strings.SplitSeq(role, "+") {
					c.Roles = append(c.Roles, policy.RoleGrant{Role: one})
				}
			}
			ctx = authz.With(ctx, c)
		}
		handler.ServeHTTP(w, r.WithContext(ctx))
	}))
	h.client = apiv1connect.NewSessionServiceClient(server.Client(), server.URL)
	t.Cleanup(func() {
		server.Close()
		if err := errors.Join(rows.Close(), blobs.Close()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// ship takes one more chunk of a session in; without events it is the seal.
func (h *house) ship(t *testing.T, id string, events ...record.Event) {
	t.Helper()
	head := h.heads[id]
	if h.keys[id] == nil {
		var err error
		if h.keys[id], h.wrapped[id], err = record.NewDataKey(recordingKey.PublicKey(), postern.SessionID(id)); err != nil {
			t.Fatal(err)
		}
	}
	var frames, data []byte
	var err error
	for i := range events {
		events[i].Seq = head.Span.Last + uint64(i) + 1
		if frames, err = record.AppendFrames(frames, &events[i]); err != nil {
			t.Fatal(err)
		}
	}
	if len(events) > 0 {
		span, spanErr := head.Span.Next(frames)
		if spanErr != nil {
			t.Fatal(spanErr)
		}
		data, _, err = record.AppendChunk(nil, record.Header{Session: postern.SessionID(id), Index: head.Next, First: span.First, Last: span.Last, Open: span.Open,
			Codec: record.CodecMinLZ, Key: h.wrapped[id], Previous: head.Previous}, h.keys[id], frames)
	} else {
		data, _, err = record.AppendSeal(nil, record.Seal{Session: postern.SessionID(id), Node: "node-1", Chunks: head.Next, Previous: head.Previous, Last: head.Span.Last, Time: began}, nodeKey)
	}
	if err != nil {
		t.Fatal(err)
	}
	index := head.Next
	if _, err := head.Add(data); err != nil {
		t.Fatal(err)
	}
	h.heads[id] = head
	if _, err := h.recordings.Ingest(context.Background(), "node-1", &nodev1.ShipRequest{Session: id, Index: index, Chunk: data}); err != nil {
		t.Fatal(err)
	}
}

func opened(id, subject string, minute int) record.Event {
	return record.Event{Kind: record.KindOpened, Time: began.Add(time.Duration(minute) * time.Minute),
		Session: &record.Session{ID: postern.SessionID(id), Subject: subject, Task: "sales-report", Resource: "warehouse", Node: "node-1"}}
}

func closed() record.Event {
	return record.Event{Kind: record.KindClosed, Time: began.Add(time.Hour), Reason: "the client went away"}
}

func as[T any](name string, m *T) *connect.Request[T] {
	r := connect.NewRequest(m)
	if name != "" {
		r.Header().Set("As", name)
	}
	return r
}

// world has three sessions: one of alice that is over, one each of alice and bob that live.
func world(t *testing.T) *house {
	h := open(t)
	h.ship(t, "alices-past", opened("alices-past", "alice", 0), closed())
	h.ship(t, "alices-past")
	h.ship(t, "alices-live", opened("alices-live", "alice", 1))
	h.ship(t, "bobs-live", opened("bobs-live", "bob", 2))
	return h
}

func TestList(t *testing.T) {
	h := world(t)
	list := func(who string, m *apiv1.ListSessionsRequest) (string, error) {
		t.Helper()
		var ids []string
		for {
			resp, err := h.client.ListSessions(context.Background(), as(who, m))
			if err != nil {
				return "", err
			}
			for _, s := range resp.Msg.GetSessions() {
				ids = append(ids, s.GetId())
			}
			if m.PageToken = resp.Msg.GetNextPageToken(); m.GetPageToken() == "" {
				return strings.Join(ids, " "), nil
			}
		}
	}
	for _, c := range []struct {
		who  string
		m    *apiv1.ListSessionsRequest
		want string
	}{
		{"ada:admin", &apiv1.ListSessionsRequest{}, "bobs-live alices-live alices-past"},
		{"eve:auditor", &apiv1.ListSessionsRequest{PageSize: 1}, "bobs-live alices-live alices-past"},
		{"eve:auditor", &apiv1.ListSessionsRequest{PageSize: 2}, "bobs-live alices-live alices-past"},
		{"otto:operator", &apiv1.ListSessionsRequest{Live: true, PageSize: 1000}, "bobs-live alices-live"},
		{"otto:operator", &apiv1.ListSessionsRequest{Subject: "alice"}, "alices-live alices-past"},
		{"alice", &apiv1.ListSessionsRequest{}, "alices-live alices-past"},
		{"alice", &apiv1.ListSessionsRequest{Subject: "alice", Live: true}, "alices-live"},
		{"vic:viewer", &apiv1.ListSessionsRequest{}, ""},
	} {
		if got, err := list(c.who, c.m); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.who, got, err, c.want)
		}
	}
	for _, c := range []struct {
		who string
		m   *apiv1.ListSessionsRequest
	}{
		{"", &apiv1.ListSessionsRequest{}},
		{":", &apiv1.ListSessionsRequest{Subject: "alice"}},
		{"alice", &apiv1.ListSessionsRequest{Subject: "bob"}},
		{"ada:admin", &apiv1.ListSessionsRequest{PageSize: 1001}},
		{"ada:admin", &apiv1.ListSessionsRequest{PageSize: -1}},
		{"ada:admin", &apiv1.ListSessionsRequest{PageToken: "x"}},
		{"ada:admin", &apiv1.ListSessionsRequest{PageToken: base64.RawURLEncoding.EncodeToString([]byte("1 a\x00b"))}},
		{"ada:admin", &apiv1.ListSessionsRequest{PageToken: base64.RawURLEncoding.EncodeToString([]byte("1 a\xff"))}},
		{"ada:admin", &apiv1.ListSessionsRequest{Subject: "a\x00b"}},
		{"ada:admin", &apiv1.ListSessionsRequest{Since: &timestamppb.Timestamp{Seconds: 1 << 60}}},
	} {
		if got, err := list(c.who, c.m); err == nil || connect.CodeOf(err) == connect.CodeInternal {
			t.Errorf("%q %v: %q, %v", c.who, c.m, got, err)
		}
	}
}

func (h *house) read(who, id string, from uint32, follow bool, each func(*apiv1.ReadRecordingResponse)) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	stream, err := h.client.ReadRecording(ctx, as(who, &apiv1.ReadRecordingRequest{Id: id, FromIndex: from, Follow: follow}))
	if err != nil {
		return err
	}
	for stream.Receive() {
		each(stream.Msg())
	}
	return errors.Join(stream.Err(), stream.Close())
}

// TestWhoMay: a recording is read by whose it is and by roles, and by nobody else
// (CVE-2023-42442; TestStrangers has the rest of the surface).
// A person is not the workload that has their name.
func TestOfAWorkload(t *testing.T) {
	h := world(t)
	begins := opened("a-load", "alice", 3)
	begins.Session.Workload = "alice"
	h.ship(t, "a-load", begins)
	list, err := h.client.ListSessions(t.Context(), as("alice", &apiv1.ListSessionsRequest{}))
	if err != nil || len(list.Msg.GetSessions()) != 2 {
		t.Errorf("alice's sessions: %v, %v", list, err)
	}
	if got, err := h.client.GetSession(t.Context(), as("alice", &apiv1.GetSessionRequest{Id: "a-load"})); err == nil {
		t.Errorf("alice is told of the workload's: %v", got)
	}
	if err := h.read("alice", "a-load", 0, false, func(*apiv1.ReadRecordingResponse) {}); err == nil {
		t.Error("alice reads the workload's")
	}
	if _, err = h.client.KillSession(t.Context(), as("alice", &apiv1.KillSessionRequest{Id: "a-load"})); err == nil {
		t.Error("alice ends the workload's")
	}
	if all, err := h.client.ListSessions(t.Context(), as("otto:operator", &apiv1.ListSessionsRequest{Subject: "alice"})); err != nil || len(all.Msg.GetSessions()) != 3 {
		t.Errorf("an operator sees %v, %v", all, err)
	}
}

func TestWhoMay(t *testing.T) {
	h := world(t)
	for _, c := range []struct {
		who       string
		see, read bool // bob's session
	}{
		{"", false, false}, {"alice", false, false}, {"vic:viewer", false, false},
		{"bob", true, true}, {"otto:operator", true, false}, {"eve:auditor", true, true}, {"ada:admin", true, true},
	} {
		_, err := h.client.GetSession(context.Background(), as(c.who, &apiv1.GetSessionRequest{Id: "bobs-live"}))
		if (err == nil) != c.see {
			t.Errorf("%q gets: %v", c.who, err)
		}
		n := 0
		err = h.read(c.who, "bobs-live", 0, false, func(*apiv1.ReadRecordingResponse) { n++ })
		if (err == nil) != c.read || (n > 0) != c.read {
			t.Errorf("%q reads: %d chunks, %v", c.who, n, err)
		}
	}
	// What is not theirs reads as what is not there.
	_, theirs := h.client.GetSession(context.Background(), as("alice", &apiv1.GetSessionRequest{Id: "bobs-live"}))
	_, none := h.client.GetSession(context.Background(), as("alice", &apiv1.GetSessionRequest{Id: "bobs-none"}))
	if theirs == nil || none == nil || strings.ReplaceAll(theirs.Error(), "live", "none") != none.Error() {
		t.Errorf("%v and %v", theirs, none)
	}
}

// What masks hid is shown to auditors who have the role for it too: not to admins, not to
// who has that role alone, and to nobody for the session being theirs.
func TestWhoMayReadRaw(t *testing.T) {
	h := world(t)
	h.ship(t, "alices-past_raw", opened("alices-past_raw", "alice", 0), closed())
	h.ship(t, "alices-past_raw")
	read := func(who, id string) (chunks int, err error) {
		stream, err := h.client.ReadRecording(t.Context(), as(who, &apiv1.ReadRecordingRequest{Id: id, Raw: true}))
		if err != nil {
			return 0, err
		}
		for stream.Receive() {
			if m := stream.Msg(); len(m.GetDataKey()) > 0 || chunks == 0 && len(m.GetNodeKey()) == 0 {
				t.Errorf("%s is given %v", who, m)
			}
			chunks++
		}
		return chunks, errors.Join(stream.Err(), stream.Close())
	}
	for who, why := range map[string]string{
		"": "this needs a token", "bob": "not yours", "ray:rawreader": "not yours", "otto:operator": "not yours",
		"alice": "rawreader too", "eve:auditor": "rawreader too", "ada:admin": "rawreader too",
	} {
		if n, err := read(who, "alices-past"); n != 0 || err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q reads %d chunks: %v", who, n, err)
		}
	}
	for _, who := range []string{"eve:auditor+rawreader", "ada:admin+rawreader"} {
		if n, err := read(who, "alices-past"); n != 2 || err != nil {
			t.Errorf("%q reads %d chunks: %v", who, n, err)
		}
		if n, err := read(who, "bobs-live"); n != 0 || err == nil || !strings.Contains(err.Error(), "nothing raw") {
			t.Errorf("of a session that has none %q reads %d chunks: %v", who, n, err)
		}
		if _, err := h.client.GetSession(t.Context(), as(who, &apiv1.GetSessionRequest{Id: "alices-past_raw"})); err == nil {
			t.Errorf("%q gets what is raw as a session: %v", who, err)
		}
		if err := h.read(who, "alices-past_raw", 0, false, func(*apiv1.ReadRecordingResponse) { t.Errorf("%q reads it as a session", who) }); err == nil {
			t.Errorf("%q reads it as a session", who)
		}
	}
}

func TestReadAndFollow(t *testing.T) {
	h := world(t)
	var chunks [][]byte
	var key crypto.PublicKey
	var data *record.DataKey
	take := func(m *apiv1.ReadRecordingResponse) {
		if int(m.GetIndex()) != len(chunks) {
			t.Errorf("chunk %d stands where chunk %d must", m.GetIndex(), len(chunks))
		}
		chunks = append(chunks, m.GetChunk())
		if len(m.GetNodeKey()) > 0 {
			var err error
			if key, err = x509.ParsePKIXPublicKey(m.GetNodeKey()); err != nil {
				t.Error(err)
			}
		}
		if len(m.GetDataKey()) > 0 {
			var err error
			if data, err = record.OpenDataKey(m.GetDataKey()); err != nil {
				t.Error(err)
			}
		}
	}
	if err := h.read("alice", "alices-past", 0, true, take); err != nil {
		t.Fatal(err)
	}
	r, err := record.Verify(func(yield func([]byte, error) bool) {
		for _, c := range chunks {
			if !yield(c, nil) {
				return
			}
		}
	}, key, data)
	if err != nil || len(r.Errors) > 0 || r.State != record.StateSealed || r.Events != 2 {
		t.Errorf("%+v, %v", r, err)
	}

	chunks = nil
	var wg sync.WaitGroup
	arrived := make(chan struct{}, 10)
	wg.Go(func() {
		if err := h.read("alice", "alices-live", 0, true, func(m *apiv1.ReadRecordingResponse) { take(m); arrived <- struct{}{} }); err != nil {
			t.Error(err)
		}
	})
	<-arrived
	h.ship(t, "alices-live", closed())
	<-arrived
	h.ship(t, "alices-live")
	wg.Wait() // sealed: the stream ends
	if len(chunks) != 3 {
		t.Errorf("%d chunks", len(chunks))
	}
	if err := h.read("alice", "alices-past", 1, false, func(m *apiv1.ReadRecordingResponse) {
		if m.GetIndex() != 1 || len(m.GetNodeKey()) == 0 {
			t.Errorf("%v", m)
		}
	}); err != nil {
		t.Error(err)
	}
}

func TestKill(t *testing.T) {
	h := world(t)
	for _, c := range []struct {
		who, id, reason string
		ok              bool
		told            string
	}{
		{"", "bobs-live", "", false, ""},
		{"alice", "bobs-live", "", false, ""},
		{"eve:auditor", "bobs-live", "", false, ""},
		{"otto:operator", "bobs-live", "it leaks", true, "it leaks"},
		{"bob", "bobs-live", "", true, "ended by bob"},
		{"ada:admin", "fresh", "now", true, "now"}, // its recording has not arrived
		{"ada:admin", "alices-past", "", false, ""},
		{"ada:admin", "none", "", false, ""},
		{"ada:admin", "", "", false, ""},
		{"ada:admin", "bobs-live", strings.Repeat("x", 501), false, ""},
	} {
		h.live.reason = ""
		resp, err := h.client.KillSession(context.Background(), as(c.who, &apiv1.KillSessionRequest{Id: c.id, Reason: c.reason}))
		if (err == nil) != c.ok || c.ok && resp.Msg.GetNode() != "node-1" {
			t.Errorf("%+v: %v", c, err)
		}
		if h.live.reason != c.told {
			t.Errorf("%+v: told %q", c, h.live.reason)
		}
	}
}
