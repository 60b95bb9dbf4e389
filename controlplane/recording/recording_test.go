package recording_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/recording"
	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/sqlite"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
)

var (
	began     = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	nodeKey   = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, ed25519.SeedSize))
	formerKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{4}, ed25519.SeedSize)).Public()
)

// house is a Service over real files, and what it told of rejections.
type house struct {
	*recording.Service
	blobs *blob.Folder
	index *sqlite.Index
	store *storetest.Memory

	mu       sync.Mutex
	rejected []recording.Rejection
}

func open(t testing.TB, dir string) *house {
	t.Helper()
	h := &house{store: storetest.NewMemory()}
	var err error
	if h.blobs, err = blob.OpenFolder(filepath.Join(dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	if h.index, err = sqlite.Open(context.Background(), filepath.Join(dir, "index.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(h.index.Close(), h.blobs.Close()); err != nil {
			t.Error(err)
		}
	})
	h.Service, err = recording.New(recording.Config{
		Blobs: h.blobs, Index: h.index, Store: h.store, Keys: ring{},
		NodeKeys: func(node string) ([]crypto.PublicKey, error) {
			if node == "gone" {
				return nil, errors.New("cannot be told now")
			}
			return []crypto.PublicKey{formerKey, nodeKey.Public()}, nil
		},
		Rejected: func(_ context.Context, r recording.Rejection) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.rejected = append(h.rejected, r)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) rejections() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.rejected)
}

func ship(t testing.TB, h *house, p *tape, i int) *nodev1.ShipResponse {
	t.Helper()
	resp, err := h.Ingest(context.Background(), "node-1", &nodev1.ShipRequest{Session: string(p.session.ID), Index: uint32(i), Chunk: p.chunks[i]})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func shipAll(t testing.TB, h *house, p *tape) {
	t.Helper()
	for i := range p.chunks {
		if r := ship(t, h, p, i); r.GetNextIndex() != uint32(i+1) || r.GetReject() != "" {
			t.Fatalf("chunk %d: %v", i, r)
		}
	}
}

func read(t *testing.T, h *house, id string) (chunks [][]byte, key crypto.PublicKey) {
	t.Helper()
	err := h.Read(context.Background(), id, 0, false, func(n uint32, data, pkix []byte) (err error) {
		chunks = append(chunks, data)
		if pkix != nil {
			key, err = x509.ParsePKIXPublicKey(pkix)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return chunks, key
}

func dataKey(t *testing.T, h *house, id string) *record.DataKey {
	t.Helper()
	raw, err := h.DataKey(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	key, err := record.OpenDataKey(raw.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func each(chunks [][]byte) func(func([]byte, error) bool) {
	return func(yield func([]byte, error) bool) {
		for _, c := range chunks {
			if !yield(c, nil) {
				return
			}
		}
	}
}

// Whoever can write where recordings are stored must not have another's opened as their own,
// and who reads what was changed is told so.
func TestStoredChanged(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	for _, id := range []string{"s-1", "s-2", "s-3", "s-4", "s-5"} {
		shipAll(t, h, usual(t, id))
	}
	file := func(id, number string) string {
		found, err := filepath.Glob(filepath.Join(dir, "blobs", "*", "*", "*", "*", "*", id, number))
		if err != nil || len(found) != 1 {
			t.Fatalf("chunk %s of %s: %v, %v", number, id, found, err)
		}
		return found[0]
	}
	write := func(path string, data []byte) {
		if err := errors.Join(os.Remove(path), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file("s-1", "0000000000"))
	if err != nil {
		t.Fatal(err)
	}
	write(file("s-2", "0000000000"), data)
	flipped := bytes.Clone(data)
	flipped[len(flipped)/2] ^= 1
	write(file("s-3", "0000000000"), flipped)
	if err := errors.Join(os.Remove(file("s-4", "0000000000")), os.Remove(file("s-5", "0000000001"))); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"s-2": "chunk 0 of session s-1", "s-3": "damaged", "s-4": "not found"} {
		if key, err := h.DataKey(t.Context(), id); fault.CodeOf(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", id, key, err)
		}
	}
	if err := h.Read(t.Context(), "s-5", 0, false, func(uint32, []byte, []byte) error { return nil }); fault.CodeOf(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "chunk 1 of session s-5") {
		t.Error(err)
	}
}

func TestIngest(t *testing.T) {
	h := open(t, t.TempDir())
	p := usual(t, "s-1")
	ship(t, h, p, 0)
	ctx := context.Background()
	s, err := h.Get(ctx, "s-1")
	if err != nil || s.GetSubject() != "alice" || s.GetNode() != "node-1" || s.GetRecording() != "open" || s.GetEndTime() != nil || s.GetStatements() != 1 || s.GetChunks() != 1 || !s.GetStartTime().AsTime().Equal(began) {
		t.Errorf("%v, %v", s, err)
	}
	if r := ship(t, h, p, 0); r.GetNextIndex() != 1 || r.GetReject() != "" {
		t.Errorf("chunk 0 again: %v", r)
	}
	shipAll(t, h, usual(t, "s-2"))
	for i := 1; i < len(p.chunks); i++ {
		ship(t, h, p, i)
	}
	if r := ship(t, h, p, 1); r.GetNextIndex() != 4 || r.GetReject() != "" {
		t.Errorf("chunk 1 again: %v", r)
	}
	s, err = h.Get(ctx, "s-1")
	if err != nil || s.GetRecording() != "sealed" || s.GetEndReason() != "the client went away" || s.GetStatements() != 3 || s.GetDenied() != 2 || s.GetRows() != 3 || s.GetBytes() != 30 || s.GetChunks() != 4 || s.GetAccount() != "reporter" {
		t.Errorf("%v, %v", s, err)
	}
	rows, err := h.index.Statements(ctx, "s-1", 0, 10)
	if err != nil || len(rows) != 3 {
		t.Fatalf("%v, %v", rows, err)
	}
	if rows[0].Outcome == nil || rows[0].Outcome.Tag != "SELECT 3" || rows[0].Touched[0].Mask != "email" || rows[1].Verdict != postern.VerdictDeny || rows[2].Outcome == nil || rows[2].Outcome.Verdict != postern.VerdictDeny {
		t.Errorf("%+v", rows)
	}
	chunks, key := read(t, h, "s-1")
	r, err := record.Verify(each(chunks), key, dataKey(t, h, "s-1"))
	if err != nil || len(r.Errors) > 0 || r.State != record.StateSealed || r.Statements != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	if n := h.rejections(); n != 0 {
		t.Errorf("%d rejections", n)
	}
}

func TestTruncated(t *testing.T) {
	h := open(t, t.TempDir())
	p := newTape(t, "s-1")
	p.open()
	p.cut(0)
	p.seal("node-1", nodeKey, true)
	shipAll(t, h, p)
	s, err := h.Get(context.Background(), "s-1")
	if err != nil || s.GetRecording() != "truncated" || s.GetEndReason() != "the node stopped" || s.GetEndTime() == nil {
		t.Errorf("%v, %v", s, err)
	}
}

func TestRejections(t *testing.T) {
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{5}, ed25519.SeedSize))
	begun := func(t *testing.T, h *house) *tape {
		p := newTape(t, "s-1")
		p.open()
		p.cut(0)
		ship(t, h, p, 0)
		return p
	}
	add := func(p *tape, e record.Event) []byte { p.add(e); p.cut(0); return p.chunks[len(p.chunks)-1] }
	for name, c := range map[string]struct {
		make func(t *testing.T, h *house) (node string, req *nodev1.ShipRequest)
		want string
	}{
		"no chunk": {func(*testing.T, *house) (string, *nodev1.ShipRequest) {
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Chunk: []byte("x")}
		}, "damaged chunk"},
		"other index": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Index: 1, Chunk: usual(t, "s-1").chunks[0]}
		}, "it is chunk 0"},
		"other session": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			return "node-1", &nodev1.ShipRequest{Session: "s-2", Chunk: usual(t, "s-1").chunks[0]}
		}, "of session s-1"},
		"gap": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Index: 1, Chunk: usual(t, "s-1").chunks[1]}
		}, "stands where chunk 0 must"},
		"another node begins": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			return "node-2", &nodev1.ShipRequest{Session: "s-1", Chunk: usual(t, "s-1").chunks[0]}
		}, `of node "node-1"`},
		"another node goes on": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			p := usual(t, "s-1")
			ship(t, h, p, 0)
			return "node-2", &nodev1.ShipRequest{Session: "s-1", Index: 1, Chunk: p.chunks[1]}
		}, "another node"},
		"other hash": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			ship(t, h, usual(t, "s-1"), 0)
			p := newTape(t, "s-1")
			p.open()
			p.cut(0)
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Chunk: p.chunks[0]}
		}, "another chunk"},
		"other past": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			begun(t, h)
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Index: 1, Chunk: usual(t, "s-1").chunks[1]}
		}, "does not follow"},
		"sealed to a key that is not known": {func(t *testing.T, _ *house) (string, *nodev1.ShipRequest) {
			foreign, err := secret.GenerateKey()
			if err != nil {
				t.Fatal(err)
			}
			p := newTape(t, "s-1")
			if p.key, p.wrapped, err = record.NewDataKey(foreign.PublicKey(), "s-1"); err != nil {
				t.Fatal(err)
			}
			p.open()
			p.cut(0)
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Chunk: p.chunks[0]}
		}, "cannot be opened"},
		"sealed with another key than it says": {func(t *testing.T, _ *house) (string, *nodev1.ShipRequest) {
			p, q := newTape(t, "s-1"), newTape(t, "s-1")
			p.key = q.key
			p.open()
			p.cut(0)
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Chunk: p.chunks[0]}
		}, "not sealed with this key"},
		"not opened": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			p := newTape(t, "s-1")
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Chunk: add(p, record.Event{Kind: record.KindNote})}
		}, "does not begin"},
		"opened twice": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			p := begun(t, h)
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Index: 1, Chunk: add(p, record.Event{Kind: record.KindOpened, Session: &p.session})}
		}, "again"},
		"opened for another": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			p := newTape(t, "s-1")
			meta := p.session
			meta.ID = "s-2"
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Chunk: add(p, record.Event{Kind: record.KindOpened, Session: &meta})}
		}, `of session "s-2"`},
		"a time beyond time": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			p := begun(t, h)
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Index: 1, Chunk: add(p, record.Event{Kind: record.KindClosed, Time: time.UnixMicro(1 << 62)})}
		}, "no valid time"},
		"a statement beyond number": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			p := begun(t, h)
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Index: 1, Chunk: add(p, record.Event{Kind: record.KindIntent, Statement: 1 << 63})}
		}, "of statement"},
		"sealed by another": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			p := begun(t, h)
			p.seal("node-1", other, false)
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Index: 1, Chunk: p.chunks[1]}
		}, "not signed by"},
		"seal names another": {func(t *testing.T, h *house) (string, *nodev1.ShipRequest) {
			p := begun(t, h)
			p.seal("node-2", nodeKey, false)
			return "node-1", &nodev1.ShipRequest{Session: "s-1", Index: 1, Chunk: p.chunks[1]}
		}, `names node "node-2"`},
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, t.TempDir())
			node, req := c.make(t, h)
			before, _ := h.index.Head(context.Background(), "s-1")
			resp, err := h.Ingest(context.Background(), postern.NodeName(node), req)
			if err != nil || !strings.Contains(resp.GetReject(), c.want) || resp.GetRejectedIndex() != req.GetIndex() || resp.GetSession() != req.GetSession() {
				t.Errorf("%v, %v; want %q", resp, err, c.want)
			}
			if h.rejections() != 1 || h.rejected[0].Reason != resp.GetReject() || string(h.rejected[0].Node) != node {
				t.Errorf("told %+v", h.rejected)
			}
			after, _ := h.index.Head(context.Background(), "s-1")
			if after.Next != before.Next {
				t.Error("the index moved")
			}
		})
	}
}

// A large statement that stands in several chunks is one row, also where the service
// was started anew in its middle.
func TestEventOverChunks(t *testing.T) {
	for _, restart := range []bool{false, true} {
		dir := t.TempDir()
		h := open(t, dir)
		p := newTape(t, "s-1")
		p.open()
		p.add(record.Event{Kind: record.KindIntent, Statement: 1, Text: "select 1"})
		p.add(record.Event{Kind: record.KindIntent, Statement: 2, Text: strings.Repeat("long text ", 60_000), Verdict: postern.VerdictAllow})
		p.add(record.Event{Kind: record.KindClosed, Reason: "done"})
		for len(p.frames) > 0 {
			p.cut(70 << 10)
		}
		p.seal("node-1", nodeKey, false)
		if len(p.chunks) < 4 {
			t.Fatalf("%d chunks are too few", len(p.chunks))
		}
		for i := range p.chunks {
			if restart {
				h = open(t, dir)
			}
			if r := ship(t, h, p, i); r.GetReject() != "" {
				t.Fatal(r)
			}
		}
		rows, err := h.index.Statements(context.Background(), "s-1", 0, 10)
		if err != nil || len(rows) != 2 || len(rows[1].Text) != index.MaxText {
			t.Errorf("%d rows, %v", len(rows), err)
		}
		if s, err := h.Get(context.Background(), "s-1"); err != nil || s.GetStatements() != 2 || s.GetEndReason() != "done" {
			t.Errorf("%v, %v", s, err)
		}
	}
}

// What the index lost is read again from the blobs.
func TestReconcile(t *testing.T) {
	dir, half := t.TempDir(), t.TempDir()
	h := open(t, dir)
	a, b := usual(t, "s-a"), usual(t, "s-b")
	shipAll(t, h, a)
	shipAll(t, h, b)
	// Another index, that has the first two chunks of one session, over the same blobs.
	lost := open(t, half)
	ship(t, lost, a, 0)
	ship(t, lost, a, 1)
	svc, err := recording.New(recording.Config{Blobs: h.blobs, Index: lost.index, Store: h.store, Keys: ring{},
		NodeKeys: func(string) ([]crypto.PublicKey, error) { return []crypto.PublicKey{nodeKey.Public()}, nil },
		Rejected: func(context.Context, recording.Rejection) error { return errors.New("nothing was shipped") }})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.blobs.Create(context.Background(), "recordings/v1/2026/01/02/s-c/0000000000", []byte("no chunk")); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{6, 0} {
		if n, err := svc.Reconcile(context.Background()); err != nil || n != want {
			t.Errorf("pass %d took %d chunks, %v", i, n, err)
		}
	}
	for _, id := range []string{"s-a", "s-b"} {
		got, err := svc.Get(context.Background(), id)
		want, _ := h.Get(context.Background(), id)
		if err != nil || got.String() != want.String() {
			t.Errorf("%v\n%v\n%v", got, want, err)
		}
	}
}

// A node that sends again over a second stream, at the same time, stores nothing twice.
func TestIngestAtOnce(t *testing.T) {
	h := open(t, t.TempDir())
	var wg sync.WaitGroup
	for n := range 4 {
		p := usual(t, fmt.Sprint("s-", n))
		for range 3 {
			wg.Go(func() {
				for i := range p.chunks {
					resp, err := h.Ingest(context.Background(), "node-1", &nodev1.ShipRequest{Session: string(p.session.ID), Index: uint32(i), Chunk: p.chunks[i]})
					if err != nil || resp.GetReject() != "" || resp.GetNextIndex() <= uint32(i) {
						t.Errorf("%v, %v", resp, err)
					}
				}
			})
		}
	}
	wg.Wait()
	list, err := h.List(context.Background(), index.Filter{Limit: 10})
	if err != nil || len(list) != 4 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, s := range list {
		if s.GetStatements() != 3 || s.GetChunks() != 4 || s.GetRecording() != "sealed" {
			t.Errorf("%v", s)
		}
	}
}

func TestKeyUnknown(t *testing.T) {
	h := open(t, t.TempDir())
	p := newTape(t, "s-1")
	p.session.Node = "gone"
	p.open()
	p.cut(0)
	p.seal("gone", nodeKey, false)
	ctx := context.Background()
	if _, err := h.Ingest(ctx, "gone", &nodev1.ShipRequest{Session: "s-1", Chunk: p.chunks[0]}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Ingest(ctx, "gone", &nodev1.ShipRequest{Session: "s-1", Index: 1, Chunk: p.chunks[1]}); err == nil {
		t.Error("a seal was taken without the key")
	}
	if h.rejections() != 0 {
		t.Error("a seal that may be good was refused for good")
	}
}

func TestFollow(t *testing.T) {
	h := open(t, t.TempDir())
	p := usual(t, "s-1")
	ship(t, h, p, 0)
	got := make(chan uint32, 10)
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		done <- h.Read(context.Background(), "s-1", 0, true, func(n uint32, _, _ []byte) error { got <- n; return nil })
	})
	for i := range p.chunks {
		if i > 0 {
			ship(t, h, p, i)
		}
		if n := <-got; n != uint32(i) {
			t.Errorf("chunk %d came for chunk %d", n, i)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	wg.Wait()
	if err := h.Read(context.Background(), "none", 0, true, nil); err == nil {
		t.Error("a session was read that is not there")
	}
}
