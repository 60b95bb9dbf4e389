package recording_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"testing"

	"github.com/posterngate/postern/controlplane/recording"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// over is a Service over an index of its own and the blobs of another.
func over(t *testing.T, blobs *house, c recording.Config) *recording.Service {
	t.Helper()
	own := open(t, t.TempDir())
	c.Blobs, c.Index, c.Keys = blobs.blobs, own.index, ring{}
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
