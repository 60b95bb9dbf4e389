package spool

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// execution is one of a shape: of a text that many have, or of its own.
func execution(shape *int, own bool, size int) *record.Event {
	text := fmt.Sprintf("select %d", *shape)
	if own {
		text += " -- " + strings.Repeat("x", size)
	}
	return &record.Event{Time: time.Now(), Kind: record.KindIntent, Statement: record.Next, Text: text, Shape: shape, Verdict: postern.VerdictAllow,
		Rule: fmt.Sprint("r", *shape), Touched: []record.Touch{{Column: fmt.Sprint("t", *shape), Role: record.RoleOutput}}}
}

// alone reads each chunk by a Decoder of its own, and holds what the events say against their
// rule.
func alone(t *testing.T, chunks [][]byte) (read int) {
	t.Helper()
	key := dataKey(t, chunks)
	for i, data := range chunks {
		chunk, err := record.ParseChunk(data)
		if err != nil {
			t.Fatal(err)
		}
		if chunk.Sealing {
			continue
		}
		frames, err := chunk.Frames(key)
		if err != nil {
			t.Fatal(err)
		}
		if err := (&record.Decoder{}).Briefly(frames, func(b *record.Brief) error {
			e, err := b.Whole()
			if err == nil && e.Kind == record.KindIntent {
				n := strings.TrimPrefix(e.Rule, "r")
				if read++; !strings.HasPrefix(e.Text, "select "+n) || len(e.Touched) != 1 || e.Touched[0].Column != "t"+n {
					t.Errorf("chunk %d: %+v", i, e)
				}
			}
			return err
		}); err != nil && !strings.Contains(err.Error(), "malformed") {
			t.Fatal(err)
		} else if err != nil {
			t.Errorf("chunk %d cannot be read by itself: %v", i, err)
		}
	}
	return read
}

// TestChunksAreReadAlone: events refer to others of their own chunk only, however chunks are
// cut: by size, by age, for somebody who waits, with events that are held back, and by the
// start after a crash.
func TestChunksAreReadAlone(t *testing.T) {
	up := newShelf()
	cfg := testConfig(t, up)
	s, _, stop := start(t, cfg)
	shapes := []*int{new(int), new(int), new(int)}
	for i, n := range shapes {
		*n = i
	}
	put := func(r *Recorder, e *record.Event, m Mode) {
		t.Helper()
		if err := r.Record(e, m); err != nil {
			t.Fatal(err)
		}
	}
	written := map[string]int{}
	for _, id := range []string{"ended", "lived"} {
		r, err := s.Session(meta(id))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2000 {
			e := execution(shapes[i%3], i%7 == 0, i%1000)
			switch {
			case i%500 == 499: // of many runs, behind some that are held
				e.Text += strings.Repeat("y", 200<<10)
				put(r, e, Async)
			case i%97 == 0:
				put(r, e, Remote)
			case i%5 == 0:
				put(r, e, Async)
			default:
				put(r, e, Local)
			}
			if i%301 == 0 { // as time does
				s.cutAged(time.Now().Add(time.Hour))
			}
			written[id]++
		}
		if id == "ended" {
			if err := r.Close("done"); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop()
	s, _, _ = start(t, cfg)
	drain(t, s)
	up.check(t)
	for id, want := range written {
		if got := alone(t, up.session(id)); got != want {
			t.Errorf("%s: %d executions are read of %d", id, got, want)
		}
	}
}

// TestCutsOutliveACrash: the next start cuts where this one has, though it had not said so on
// the disk yet.
func TestCutsOutliveACrash(t *testing.T) {
	up := newShelf()
	cfg := testConfig(t, up)
	s, _, err := Open(cfg) // and nobody runs it, so that nothing is built
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Session(meta("s"))
	if err != nil {
		t.Fatal(err)
	}
	shape := new(int)
	for i := range 300 {
		if err := r.Record(execution(shape, false, 0), Local); err != nil {
			t.Fatal(err)
		}
		if i%100 == 99 {
			s.cutAged(time.Now().Add(time.Hour))
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, _, _ = start(t, cfg)
	drain(t, s)
	up.check(t)
	chunks := up.session("s")
	if got := alone(t, chunks); got != 300 || len(chunks) < 4 {
		t.Errorf("%d executions in %d chunks", got, len(chunks))
	}
}

// TestHeldRunsStayTogether: what is held back as runs is cut behind the last of them, where
// its events refer to others of the chunk.
func TestHeldRunsStayTogether(t *testing.T) {
	up := newShelf()
	s, _, _ := start(t, testConfig(t, up))
	r, err := s.Session(meta("s"))
	if err != nil {
		t.Fatal(err)
	}
	shape, rows := new(int), string(prose(2<<20))
	want := 0
	for at := 0; at < len(rows); at += 8 << 10 {
		for _, e := range []*record.Event{execution(shape, false, 0), {Kind: record.KindNote, Text: rows[at : at+8<<10]}, execution(shape, true, 9)} {
			if err := r.Record(e, Async); err != nil {
				t.Fatal(err)
			}
		}
		want += 2
	}
	if err := r.Close("done"); err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	up.check(t)
	if got := alone(t, up.session("s")); got != want {
		t.Errorf("%d executions are read of %d", got, want)
	}
}

// TestHeldEventsStayTogether: a chunk that gets full by events that are held back, which go
// out before one of many runs does, ends behind all of them.
func TestHeldEventsStayTogether(t *testing.T) {
	up := newShelf()
	s, _, _ := start(t, testConfig(t, up))
	r, err := s.Session(meta("s"))
	if err != nil {
		t.Fatal(err)
	}
	put := func(e *record.Event, m Mode) {
		t.Helper()
		if err := r.Record(e, m); err != nil {
			t.Fatal(err)
		}
	}
	shape := new(int)
	put(execution(shape, false, 0), Local)
	for left := chunkBytes - 10<<10; left > 0; left -= 32 << 10 {
		put(&record.Event{Kind: record.KindNote, Text: strings.Repeat("x", min(left, 32<<10))}, Local)
	}
	for range 20 {
		put(execution(shape, true, 1000), Async)
	}
	put(&record.Event{Kind: record.KindNote, Text: strings.Repeat("y", 200<<10)}, Async)
	if err := r.Close("done"); err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	up.check(t)
	if got := alone(t, up.session("s")); got != 21 {
		t.Errorf("%d executions are read of 21", got)
	}
}
