package indextest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// Load is a chunk as applications make them.
type Load struct {
	Statements int  // of the chunk
	Distinct   bool // each has a text of its own; otherwise there are eight
}

// chunk is number n of a session.
func (l Load) chunk(id string, n uint32) *index.Update {
	u := update(id, n, 0)
	at := began.Add(time.Duration(n) * 2 * time.Second)
	for i := range l.Statements {
		number := uint64(int(n)*l.Statements + i + 1)
		kind := i % 8
		if l.Distinct {
			kind = int(number)
		}
		touched := make([]record.Touch, 0, 5)
		for _, c := range []string{"id", "customer_id", "customer_email", "amount", "status"} {
			touched = append(touched, record.Touch{Column: "sales.orders." + c, Role: record.RoleOutput})
		}
		touched[0].Role |= record.RolePredicate
		touched[2].Mask = "email"
		u.Statements = append(u.Statements, index.Statement{
			Number: number, Seq: 2 * number, Time: at.Add(time.Duration(i) * time.Millisecond), Verdict: postern.VerdictAllow, Rule: "task/sales-report#0",
			Text:    fmt.Sprintf("SELECT id, customer_id, customer_email, amount, status FROM sales.orders WHERE id = $1 AND kind = %d", kind),
			Touched: touched,
		})
		u.Outcomes = append(u.Outcomes, index.Outcome{Number: number, Verdict: postern.VerdictAllow, Rows: 1, Affected: -1, Tag: "SELECT 1", Duration: time.Millisecond})
	}
	return u
}

// Benchmark measures how fast rows are taken in, from 16 sessions at once: each chunk
// is that of two seconds. An op is a statement; its CPU time is the whole process's, with
// that of making the load.
func Benchmark(b *testing.B, open func(b *testing.B) index.Index) {
	for name, l := range map[string]Load{
		"prepared": {Statements: 1000}, "distinct": {Statements: 1000, Distinct: true}, "idle": {Statements: 2},
	} {
		b.Run(name, func(b *testing.B) {
			x := open(b)
			var left atomic.Int64
			left.Store(int64(b.N+l.Statements-1) / int64(l.Statements))
			b.ResetTimer()
			used := cpu(b)
			var wg sync.WaitGroup
			for s := range 16 {
				wg.Go(func() {
					for n := uint32(0); left.Add(-1) >= 0; n++ {
						if err := x.Commit(context.Background(), l.chunk(fmt.Sprintf("s-%d", s), n)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-used).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpu is what the process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
