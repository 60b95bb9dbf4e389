// Package budget holds both planes together to the promise of limits that are counted
// per grant: never more than the limit in all, and never stuck below it.
package budget

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	control "github.com/posterngate/postern/controlplane/budget"
	"github.com/posterngate/postern/controlplane/store/storetest"
	data "github.com/posterngate/postern/dataplane/budget"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/test/wait"
)

const world = `
kind: Resource
metadata: {name: warehouse}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: warehouse}, credential: {sealed: warehouse}, catalog: {sealed: warehouse}}
---
kind: Task
metadata: {name: report}
spec:
  purpose: a test
  duration: 1h
  resources: {names: [warehouse]}
  permit: [{table: sales.regions, verbs: [select], columns: [code]}]
  limits: {rows: 9000, statements: 4000, sessions: 5, per: grant}
`

const (
	rows       = 9000
	statements = 4000
	sessions   = 5
)

// house is a control plane of two replicas on one store, and nodes that come and go.
type house struct {
	t        *testing.T
	terms    policy.Terms
	grant    *postern.Grant
	replicas [2]*control.Service

	mu    sync.Mutex
	nodes map[postern.NodeName]*node
	wild  bool // whether calls are lost and come twice
	late  []func()

	rows, statements atomic.Int64 // used in all
}

type node struct {
	h       *house
	name    postern.NodeName
	process string
	joined  time.Time
	book    *data.Book
	stop    context.CancelFunc
	done    chan struct{}
	dead    atomic.Bool
	live    atomic.Int64 // sessions
}

func newHouse(t *testing.T) *house {
	snapshot := policytest.Compile(t, world)
	end := time.Now().Add(time.Hour)
	h := &house{t: t, nodes: map[postern.NodeName]*node{}, grant: &postern.Grant{ID: "g", Task: "report", End: end}}
	h.terms, _ = snapshot.Terms("report")
	mem := storetest.NewMemory()
	for i := range h.replicas {
		h.replicas[i] = control.New(control.Config{
			Store: mem, Snapshot: func() *policy.Snapshot { return snapshot }, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
			Grant: func(context.Context, postern.GrantID) (*typesv1.Grant, error) {
				return &typesv1.Grant{Id: "g", Task: "report", State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(end)}, nil
			},
			Last: func(name postern.NodeName) (string, time.Time, time.Time) {
				h.mu.Lock()
				defer h.mu.Unlock()
				n := h.nodes[name]
				return n.process, n.joined, time.Now()
			},
			Recall: func(name postern.NodeName, id postern.GrantID) {
				h.mu.Lock()
				n := h.nodes[name]
				h.mu.Unlock()
				go n.book.Return(context.Background(), id)
			},
		})
	}
	return h
}

func (h *house) start(name postern.NodeName, process string) *node {
	n := &node{h: h, name: name, process: process, joined: time.Now(), done: make(chan struct{})}
	n.book = data.NewBook(data.Config{Process: process, Control: n, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	h.mu.Lock()
	h.nodes[name] = n
	h.mu.Unlock()
	go func() { _ = n.book.Run(ctx); close(n.done) }()
	return n
}

// kill ends a process without a word.
func (h *house) kill(n *node) {
	n.dead.Store(true)
	n.stop()
	<-n.done
}

// live are the sessions of all processes that live.
func (h *house) live() (sum int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.nodes {
		if !n.dead.Load() {
			sum += n.live.Load()
		}
	}
	return sum
}

var errLost = errors.New("lost on the way")

// DrawBudget is the wire: what is asked may be lost, or its answer; it may come twice,
// and late.
func (n *node) DrawBudget(ctx context.Context, req *nodev1.DrawBudgetRequest) (*nodev1.DrawBudgetResponse, error) {
	if n.dead.Load() {
		return nil, errLost
	}
	n.h.mu.Lock()
	wild := n.h.wild
	n.h.mu.Unlock()
	call := func() (*nodev1.DrawBudgetResponse, error) { return n.h.replicas[rand.N(2)].Draw(ctx, n.name, req) }
	if !wild {
		return call()
	}
	switch rand.N(8) {
	case 0:
		return nil, errLost
	case 1:
		_, _ = call()
		return nil, errLost
	case 2:
		_, _ = call()
	case 3:
		n.h.mu.Lock()
		n.h.late = append(n.h.late, func() { _, _ = n.h.replicas[0].Draw(context.Background(), n.name, req) })
		n.h.mu.Unlock()
		return nil, errLost
	}
	return call()
}

// work is what a session does: a statement, which returns some rows.
func (n *node) work(b *data.Budget) (ok bool, why error) {
	if b.Statements.Take(statements, 1) == 0 {
		if ok, why := b.More(&b.Statements.Meter, statements, 1); !ok {
			return false, why
		}
		return true, nil
	}
	n.h.statements.Add(1)
	want := int64(1 + rand.N(5))
	got := b.Rows.Take(rows, want)
	if got < want {
		if ok, why := b.More(&b.Rows, rows, want-got); !ok {
			b.Rows.Give(got)
			return false, why
		}
		got += b.Rows.Take(rows, want-got)
	}
	used := rand.N(got + 1)
	if n.dead.Load() {
		return false, errLost // whatever it passes on now reaches nobody
	}
	n.h.rows.Add(used)
	b.Rows.Use(used)
	b.Rows.Give(got - used)
	return true, nil
}

func TestNeverMoreAndNeverStuck(t *testing.T) {
	for round := range 5 {
		h := newHouse(t)
		h.wild = true
		names := []postern.NodeName{"a", "b", "c"}
		for _, name := range names {
			h.start(name, string(name)+"0")
		}
		deadline := time.Now().Add(600 * time.Millisecond)
		var people sync.WaitGroup
		for range 8 {
			people.Go(func() {
				for time.Now().Before(deadline) {
					h.mu.Lock()
					n := h.nodes[names[rand.N(len(names))]]
					h.mu.Unlock()
					b, leave, err := n.book.Open(context.Background(), h.grant, h.terms)
					if err != nil {
						continue
					}
					n.live.Add(1)
					if got := h.live(); got > sessions {
						t.Errorf("%d sessions at once", got)
					}
					for range rand.N(40) {
						if n.dead.Load() {
							break
						}
						_, _ = n.work(b)
						<-time.After(time.Duration(rand.N(200)) * time.Microsecond)
					}
					n.live.Add(-1)
					leave()
				}
			})
		}
		killed := 0
		for time.Now().Before(deadline) {
			name := names[rand.N(len(names))]
			h.mu.Lock()
			n := h.nodes[name]
			late := h.late
			h.late = nil
			h.mu.Unlock()
			for _, again := range late {
				again()
			}
			if killed < 3 && rand.N(4) == 0 {
				killed++
				h.kill(n)
				h.start(name, n.process+"'")
			}
			<-time.After(50 * time.Millisecond)
		}
		people.Wait()
		if got := h.rows.Load(); got > rows {
			t.Errorf("round %d: %d rows were used, of %d", round, got, rows)
		}
		if got := h.statements.Load(); got > statements {
			t.Errorf("round %d: %d statements were used, of %d", round, got, statements)
		}
		// The wire is well now: one node after the other takes what is left.
		h.mu.Lock()
		h.wild = false
		h.mu.Unlock()
		h.drain(names)
		// A killed process takes a slice with it at most, and one that statements under
		// way had set aside.
		if got, least := h.statements.Load(), int64(statements-killed*2*(statements/16+1)); got > statements || got < least {
			t.Errorf("round %d: %d statements in all after %d kills, want %d to %d", round, got, killed, least, statements)
		}
		for _, name := range names {
			h.kill(h.nodes[name])
		}
	}
}

// drain lets every node use statements until there are none.
func (h *house) drain(names []postern.NodeName) {
	var all sync.WaitGroup
	for _, name := range names {
		n := h.nodes[name]
		all.Go(func() {
			var b *data.Budget
			var leave func()
			for deadline := time.Now().Add(wait.Patience); b == nil; {
				var err error
				if b, leave, err = n.book.Open(context.Background(), h.grant, h.terms); err != nil {
					if time.Now().After(deadline) {
						h.t.Errorf("node %s opens no session: %v", n.name, err)
						return
					}
					<-time.After(10 * time.Millisecond)
				}
			}
			defer leave()
			for {
				if b.Statements.Take(statements, 1) == 1 {
					h.statements.Add(1)
					continue
				}
				if ok, why := b.More(&b.Statements.Meter, statements, 1); !ok {
					if why != nil {
						h.t.Errorf("node %s is stuck: %v", n.name, why)
					}
					return
				}
			}
		})
	}
	all.Wait()
}
