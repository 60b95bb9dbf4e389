package spool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/record"
)

// sink is an Uplink that has stored at once whatever comes.
type sink struct{}

func (sink) Stream(ctx context.Context, next func(context.Context) (Chunk, error), acked func(string, uint32), _ func(string, uint32, string)) error {
	for {
		c, err := next(ctx)
		if err != nil {
			return err
		}
		acked(c.Session, c.Index+1)
	}
}

// prose is what rows and logs are like.
func prose(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d\tuser%d@example.com\t%s-%d\t%d.%02d EUR\tshipped %d\n", i, r.IntN(1e6), [...]string{"north", "south", "east"}[r.IntN(3)], r.IntN(1e9), r.IntN(5000), r.IntN(100), r.IntN(1e9))
	}
	return []byte(b.String()[:n])
}

// BenchmarkBulk measures what it costs to keep much data, from Record to the uplink. One
// operation is a packet of 32 KiB; cpu-ms/MB is of the whole process.
func BenchmarkBulk(b *testing.B) {
	for _, what := range []struct {
		name string
		data []byte
	}{{"noise", []byte(noise(8 << 20))}, {"prose", prose(8 << 20)}} {
		b.Run(what.name, func(b *testing.B) {
			cfg := testConfig(b, sink{})
			cfg.SegmentBytes, cfg.MaxBytes = 32<<20, 2<<30
			s, _, _ := start(b, cfg)
			r, err := s.Session(meta("s"))
			if err != nil {
				b.Fatal(err)
			}
			const packet = 32 << 10
			b.SetBytes(packet)
			b.ReportAllocs()
			before := cpuTime()
			e := &record.Event{Kind: record.KindChunk, Statement: 1, Tag: "stdout"}
			for i := 0; b.Loop(); i++ {
				at := i * packet % len(what.data)
				e.Time, e.Data, e.Bytes = time.Now(), what.data[at:at+packet], packet
				if err := r.Record(e, Async); err != nil {
					b.Fatal(err)
				}
				if i%1024 == 1023 { // what is measured is faster than the disk behind it
					waitFor(b, func() bool { n, _ := s.Stats(); return n < 16<<20 })
				}
			}
			waitFor(b, func() bool { n, _ := s.Stats(); return n < chunkBytes })
			b.ReportMetric(float64(cpuTime()-before)/1e6/(float64(b.N)*packet/1e6), "cpu-ms/MB")
		})
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
