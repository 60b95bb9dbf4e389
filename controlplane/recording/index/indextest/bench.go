package indextest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

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
	u.Earlier = uint64(int(n) * l.Statements)
	at := began.Add(time.Duration(n) * 2 * time.Second)
	touched := make([]record.Touch, 0, 5)
	for _, c := range []string{"id", "customer_id", "customer_email", "amount", "status"} {
		touched = append(touched, record.Touch{Column: "sales.orders." + c, Role: record.RoleOutput})
	}
	touched[0].Role |= record.RolePredicate
	touched[2].Mask = "email"
	for i := range l.Statements {
		number := uint64(int(n)*l.Statements + i + 1)
		kind := i % 8
		if l.Distinct {
			kind = int(number)
		}
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
// that of making the load, and what other processes used for it.
func Benchmark(b *testing.B, open func(b *testing.B) index.Index, others func() time.Duration) {
	for name, l := range map[string]Load{
		"prepared": {Statements: 1000}, "distinct": {Statements: 1000, Distinct: true}, "small": {Statements: 100, Distinct: true}, "idle": {Statements: 2},
	} {
		b.Run(name, func(b *testing.B) {
			x := open(b)
			var left atomic.Int64
			left.Store(int64(b.N+l.Statements-1) / int64(l.Statements))
			b.ResetTimer()
			used, theirs := cpu(b), others()
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
			ours := cpu(b) - used
			theirs = others() - theirs
			b.ReportMetric(float64((ours+theirs).Nanoseconds())/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(theirs.Nanoseconds())/float64(b.N), "server-cpu-ns/op")
			b.ReportMetric(float64(b.N)/(ours+theirs).Seconds(), "statements/core-s")
		})
	}
}

// rowsEnv says how many statements BenchmarkAnswers looks through.
const rowsEnv = "POSTERN_INDEX_ROWS"

// BenchmarkAnswers fills an index with statements, 200,000 or as many as the environment
// says, of 100 in each minute of a session, and measures answers. An op is an answer.
func BenchmarkAnswers(b *testing.B, open func(b *testing.B) index.Index) {
	rows := 200_000
	if text := os.Getenv(rowsEnv); text != "" {
		var err error
		if rows, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	x := open(b)
	begin := time.Now()
	fillSessions(b, x, rows)
	b.Logf("%d statements were taken in in %s", rows, time.Since(begin).Round(time.Second))
	day := began.Add(10 * time.Minute)
	for name, ask := range map[string]func(ctx context.Context) (int, error){
		"who/ever": func(ctx context.Context) (int, error) {
			l, err := x.Who(ctx, index.Who{Name: "sales.orders.customer_email", Limit: 101})
			return len(l), err
		},
		"who/day": func(ctx context.Context) (int, error) {
			l, err := x.Who(ctx, index.Who{Name: "sales.orders.customer_email", Since: day.Add(time.Second), Until: day.Add(24 * time.Hour), Limit: 101})
			return len(l), err
		},
		"search/common": func(ctx context.Context) (int, error) {
			l, err := x.Search(ctx, index.Query{Text: "customer_email", Limit: 101})
			return len(l), err
		},
		"search/rare": func(ctx context.Context) (int, error) {
			l, err := x.Search(ctx, index.Query{Text: "rare_4710", Limit: 101})
			return len(l), err
		},
		"search/column": func(ctx context.Context) (int, error) {
			l, err := x.Search(ctx, index.Query{Column: "sales.orders.amount", Subject: "alice", Limit: 101})
			return len(l), err
		},
		"usage": func(ctx context.Context) (int, error) {
			l, err := x.Usage(ctx, index.Usage{Name: "warehouse"})
			return len(l), err
		},
	} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				n, err := ask(context.Background())
				if err != nil || n == 0 {
					b.Fatalf("%d, %v", n, err)
				}
			}
		})
	}
}

// fillSessions commits sessions of 20 minutes, in each minute of which 100 statements
// are judged; one in ten is of a text of its own.
func fillSessions(b *testing.B, x index.Index, rows int) {
	const perMinute, minutes = 100, 20
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				s := int(next.Add(1)) - 1
				if s*perMinute*minutes >= rows {
					return
				}
				for n := range uint32(4) {
					u := Load{Statements: perMinute * minutes / 4}.chunk(fmt.Sprintf("s-%06d", s), n)
					start := began.Add(time.Duration(s) * time.Minute)
					u.Session.StartTime, u.Session.LastTime = timestamppb.New(start), timestamppb.New(start.Add(time.Duration(n+1)*5*time.Minute))
					for i := range u.Statements {
						st := &u.Statements[i]
						st.Time = start.Add(time.Duration(n)*5*time.Minute + time.Duration(i)*time.Minute/perMinute)
						if i%10 == 0 {
							st.Text += fmt.Sprintf(" AND rare_%d > 0", s*perMinute*minutes/4+int(n)*100+i)
						}
					}
					if err := x.Commit(context.Background(), u); err != nil {
						b.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// cpu is what the process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
