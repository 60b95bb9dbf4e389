package spool

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

func benchSpool(t testing.TB) *Spool {
	cfg := testConfig(t, newShelf())
	cfg.SegmentBytes, cfg.MaxBytes = 32<<20, 2<<30
	s, _, _ := start(t, cfg)
	return s
}

func benchEvents() (intent, finished *record.Event) {
	now := time.Now()
	return &record.Event{Time: now, Kind: record.KindIntent, Statement: 1, Text: "SELECT id, email, total FROM sales.orders WHERE id = $1",
			Params: []record.Param{{Value: "4711"}}, Verdict: postern.VerdictAllow, Rule: "sales-report/permit[0]", Effect: postern.EffectRead, Level: postern.LevelSource,
			Touched: []record.Touch{{Column: "sales.orders.id", Role: record.RoleOutput | record.RolePredicate}, {Column: "sales.orders.email", Role: record.RoleOutput, Mask: "email"}}},
		&record.Event{Time: now, Kind: record.KindFinished, Statement: 1, Rows: 1, Bytes: 40, Affected: -1, Tag: "SELECT 1", Duration: 210 * time.Microsecond}
}

func TestRecordAllocatesNothing(t *testing.T) {
	s := benchSpool(t)
	r, err := s.Session(meta("s"))
	if err != nil {
		t.Fatal(err)
	}
	begin, end := benchEvents()
	for _, m := range []Mode{Local, Async} {
		n := testing.AllocsPerRun(2000, func() {
			for _, e := range []*record.Event{begin, end} {
				if err := r.Record(e, m); err != nil {
					t.Fatal(err)
				}
			}
		})
		if n != 0 {
			t.Errorf("mode %d: %v allocations per statement", m, n)
		}
	}
}

// One operation is one statement: an intent in the mode and its outcome in mode Local.
func BenchmarkRecord(b *testing.B) {
	for _, m := range []struct {
		name string
		mode Mode
	}{{"async", Async}, {"local", Local}} {
		b.Run(m.name, func(b *testing.B) {
			s := benchSpool(b)
			r, err := s.Session(meta("s"))
			if err != nil {
				b.Fatal(err)
			}
			begin, end := benchEvents()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%100_000 == 99_999 { // what is measured is faster than the shipping behind it
					b.StopTimer()
					waitFor(b, func() bool { n, _ := s.Stats(); return n < 64<<20 })
					b.StartTimer()
				}
				if err := r.Record(begin, m.mode); err != nil {
					b.Fatal(err)
				}
				if err := r.Record(end, Local); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, m := range []struct {
		name string
		mode Mode
	}{{"disk-32-sessions", Disk}, {"remote-32-sessions", Remote}} {
		b.Run(m.name, func(b *testing.B) {
			s := benchSpool(b)
			var n atomic.Int64
			b.SetParallelism(16) // many sessions share one sync
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r, err := s.Session(meta(fmt.Sprint("s", n.Add(1))))
				if err != nil {
					b.Error(err)
					return
				}
				begin, end := benchEvents()
				for pb.Next() {
					if err := r.Record(begin, m.mode); err != nil {
						b.Error(err)
						return
					}
					if err := r.Record(end, Local); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
