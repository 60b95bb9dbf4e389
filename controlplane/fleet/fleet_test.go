package fleet

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/publish"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/etcd"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/wait"
)

// hub has the streams of one replica: nodes with the sessions that they have. All nodes
// are enrolled.
type hub struct {
	mu    sync.Mutex
	nodes map[postern.NodeName][]string
	joins map[postern.NodeName]time.Time
	told  int           // how often all nodes were told something
	hang  chan struct{} // a node that answers nothing until this is closed; nil where there is none
}

func (h *hub) wasTold() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.told
}

var enrolled = []postern.NodeName{"eu", "us"}

func (h *hub) join(node postern.NodeName, sessions ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nodes[node], h.joins[node] = sessions, time.Now()
}

func (h *hub) leave(node postern.NodeName) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.nodes, node)
}

func (h *hub) Nodes() []*apiv1.NodeStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []*apiv1.NodeStatus
	for _, name := range enrolled {
		n := &apiv1.NodeStatus{Name: string(name)}
		if sessions, ok := h.nodes[name]; ok {
			n.Connected, n.LastSeen, n.Release = true, timestamppb.Now(), "of "+string(name)
			n.Report = &nodev1.NodeReport{Sessions: int64(len(sessions)), Resources: []string{"warehouse"}}
		}
		all = append(all, n)
	}
	return all
}

func (h *hub) Last(node postern.NodeName) (publish.Sighting, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, connected := h.nodes[node]
	joined, ok := h.joins[node]
	return publish.Sighting{Process: "p-" + string(node), Joined: joined, Seen: joined, Connected: connected}, ok
}

func (h *hub) Version() postern.Version   { return postern.Version{} }
func (h *hub) Snapshot() *policy.Snapshot { return nil }

func (h *hub) Command(_ context.Context, node postern.NodeName, cmd *nodev1.Command) (*nodev1.CommandResult, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sessions, ok := h.nodes[node]
	if !ok {
		return nil, fault.New(codes.Unavailable, "node %q is not connected", node)
	}
	if cmd.GetDrain() != nil {
		return &nodev1.CommandResult{Done: true, Explanation: &nodev1.Explanation{Reason: "from " + string(node)}}, nil
	}
	return &nodev1.CommandResult{Done: slices.Contains(sessions, cmd.GetKillSession().GetSession())}, nil
}

func (h *hub) Broadcast(ctx context.Context, cmd *nodev1.Command) (had postern.NodeName, err error) {
	h.mu.Lock()
	h.told++
	hang := h.hang
	h.mu.Unlock()
	for _, name := range enrolled {
		if r, err := h.Command(ctx, name, cmd); err == nil && r.GetDone() {
			had = name
		}
	}
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return had, fault.New(codes.DeadlineExceeded, "a node did not answer in time")
		}
	}
	return had, nil
}

// replicas starts two of them on one etcd.
func replicas(t *testing.T) (fleets [2]*Fleet, hubs [2]*hub, s store.Store) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	opened, err := etcd.Open(t.Context(), etcd.Config{Embedded: &etcd.Embedded{Dir: t.TempDir()}, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	g := run.New(context.Background())
	for i := range fleets {
		hubs[i] = &hub{nodes: map[postern.NodeName][]string{}, joins: map[postern.NodeName]time.Time{}}
		fleets[i] = New(Config{Store: opened, Hub: hubs[i], Logger: log, Now: time.Now})
		g.Go("fleet", fleets[i].Run)
	}
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		_ = opened.Close()
	})
	return fleets, hubs, opened
}

func kill(session string) *nodev1.Command {
	return &nodev1.Command{Kind: &nodev1.Command_KillSession{KillSession: &nodev1.KillSession{Session: session, Reason: "x"}}}
}

var drain = &nodev1.Command{Kind: &nodev1.Command_Drain{Drain: &nodev1.Drain{}}}

// TestWhicheverReplicaIsAsked: each of two replicas has one of two nodes, and both answer
// for both.
func TestWhicheverReplicaIsAsked(t *testing.T) {
	fleets, hubs, s := replicas(t)
	hubs[0].join("eu", "s-eu")
	hubs[1].join("us", "s-us", "s-us-2")
	for i, f := range fleets {
		wait.For(t, "both nodes are known, and the other replica", func() bool {
			nodes := f.Nodes()
			return nodes[0].GetConnected() && nodes[1].GetConnected() && len(f.others()) == 1
		})
		for name, node := range map[string]postern.NodeName{"s-eu": "eu", "s-us": "us", "s-nowhere": ""} {
			if had, err := f.Broadcast(t.Context(), kill(name)); had != node || err != nil {
				t.Errorf("replica %d: %s was ended at %q, %v", i, name, had, err)
			}
		}
		for _, node := range enrolled {
			r, err := f.Command(t.Context(), node, drain)
			if err != nil || r.GetExplanation().GetReason() != "from "+string(node) {
				t.Errorf("replica %d: a command to %s: %v, %v", i, node, r, err)
			}
			if last, ok := f.Last(node); !ok || last.Process != "p-"+string(node) || !last.Connected {
				t.Errorf("replica %d: last of %s is %+v", i, node, last)
			}
			if got := f.Nodes()[slices.Index(enrolled, node)].GetRelease(); got != "of "+string(node) {
				t.Errorf("replica %d: release of %s is %q", i, node, got)
			}
		}
		if node, ok := f.NodeFor("warehouse"); !ok || node != "eu" {
			t.Errorf("replica %d: the node with the fewest sessions is %q", i, node)
		}
		if _, ok := f.NodeFor("elsewhere"); ok {
			t.Errorf("replica %d: a resource that nobody serves has a node", i)
		}
	}
	for _, kind := range []string{kindCommand, kindAnswer} {
		wait.For(t, "nothing of a command stays", func() bool {
			left, _, err := s.List(t.Context(), kind, "", 0)
			return err == nil && len(left) == 0
		})
	}
}

// TestAllNodesAreTold: what a browser's sign-in has opened is at nodes of several replicas.
func TestAllNodesAreTold(t *testing.T) {
	fleets, hubs, _ := replicas(t)
	hubs[0].join("eu", "s")
	hubs[1].join("us", "s")
	wait.For(t, "the other replica is known", func() bool { return len(fleets[0].others()) == 1 })
	if had, err := fleets[0].Broadcast(t.Context(), kill("s")); had != "eu" || err != nil {
		t.Errorf("it was ended at %q, %v", had, err)
	}
	if n := hubs[1].wasTold(); n != 1 {
		t.Errorf("the nodes of the other replica were told %d times", n)
	}
}

// TestANodeThatHangs holds up nobody, wherever it is, and nobody says that it had nothing.
func TestANodeThatHangs(t *testing.T) {
	for at := range 2 {
		fleets, hubs, _ := replicas(t)
		hubs[0].join("eu")
		hubs[1].join("us", "s")
		wait.For(t, "the other replica is known", func() bool { return len(fleets[0].others()) == 1 })
		hubs[at].mu.Lock()
		hubs[at].hang = make(chan struct{})
		hubs[at].mu.Unlock()
		g := run.New(t.Context())
		g.Go("broadcast", func(ctx context.Context) error {
			if had, err := fleets[0].Broadcast(ctx, kill("s")); had != "us" || fault.CodeOf(err) == codes.OK {
				t.Errorf("hanging at %d: it was ended at %q, %v", at, had, err)
			}
			return nil
		})
		wait.For(t, "the node that has it was told", func() bool { return hubs[1].wasTold() == 1 })
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if at == 0 {
			continue
		}
		if had, err := fleets[0].Broadcast(t.Context(), kill("elsewhere")); had != "" || err == nil {
			t.Errorf("nobody has it, said with %q, %v", had, err)
		}
	}
}

// TestANodeThatMoves is known by the replica that it went to, and one that went away is
// said to be away.
func TestANodeThatMoves(t *testing.T) {
	fleets, hubs, _ := replicas(t)
	hubs[0].join("eu", "s")
	wait.For(t, "it is known", func() bool { return fleets[1].Nodes()[0].GetConnected() })
	hubs[1].join("eu", "s")
	hubs[0].leave("eu")
	for _, f := range fleets {
		wait.For(t, "it is known where it is now", func() bool {
			r, err := f.Command(t.Context(), "eu", drain)
			return err == nil && r.GetDone()
		})
	}
	hubs[1].leave("eu")
	for _, f := range fleets {
		wait.For(t, "it is away", func() bool { return !f.Nodes()[0].GetConnected() })
		if _, err := f.Command(t.Context(), "eu", drain); fault.CodeOf(err) != codes.Unavailable {
			t.Errorf("a command to a node that is away: %v", err)
		}
		if last, ok := f.Last("eu"); !ok || last.Connected || last.Seen.IsZero() {
			t.Errorf("last of it is %+v", last)
		}
	}
}

func (h *hub) Await(_ context.Context, v postern.Version) map[postern.NodeName]time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[postern.NodeName]time.Time{}
	for name := range h.nodes {
		out[name] = time.UnixMilli(v.Revision)
	}
	return out
}

// TestReceipt: nodes of every replica confirm, and one that is away has a bound.
func TestReceipt(t *testing.T) {
	fleets, hubs, _ := replicas(t)
	hubs[0].join("eu")
	hubs[1].join("us")
	v := postern.Version{Epoch: "e", Revision: 1234}
	for i, f := range fleets {
		wait.For(t, "the other replica is known", func() bool { return len(f.others()) == 1 })
		r := f.Receipt(t.Context(), v, time.Second)
		if r.GetWorstCaseTime() != nil || len(r.GetNodes()) != 2 {
			t.Fatalf("replica %d: %v", i, r)
		}
		for _, n := range r.GetNodes() {
			if n.GetEnforcedTime().AsTime().UnixMilli() != v.Revision || n.GetWorstCaseTime() != nil {
				t.Errorf("replica %d: %v", i, n)
			}
		}
	}
	hubs[1].leave("us")
	for i, f := range fleets {
		r := f.Receipt(t.Context(), v, time.Second)
		us := r.GetNodes()[1]
		if us.GetEnforcedTime() != nil || !us.GetWorstCaseTime().AsTime().After(r.GetTime().AsTime()) || !r.GetWorstCaseTime().AsTime().Equal(us.GetWorstCaseTime().AsTime()) {
			t.Errorf("replica %d: %v", i, r)
		}
	}
}
