package crash_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/e2e/fleet"
)

// load is people and programs at work all the time. Each statement carries a number of
// its own, so that it can be found again: in the table and in the recordings.
type load struct {
	f     *fleet.Fleet
	group *run.Group
	next  atomic.Int64
	lost  atomic.Int64 // sessions that broke while they were in use
	cause atomic.Pointer[error]
	steps atomic.Int64 // statements that were acknowledged

	mu     sync.Mutex
	writes map[string]bool // numbers whose INSERT was acknowledged
	reads  map[string]bool // numbers whose SELECT was answered
}

const (
	writers = 4 // half of them at each node
	readers = 2
)

// startLoad begins with the grant token of the workload and alice's own token.
func startLoad(t *testing.T, f *fleet.Fleet, nodes ...*fleet.Node) *load {
	t.Helper()
	l := &load{f: f, group: run.New(context.Background()), writes: map[string]bool{}, reads: map[string]bool{}}
	grant := f.Must(t, "ada", "grant", "audit-writer", "--token-file", f.Workload(t))
	token := f.Token(t, "alice")
	for i := range writers {
		l.group.Go("writer", func(ctx context.Context) error {
			return l.work(ctx, nodes[i%len(nodes)], "audit-writer.warehouse", grant, l.write)
		})
	}
	for i := range readers {
		l.group.Go("reader", func(ctx context.Context) error {
			return l.work(ctx, nodes[i%len(nodes)], "sales-report.warehouse", token, l.read)
		})
	}
	return l
}

// stop ends the work; sessions are closed in order.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.group.Stop()
	if err := l.group.Wait(); err != nil {
		t.Error(err)
	}
}

// work connects to one node again and again, and does one thing after another there.
func (l *load) work(ctx context.Context, n *fleet.Node, permission, token string, step func(context.Context, *pgx.Conn) error) error {
	for ctx.Err() == nil {
		if err := l.session(ctx, n, permission, token, step); err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(20+rand.IntN(80)) * time.Millisecond):
			}
		}
	}
	return nil
}

func (l *load) session(ctx context.Context, n *fleet.Node, permission, token string, step func(context.Context, *pgx.Conn) error) error {
	var conn *pgx.Conn
	err := patiently(ctx, func(ctx context.Context) (err error) {
		conn, err = l.f.Dial(ctx, n, permission, token)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = patiently(ctx, conn.Close) }()
	for range 100 + rand.IntN(1000) { // and now and then a session ends in order
		if ctx.Err() != nil {
			return nil
		}
		if err := patiently(ctx, func(ctx context.Context) error { return step(ctx, conn) }); err != nil {
			l.lost.Add(1)
			l.cause.Store(&err)
			return err
		}
		l.steps.Add(1)
		<-time.After(time.Millisecond)
	}
	return nil
}

// patiently waits for what has begun, even when the work is over: otherwise nobody knew
// what became of it. Each statement has its own time, however slow the machine is.
func patiently(ctx context.Context, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	return do(ctx)
}

func (l *load) number(kind string) string { return fmt.Sprintf("%s-%08d", kind, l.next.Add(1)) }

// write inserts a row, in the simple protocol or with a parameter.
func (l *load) write(ctx context.Context, conn *pgx.Conn) error {
	n := l.number("w")
	var err error
	if rand.IntN(2) == 0 {
		_, err = fleet.Query(ctx, conn, fmt.Sprintf("INSERT INTO audit.log (actor, action) VALUES ('load', '%s')", n))
	} else {
		_, err = conn.Exec(ctx, "INSERT INTO audit.log (actor, action) VALUES ('load', $1)", n)
	}
	return l.note(l.writes, n, err)
}

func (l *load) read(ctx context.Context, conn *pgx.Conn) error {
	n := l.number("r")
	_, err := fleet.Query(ctx, conn, fmt.Sprintf("SELECT id FROM orders WHERE id = 7 AND status <> '%s'", n))
	return l.note(l.reads, n, err)
}

func (l *load) note(in map[string]bool, n string, err error) error {
	if err == nil {
		l.mu.Lock()
		in[n] = true
		l.mu.Unlock()
	}
	return err
}
