package recording_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// BenchmarkIngest takes in what an application's prepared statement is recorded as, from
// 8 sessions at once, in chunks of the size at which nodes cut them: all that lies
// between a chunk's arrival and its answer. An op is a statement; its CPU time is the
// whole process's, the system's part with it.
func BenchmarkIngest(b *testing.B) {
	for _, c := range []struct {
		name     string
		rows     bool // as under a task that keeps the first rows of each result
		distinct bool
	}{{"prepared", false, false}, {"rows", true, false}, {"distinct", false, true}} {
		b.Run(c.name, func(b *testing.B) {
			const sessions, chunkBytes = 8, 416 << 10
			h := open(b, b.TempDir())
			tapes := make([]*tape, sessions)
			size, chunks := 0, 0
			for s := range tapes {
				p := newTape(b, fmt.Sprintf("s-%d", s))
				p.open()
				for i := range (b.N + sessions - 1) / sessions {
					hotStatement(p, i, c.rows, c.distinct)
					if len(p.frames) >= chunkBytes {
						p.cut(0)
					}
				}
				if len(p.frames) > 0 {
					p.cut(0)
				}
				for _, chunk := range p.chunks {
					size += len(chunk)
				}
				chunks += len(p.chunks)
				tapes[s] = p
			}
			b.ResetTimer()
			used := cpu(b)
			var wg sync.WaitGroup
			for _, p := range tapes {
				wg.Go(func() {
					for i, data := range p.chunks {
						r, err := h.Ingest(b.Context(), "node-1", &nodev1.ShipRequest{Session: string(p.session.ID), Index: uint32(i), Chunk: data})
						if err != nil || r.GetReject() != "" {
							b.Error(r, err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			spent := float64((cpu(b) - used).Nanoseconds())
			b.ReportMetric(spent/float64(b.N), "cpu-ns/op")
			b.ReportMetric(spent/1e6/(float64(size)/1e6), "cpu-ms/MB")
			b.ReportMetric(float64(b.N)/float64(chunks), "statements/chunk")
		})
	}
}

// BenchmarkShortSessions takes in sessions of one statement, from 8 at once: each as a chunk
// and its seal together, as nodes ship them, and one after the other, as they did before. An
// op is a session.
func BenchmarkShortSessions(b *testing.B) {
	for _, together := range []bool{true, false} {
		b.Run(map[bool]string{true: "together", false: "apart"}[together], func(b *testing.B) {
			h := open(b, b.TempDir())
			reqs := make([][]*nodev1.ShipRequest, b.N)
			for i := range reqs {
				p := newTape(b, fmt.Sprintf("s-%d", i))
				p.open()
				hotStatement(p, 0, false, false)
				p.add(record.Event{Kind: record.KindClosed, Reason: "client left"})
				p.cut(0)
				p.seal("node-1", nodeKey, false)
				reqs[i] = []*nodev1.ShipRequest{last(p)}
				if !together {
					reqs[i] = []*nodev1.ShipRequest{{Session: string(p.session.ID), Chunk: p.chunks[0]}, {Session: string(p.session.ID), Index: 1, Chunk: p.chunks[1]}}
				}
			}
			b.ResetTimer()
			used := cpu(b)
			var wg sync.WaitGroup
			for w := range 8 {
				wg.Go(func() {
					for i := w; i < len(reqs); i += 8 {
						for _, req := range reqs[i] {
							if r, err := h.Ingest(b.Context(), "node-1", req); err != nil || r.GetReject() != "" {
								b.Error(r, err)
								return
							}
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-used).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

var hotShape = new(int)

// hotStatement is a point select that is executed once more.
func hotStatement(p *tape, i int, rows, distinct bool) {
	text := "SELECT o.id, o.customer_id, o.amount, o.status, o.created_at FROM sales.orders o WHERE o.id = $1"
	if distinct {
		text = strings.Replace(text, "$1", fmt.Sprint(i), 1)
	}
	hash := sha256.Sum256([]byte(text))
	touched := make([]record.Touch, 0, 5)
	for _, c := range []string{"id", "customer_id", "amount", "status", "created_at"} {
		touched = append(touched, record.Touch{Column: "sales.orders." + c, Role: record.RoleOutput})
	}
	touched[0].Role |= record.RolePredicate
	number, at := uint64(i+1), began.Add(time.Duration(i)*200*time.Microsecond)
	p.add(record.Event{Kind: record.KindIntent, Time: at, Statement: number, Text: text, Hash: hash[:], Params: []record.Param{{Value: fmt.Sprint(i * 7 % 100000)}},
		Verdict: postern.VerdictAllow, Rule: "sales-report/permit[0]", Touched: touched, Effect: postern.EffectRead, Level: postern.LevelSource, Shape: hotShape})
	if rows {
		p.add(record.Event{Kind: record.KindRows, Time: at, Statement: number, Rows: 1, Encoding: record.EncodingDataRow, Data: []byte(strings.Repeat("D", 70)),
			Columns: []record.Column{{Name: "id", Type: 20}, {Name: "customer_id", Type: 20}, {Name: "amount", Type: 1700}, {Name: "status", Type: 25}, {Name: "created_at", Type: 1184}}})
	}
	p.add(record.Event{Kind: record.KindFinished, Time: at.Add(150 * time.Microsecond), Statement: number, Tag: "SELECT 1", Rows: 1, Bytes: 70, Affected: -1, Duration: time.Duration(120+i%60) * time.Microsecond})
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
