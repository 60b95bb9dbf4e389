package spool

import (
	"fmt"
	"slices"
	"sync"
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
	return &record.Event{Time: now, Kind: record.KindIntent, Statement: 1, Shape: new(int), Text: "SELECT id, email, total FROM sales.orders WHERE id = $1",
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

// BenchmarkRecord measures what a mode adds to a statement. One operation is one statement:
// an intent in the mode and its outcome in mode Async, as the gate does it; p50 is what the
// intent waits, cpu-us/op what the whole process needs, up to the uplink.
func BenchmarkRecord(b *testing.B) {
	for _, m := range []struct {
		name string
		mode Mode
	}{{"async", Async}, {"local", Local}} {
		b.Run(m.name, func(b *testing.B) {
			cfg := testConfig(b, sink{})
			cfg.SegmentBytes, cfg.MaxBytes = 32<<20, 2<<30
			s, _, _ := start(b, cfg)
			r, err := s.Session(meta("s"))
			if err != nil {
				b.Fatal(err)
			}
			begin, end := benchEvents()
			var waits waits
			b.ReportAllocs()
			before := cpuTime()
			for i := 0; b.Loop(); i++ {
				if i%100_000 == 99_999 { // what is measured is faster than the shipping behind it
					b.StopTimer()
					waitFor(b, func() bool { n, _ := s.Stats(); return n < 64<<20 })
					b.StartTimer()
				}
				at := time.Now()
				if err := r.Record(begin, m.mode); err != nil {
					b.Fatal(err)
				}
				waits.add(time.Since(at))
				if err := r.Record(end, Async); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			waitFor(b, func() bool { n, _ := s.Stats(); return n < chunkBytes })
			b.ReportMetric(float64(cpuTime()-before)/1e3/float64(b.N), "cpu-us/op")
			waits.report(b)
		})
	}
	for _, m := range []struct {
		name string
		mode Mode
	}{{"disk-32-sessions", Disk}, {"remote-32-sessions", Remote}} {
		b.Run(m.name, func(b *testing.B) {
			s := benchSpool(b)
			var n atomic.Int64
			var mu sync.Mutex
			var all waits
			b.SetParallelism(16) // many sessions share one sync
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r, err := s.Session(meta(fmt.Sprint("s", n.Add(1))))
				if err != nil {
					b.Error(err)
					return
				}
				begin, end := benchEvents()
				var waits waits
				for pb.Next() {
					at := time.Now()
					if err := r.Record(begin, m.mode); err != nil {
						b.Error(err)
						return
					}
					waits.add(time.Since(at))
					if err := r.Record(end, Local); err != nil {
						b.Error(err)
						return
					}
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, waits...)
			})
			all.report(b)
		})
	}
}

// waits are what statements waited for; of many, those that came first.
type waits []time.Duration

func (w *waits) add(d time.Duration) {
	if len(*w) < 1<<20 {
		*w = append(*w, d)
	}
}

func (w waits) report(b *testing.B) {
	if len(w) == 0 {
		return
	}
	slices.Sort(w)
	b.ReportMetric(float64(w[len(w)/2].Nanoseconds())/1e3, "p50-us")
	b.ReportMetric(float64(w[len(w)*99/100].Nanoseconds())/1e3, "p99-us")
}
