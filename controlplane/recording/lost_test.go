package recording_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/recording"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// over is a Service over an index of its own and the blobs of another.
func over(t *testing.T, blobs *house, c recording.Config) *recording.Service {
	t.Helper()
	own := open(t, t.TempDir())
	c.Blobs, c.Index, c.Store, c.Keys = blobs.blobs, own.index, blobs.store, ring{}
	c.Rejected = func(context.Context, recording.Rejection) error { return errors.New("nothing was shipped") }
	svc, err := recording.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return svc
}

// A seal whose node is not known now is left, and keeps nothing else back.
func TestReconcileWithoutKeys(t *testing.T) {
	h := open(t, t.TempDir())
	shipAll(t, h, usual(t, "s-a"))
	shipAll(t, h, usual(t, "s-b"))
	known := false
	svc := over(t, h, recording.Config{NodeKeys: func(string) ([]crypto.PublicKey, error) {
		if !known {
			return nil, errors.New("the node is not enrolled")
		}
		return []crypto.PublicKey{nodeKey.Public()}, nil
	}})
	for i, want := range []int{6, 0, 2, 0} {
		known = i >= 2
		if n, err := svc.Reconcile(t.Context()); err != nil || n != want {
			t.Errorf("pass %d took %d chunks, want %d (%v)", i, n, want, err)
		}
	}
}

// Whoever lent something to a session is told that it is over, before the seal is kept.
func TestTheEndIsTold(t *testing.T) {
	h := open(t, t.TempDir())
	p := newTape(t, "s-1")
	p.open()
	p.cut(0)
	p.seal("node-1", nodeKey, true)
	var told []postern.SessionID
	fail := errors.New("cannot be told now")
	svc := over(t, h, recording.Config{
		NodeKeys: func(string) ([]crypto.PublicKey, error) { return []crypto.PublicKey{nodeKey.Public()}, nil },
		Ended: func(_ context.Context, node postern.NodeName, s postern.SessionID) error {
			told = append(told, s)
			if node != "node-1" {
				t.Errorf("node %q", node)
			}
			return fail
		},
	})
	send := func(tape *tape, i int) error {
		_, err := svc.Ingest(t.Context(), "node-1", &nodev1.ShipRequest{Session: string(tape.session.ID), Index: uint32(i), Chunk: tape.chunks[i]})
		return err
	}
	if err := send(p, 0); err != nil || len(told) != 0 {
		t.Errorf("a session that lives: %v, told %v", err, told)
	}
	if err := send(p, 1); !errors.Is(err, fail) {
		t.Errorf("a seal that could not be told of: %v", err)
	}
	if s, err := svc.Get(t.Context(), "s-1"); err != nil || s.GetRecording() != "open" {
		t.Errorf("%v %v", s, err)
	}
	fail = nil
	if err := send(p, 1); err != nil || len(told) != 2 {
		t.Errorf("sent again: %v, told %v", err, told)
	}
	whole := usual(t, "s-2")
	for i := range 4 {
		if err := send(whole, i); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 3 || told[2] != "s-2" {
		t.Errorf("a session that ended in order: told %v", told)
	}
}

// TestIndexFellBack ships on after the index lost what it had acknowledged.
func TestIndexFellBack(t *testing.T) {
	h := open(t, t.TempDir())
	p := usual(t, "s-1")
	ship(t, h, p, 0)
	for i := 1; i < 3; i++ {
		if err := h.blobs.Create(context.Background(), fmt.Sprintf("recordings/v1/2026/01/02/s-1/%010d", i), p.chunks[i]); err != nil {
			t.Fatal(err)
		}
	}
	if r := ship(t, h, p, 3); r.GetNextIndex() != 4 || r.GetReject() != "" {
		t.Errorf("%v", r)
	}
	if s, err := h.Get(context.Background(), "s-1"); err != nil || s.GetRecording() != "sealed" || s.GetStatements() != 3 {
		t.Errorf("%v, %v", s, err)
	}
	q := usual(t, "s-2")
	ship(t, h, q, 0)
	if r := ship(t, h, q, 2); r.GetReject() == "" {
		t.Errorf("a gap was taken: %v", r)
	}
}

// TestIndexFellBackBeforeTheBeginning ships on after the index lost all of a session.
func TestIndexFellBackBeforeTheBeginning(t *testing.T) {
	h := open(t, t.TempDir())
	now := time.Now()
	p := newTape(t, "s-1")
	p.add(record.Event{Kind: record.KindOpened, Session: &p.session, Time: now})
	p.cut(0)
	p.add(record.Event{Kind: record.KindIntent, Statement: 1, Text: "select 1", Verdict: postern.VerdictAllow, Time: now})
	p.cut(0)
	p.add(record.Event{Kind: record.KindClosed, Reason: "the client went away", Time: now})
	p.cut(0)
	p.seal("node-1", nodeKey, false)
	for i := range 2 {
		name := fmt.Sprintf("recordings/v1/%s/s-1/%010d", now.UTC().Format("2006/01/02"), i)
		if err := h.blobs.Create(t.Context(), name, p.chunks[i]); err != nil {
			t.Fatal(err)
		}
	}
	other, err := h.Ingest(t.Context(), "node-2", &nodev1.ShipRequest{Session: "s-1", Index: 2, Chunk: p.chunks[2]})
	if err != nil || other.GetReject() == "" || other.GetNextIndex() != 0 {
		t.Errorf("of another node: %v, %v", other, err)
	}
	for i := 2; i < 4; i++ {
		if r := ship(t, h, p, i); r.GetNextIndex() != uint32(i+1) || r.GetReject() != "" {
			t.Fatalf("chunk %d: %v", i, r)
		}
	}
	if s, err := h.Get(t.Context(), "s-1"); err != nil || s.GetRecording() != "sealed" || s.GetStatements() != 1 {
		t.Errorf("%v, %v", s, err)
	}
	// And one of which only what is raw is still to come.
	q := newTape(t, "s-2")
	q.add(record.Event{Kind: record.KindOpened, Session: &q.session, Time: now})
	q.cut(0)
	if err := h.blobs.Create(t.Context(), fmt.Sprintf("recordings/v1/%s/s-2/%010d", now.UTC().Format("2006/01/02"), 0), q.chunks[0]); err != nil {
		t.Fatal(err)
	}
	if r := ship(t, h, rawOf(t, "s-2"), 0); r.GetNextIndex() != 1 || r.GetReject() != "" {
		t.Errorf("what is raw: %v", r)
	}
}

// TestEndLost gives up what will not come, and takes it when it comes after all.
func TestEndLost(t *testing.T) {
	h := open(t, t.TempDir())
	shipAll(t, h, usual(t, "s-whole"))
	gone, live, closed := usual(t, "s-gone"), usual(t, "s-live"), usual(t, "s-closed")
	ship(t, h, gone, 0)
	ship(t, h, gone, 1)
	ship(t, h, live, 0)
	for i := range 3 { // all but the seal
		ship(t, h, closed, i)
	}
	var marks []recording.Mark
	poison := ""
	svc, err := recording.New(recording.Config{
		Blobs: h.blobs, Index: h.index, Store: h.store, Keys: ring{}, Rejected: func(context.Context, recording.Rejection) error { return nil },
		NodeKeys: func(string) ([]crypto.PublicKey, error) { return []crypto.PublicKey{nodeKey.Public()}, nil },
		Told: func(_ context.Context, m recording.Mark) error {
			if m.Session.GetId() == poison {
				return errors.New("it cannot be told of")
			}
			marks = append(marks, m)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(_ context.Context, node postern.NodeName, ids []postern.SessionID, last time.Time) (recording.Loss, error) {
		slices.Sort(ids)
		if node != "node-1" || !slices.Equal(ids, []postern.SessionID{"s-closed", "s-gone", "s-live"}) || !last.After(began) {
			t.Errorf("asked of %s for %v, since %s", node, ids, last)
		}
		return recording.Loss{"s-gone": "it was wiped", "s-closed": "it was wiped", "s-whole": "it was wiped"}, nil
	}
	poison = "s-closed"
	if n, err := svc.EndLost(t.Context(), ask); err == nil || n != 1 {
		t.Errorf("%d ended, %v: one that cannot be ended keeps the others", n, err)
	}
	poison = ""
	if n, err := svc.EndLost(t.Context(), func(context.Context, postern.NodeName, []postern.SessionID, time.Time) (recording.Loss, error) {
		return recording.Loss{"s-closed": "it was wiped"}, nil
	}); err != nil || n != 1 {
		t.Errorf("%d ended, %v", n, err)
	}
	if len(marks) != 2 || !marks[0].Lost || !marks[1].Lost || marks[0].NodeKey != nil {
		t.Errorf("told: %+v", marks)
	}
	check := func(id, state, reason string, ended bool) {
		t.Helper()
		s, err := svc.Get(t.Context(), id)
		if err != nil || s.GetRecording() != state || s.GetEndReason() != reason || (s.GetEndTime() != nil) != ended {
			t.Errorf("%s: %v %v", id, s, err)
		}
	}
	check("s-whole", "sealed", "the client went away", true)
	check("s-gone", "truncated", "the rest of the recording was lost: it was wiped", true)
	check("s-closed", "truncated", "the client went away", true)
	check("s-live", "open", "", false)
	followed := 0
	if err := svc.Read(t.Context(), "s-gone", 0, true, func(uint32, []byte, []byte) error { followed++; return nil }); err != nil || followed != 2 {
		t.Errorf("who follows it sees %d chunks, %v", followed, err)
	}
	// The node comes back from a backup of its disk.
	for i, after := range []string{2: "open", 3: "sealed"} {
		if after == "" {
			continue
		}
		r, err := svc.Ingest(t.Context(), "node-1", &nodev1.ShipRequest{Session: "s-gone", Index: uint32(i), Chunk: gone.chunks[i]})
		if err != nil || r.GetReject() != "" || r.GetNextIndex() != uint32(i+1) {
			t.Fatalf("chunk %d: %v %v", i, r, err)
		}
		check("s-gone", after, "the client went away", true)
	}
	r, err := svc.Ingest(t.Context(), "node-1", &nodev1.ShipRequest{Session: "s-closed", Index: 3, Chunk: closed.chunks[3]})
	if err != nil || r.GetReject() != "" {
		t.Errorf("the seal: %v %v", r, err)
	}
	check("s-closed", "sealed", "the client went away", true)
}

// TestEndLostGoesOn opens a recording again of a session that still runs.
func TestEndLostGoesOn(t *testing.T) {
	h := open(t, t.TempDir())
	p := usual(t, "s-1")
	ship(t, h, p, 0)
	all := func(_ context.Context, _ postern.NodeName, ids []postern.SessionID, _ time.Time) (recording.Loss, error) {
		loss := recording.Loss{}
		for _, id := range ids {
			loss[id] = "it was silent"
		}
		return loss, nil
	}
	if n, err := h.EndLost(t.Context(), all); err != nil || n != 1 {
		t.Fatalf("%d ended, %v", n, err)
	}
	if s, err := h.Get(t.Context(), "s-1"); err != nil || !strings.Contains(s.GetEndReason(), "it was silent") {
		t.Errorf("%v %v", s, err)
	}
	ship(t, h, p, 1)
	if s, err := h.Get(t.Context(), "s-1"); err != nil || s.GetRecording() != "open" || s.GetEndTime() != nil || s.GetEndReason() != "" {
		t.Errorf("%v %v", s, err)
	}
}
