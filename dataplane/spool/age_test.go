package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// walked is what Stats and ages say, by a walk over all sessions.
func walked(s *Spool) (since time.Time, count int) {
	for _, ses := range s.sessions {
		if t := ses.oldest(); !t.IsZero() {
			count++
			if since.IsZero() || t.Before(since) {
				since = t
			}
		}
	}
	return since, count
}

// Whatever happens to sessions, the oldest record is known without a walk over them.
func TestAges(t *testing.T) {
	up := newShelf()
	up.breakAt = func(int) bool { return rand.N(10) == 0 }
	up.refuse = func(c Chunk) string {
		if len(c.Session) == 4 && c.Session[3] == '7' {
			return "no"
		}
		return ""
	}
	cfg := rawConfig(t, up)
	check := func(s *Spool) {
		t.Helper()
		s.mu.Lock()
		defer s.mu.Unlock()
		since, count := walked(s)
		if len(s.ages) != count || count > 0 && !s.ages[0].lacks.Equal(since) {
			t.Fatalf("%d sessions have something to be stored, and %d are known", count, len(s.ages))
		}
		for i, ses := range s.ages {
			if ses.rank != i+1 || !ses.lacks.Equal(ses.oldest()) {
				t.Fatalf("session %s stands at %d and not at %d, or has the wrong age", ses.id, ses.rank, i+1)
			}
		}
	}
	s, _, stop := start(t, cfg)
	var live []*Recorder
	for i := range 80 {
		if i == 60 {
			stop()
			s, _, _ = start(t, cfg)
			live = nil
			check(s)
		}
		r, raw := begin(t, s, fmt.Sprintf("s-%02d", i))
		live = append(live, r, raw)
		for range 20 {
			_ = live[rand.N(len(live))].Record(intent(1), []Mode{Local, Async, Disk, Remote}[rand.N(4)%(1+i%4)]) // what is refused says so
			check(s)
		}
		if rand.N(2) == 0 {
			_ = errors.Join(r.Close("done"), raw.Close("done"))
		}
		check(s)
	}
	for _, r := range live {
		_ = r.Close("done")
	}
	drain(t, s)
	check(s)
	if n, age := s.Stats(); n != 0 || age != 0 {
		t.Errorf("%d bytes, %s old, are left", n, age)
	}
}

// BenchmarkStats asks what 10 000 sessions lack, as each look at the metrics does, while
// statements wait for the same lock.
func BenchmarkStats(b *testing.B) {
	up := newShelf()
	up.shut = true
	cfg := testConfig(b, up)
	cfg.SegmentBytes, cfg.MaxBytes = 8<<20, 1<<30
	s, _, _ := start(b, cfg)
	for i := range 10_000 {
		r, err := s.Session(meta(fmt.Sprintf("s-%d", i)))
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Record(intent(1), Local); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if n, age := s.Stats(); n == 0 || age == 0 {
			b.Fatal("nothing is lacking")
		}
	}
}
