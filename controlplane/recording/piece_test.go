package recording_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/recording"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// short is a session of one chunk and its seal.
func short(t testing.TB, id string) *tape {
	p := newTape(t, id)
	p.open()
	p.add(record.Event{Kind: record.KindIntent, Statement: 1, Text: "select 1", Verdict: postern.VerdictAllow})
	p.add(record.Event{Kind: record.KindFinished, Statement: 1, Rows: 1, Affected: -1, Tag: "SELECT 1"})
	p.add(record.Event{Kind: record.KindClosed, Reason: "the client went away"})
	p.cut(0)
	p.seal("node-1", nodeKey, false)
	return p
}

// last is the request with which a node ships the last chunk of a session and its seal.
func last(p *tape) *nodev1.ShipRequest {
	n := len(p.chunks) - 2
	return &nodev1.ShipRequest{Session: string(p.session.ID), Index: uint32(n), Chunk: p.chunks[n], Seal: p.chunks[n+1]}
}

// files are the blobs of a session, by the last digit of their names.
func files(t *testing.T, h *house, id string) map[byte][]byte {
	t.Helper()
	out := map[byte][]byte{}
	for name, err := range h.blobs.List(context.Background(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(name, "/"+id+"/") {
			continue
		}
		data, err := h.blobs.Read(context.Background(), name)
		if err != nil {
			t.Fatal(err)
		}
		out[name[len(name)-1]] = data
	}
	return out
}

// whole says that all of a recording is there, sealed, and verifies.
func whole(t *testing.T, h *house, p *tape) {
	t.Helper()
	id := string(p.session.ID)
	chunks, key := read(t, h, id)
	r, err := record.Verify(each(chunks), key, dataKey(t, h, id))
	if err != nil || len(r.Errors) > 0 || r.State != record.StateSealed || r.Chunks != len(p.chunks) {
		t.Errorf("%s: %+v, %v", id, r, err)
	}
	s, err := h.Get(context.Background(), id)
	if err != nil || s.GetRecording() != "sealed" || s.GetEndReason() != "the client went away" || s.GetChunks() != int64(len(p.chunks)) || s.GetStatements() != r.Statements {
		t.Errorf("%s: %v, %v", id, s, err)
	}
	for i := range p.chunks { // from any chunk on
		err := h.Read(context.Background(), id, uint32(i), false, func(n uint32, data, key []byte) error {
			if !bytes.Equal(data, p.chunks[n]) || int(n) == len(p.chunks)-1 && key == nil {
				t.Errorf("%s: chunk %d is not what was shipped", id, n)
			}
			i++
			return nil
		})
		if err != nil || i != len(p.chunks) {
			t.Errorf("%s: read up to %d: %v", id, i, err)
		}
	}
}

// TestSealComesAlong stores a chunk and its seal at once: in one blob, and told of once.
func TestSealComesAlong(t *testing.T) {
	h := open(t, t.TempDir())
	var marks []recording.Mark
	over := 0
	svc, err := recording.New(recording.Config{
		Blobs: h.blobs, Index: h.index, Store: h.store, Keys: ring{}, Rejected: func(_ context.Context, r recording.Rejection) error { t.Errorf("%+v", r); return nil },
		NodeKeys: func(string) ([]crypto.PublicKey, error) { return []crypto.PublicKey{nodeKey.Public()}, nil },
		Told:     func(_ context.Context, m recording.Mark) error { marks = append(marks, m); return nil },
		Ended:    func(context.Context, postern.NodeName, postern.SessionID) error { over++; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Service = svc
	a, b, raw := short(t, "s-a"), usual(t, "s-b"), rawOf(t, "s-a")
	for i := range 2 {
		ship(t, h, b, i)
	}
	ship(t, h, a, 0) // so that what is raw has its session
	ship(t, h, raw, 0)
	for range 2 { // the second time nothing is new
		for _, p := range []*tape{a, b, raw} {
			if r, err := h.Ingest(t.Context(), "node-1", last(p)); err != nil || r.GetReject() != "" || r.GetNextIndex() != uint32(len(p.chunks)) {
				t.Errorf("%s: %v, %v", p.session.ID, r, err)
			}
			for i := range p.chunks { // as an earlier version of a node ships them
				if r := ship(t, h, p, i); r.GetReject() != "" || r.GetNextIndex() != uint32(len(p.chunks)) {
					t.Errorf("%s: chunk %d again: %v", p.session.ID, i, r)
				}
			}
		}
	}
	c := short(t, "s-c")
	if r, err := h.Ingest(t.Context(), "node-1", last(c)); err != nil || r.GetNextIndex() != 2 {
		t.Errorf("%v, %v", r, err)
	}
	for _, p := range []*tape{a, b, c} {
		whole(t, h, p)
	}
	if got := readRaw(t, h, "s-a"); got != "as it was" {
		t.Errorf("read %q", got)
	}
	for id, want := range map[string]int{"s-a": 2, "s-b": 3, "s-c": 1, "s-a_raw": 2} {
		if n := len(files(t, h, id)); n != want {
			t.Errorf("%s lies in %d blobs, want %d", id, n, want)
		}
	}
	if m := marks[len(marks)-1]; len(marks) != 7 || over != 3 || m.NodeKey == nil || m.Chunks != 2 || m.Truncated || m.Hash != record.Hash(c.chunks[1][len(c.chunks[1])-32:]) {
		t.Errorf("told %d times, %d ended: %+v", len(marks), over, m)
	}
	// And they go as they came.
	n, err := h.Retain(t.Context(), began.Add(48*time.Hour), func(context.Context, []postern.SessionID) error { return nil }, nil)
	if err != nil || n != 4 {
		t.Errorf("%d went, %v", n, err)
	}
	for name, err := range h.blobs.List(t.Context(), "") {
		t.Errorf("%s is left, %v", name, err)
	}
}

// TestSealStoredBefore is stopped between blob and rows, and sent the rest in any form.
func TestSealStoredBefore(t *testing.T) {
	join := func(p *tape) []byte { return bytes.Join(p.chunks[len(p.chunks)-2:], nil) }
	for name, c := range map[string]struct {
		stored func(p *tape) []byte
		sent   func(p *tape) []*nodev1.ShipRequest
		files  int
	}{
		"both, and both again":      {join, func(p *tape) []*nodev1.ShipRequest { return []*nodev1.ShipRequest{last(p)} }, 1},
		"both, and the chunk alone": {join, func(p *tape) []*nodev1.ShipRequest { r := last(p); r.Seal = nil; return []*nodev1.ShipRequest{r} }, 1},
		"the chunk, and both":       {func(p *tape) []byte { return p.chunks[len(p.chunks)-2] }, func(p *tape) []*nodev1.ShipRequest { return []*nodev1.ShipRequest{last(p)} }, 2},
		"both, and one after the other": {join, func(p *tape) []*nodev1.ShipRequest {
			r, s := last(p), last(p)
			r.Seal, s.Index, s.Chunk, s.Seal = nil, s.GetIndex()+1, s.GetSeal(), nil
			return []*nodev1.ShipRequest{r, s}
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			for i, p := range []*tape{short(t, "s-1"), usual(t, "s-1")} {
				h := open(t, t.TempDir())
				n := len(p.chunks) - 2
				for i := range n {
					ship(t, h, p, i)
				}
				if err := h.blobs.Create(t.Context(), fmt.Sprintf("recordings/v1/2026/01/02/s-1/%010d", n), c.stored(p)); err != nil {
					t.Fatal(err)
				}
				for _, req := range c.sent(p) {
					if r, err := h.Ingest(t.Context(), "node-1", req); err != nil || r.GetReject() != "" || r.GetNextIndex() < req.GetIndex()+1 {
						t.Fatalf("%d: %v, %v", i, r, err)
					}
				}
				whole(t, h, p)
				if got := len(files(t, h, "s-1")); got != n+c.files || h.rejections() != 0 {
					t.Errorf("%d blobs, want %d; %d rejections", got, n+c.files, h.rejections())
				}
				// An index that lost all, and one that lost the last chunk, find the same.
				for _, lost := range []int{0, n} {
					again := open(t, t.TempDir())
					for i := range lost {
						ship(t, again, p, i)
					}
					for digit, data := range files(t, h, "s-1") {
						_ = again.blobs.Create(t.Context(), fmt.Sprintf("recordings/v1/2026/01/02/s-1/%09d%c", 0, digit), data)
					}
					if _, err := again.Reconcile(t.Context()); err != nil {
						t.Error(err)
					}
					whole(t, again, p)
				}
			}
		})
	}
}

// TestIndexFellBackBeforeTheSeal has both in one blob, and lost the rows of both.
func TestIndexFellBackBeforeTheSeal(t *testing.T) {
	h := open(t, t.TempDir())
	p := usual(t, "s-1")
	ship(t, h, p, 0)
	for i, data := range map[int][]byte{1: p.chunks[1], 2: bytes.Join(p.chunks[2:], nil)} {
		if err := h.blobs.Create(t.Context(), fmt.Sprintf("recordings/v1/2026/01/02/s-1/%010d", i), data); err != nil {
			t.Fatal(err)
		}
	}
	if r := ship(t, h, p, 3); r.GetNextIndex() != 4 || r.GetReject() != "" {
		t.Errorf("%v", r)
	}
	whole(t, h, p)
}

// TestSealRefused is no reason to refuse its chunk.
func TestSealRefused(t *testing.T) {
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{5}, ed25519.SeedSize))
	for name, c := range map[string]struct {
		seal func(t *testing.T) []byte
		want string
	}{
		"garbage":           {func(*testing.T) []byte { return []byte("x") }, "damaged chunk"},
		"cut in the middle": {func(t *testing.T) []byte { s := short(t, "s-1").chunks[1]; return s[:len(s)/2] }, "damaged chunk"},
		"more behind it":    {func(t *testing.T) []byte { return append(short(t, "s-1").chunks[1], 0) }, "damaged chunk"},
		"of another":        {func(t *testing.T) []byte { return short(t, "s-2").chunks[1] }, "of session s-2"},
		"no seal":           {func(t *testing.T) []byte { return usual(t, "s-1").chunks[1] }, "it is no seal"},
		"another index":     {func(t *testing.T) []byte { return usual(t, "s-1").chunks[3] }, "it is chunk 3"},
		"another past":      {func(t *testing.T) []byte { return short(t, "s-1").chunks[1] }, "does not follow"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, short(t, "s-1"), c.seal(t), c.want) })
	}
	t.Run("another signer", func(t *testing.T) {
		p := newTape(t, "s-1")
		p.open()
		p.cut(0)
		p.seal("node-1", other, false)
		refused(t, p, p.chunks[1], "not signed by")
	})
}

func refused(t *testing.T, p *tape, seal []byte, want string) {
	t.Helper()
	for _, twice := range []bool{false, true} {
		h := open(t, t.TempDir())
		if twice {
			ship(t, h, p, 0)
		}
		r, err := h.Ingest(t.Context(), "node-1", &nodev1.ShipRequest{Session: "s-1", Chunk: p.chunks[0], Seal: seal})
		if err != nil || !strings.Contains(r.GetReject(), want) || r.GetRejectedIndex() != 1 || r.GetNextIndex() != 1 {
			t.Errorf("%v, %v; want %q", r, err, want)
		}
		if h.rejections() != 1 || h.rejected[0].Index != 1 {
			t.Errorf("told %+v", h.rejected)
		}
		if s, err := h.Get(t.Context(), "s-1"); err != nil || s.GetRecording() != "open" || s.GetChunks() != 1 {
			t.Errorf("%v, %v", s, err)
		}
		if got := files(t, h, "s-1"); len(got) != 1 || !bytes.Equal(got['0'], p.chunks[0]) {
			t.Errorf("%d blobs", len(got))
		}
	}
}
