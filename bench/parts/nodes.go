package parts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/posterngate/postern/dataplane/control"
	"github.com/posterngate/postern/dataplane/snapshot"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/secret"
)

// Nodes are nodes without listeners: each enrols, keeps a stream of its own, compiles
// every policy that it is sent, and confirms it.
type Nodes struct {
	Addr   string   // of the control plane
	Tokens []string // join tokens, one a node
	Names  []string
	Dir    string // for their identities
}

// Applied answers to a line with a version, "EPOCH REVISION": when the last node enforced
// it, or a later one.
type Applied struct {
	Last time.Time `json:"last"`
}

// enrolling is how many nodes enrol at a time.
const enrolling = 8

// appliedWait is how long the last node may take.
const appliedWait = 30 * time.Second

// a simulated node.
type simulated struct {
	holder *snapshot.Holder

	mu   sync.Mutex
	seen []moment // in order
}

type moment struct {
	version postern.Version
	at      time.Time
}

func nodes(ctx context.Context, g *run.Group, settings json.RawMessage) (any, func(string) (any, error), error) {
	var s Nodes
	if err := json.Unmarshal(settings, &s); err != nil {
		return nil, nil, err
	}
	all := make([]*simulated, len(s.Names))
	enrol := run.New(ctx)
	turn := make(chan struct{}, enrolling)
	for i, name := range s.Names {
		all[i] = &simulated{holder: snapshot.New()}
		enrol.Go("enrol "+name, func(ctx context.Context) error {
			turn <- struct{}{}
			defer func() { <-turn }()
			id, err := control.Enrol(ctx, control.EnrolConfig{
				Addrs: []string{s.Addr}, JoinToken: secret.FromString(s.Tokens[i]), Name: name, Dir: filepath.Join(s.Dir, name),
			})
			if err != nil {
				return err
			}
			all[i].start(g, s.Addr, id)
			return nil
		})
	}
	if err := enrol.Wait(); err != nil {
		return nil, nil, err
	}
	return struct{}{}, func(line string) (any, error) {
		var v postern.Version
		if _, err := fmt.Sscan(line, &v.Epoch, &v.Revision); err != nil {
			return nil, fmt.Errorf("nodes: %q is no version: %w", line, err)
		}
		ctx, cancel := context.WithTimeout(ctx, appliedWait)
		defer cancel()
		var a Applied
		for _, n := range all {
			at, err := n.applied(ctx, v)
			if err != nil {
				return nil, err
			}
			if at.After(a.Last) {
				a.Last = at
			}
		}
		return a, nil
	}, nil
}

func (n *simulated) start(g *run.Group, addr string, id *control.Identity) {
	client := control.New(control.Config{
		Addrs: []string{addr}, Identity: id, Snapshot: n.holder, Release: "bench", Protocols: []string{"postgres"},
		OnCommand: func(context.Context, *nodev1.Command) *nodev1.CommandResult { return &nodev1.CommandResult{} },
		Report:    func() *nodev1.NodeReport { return &nodev1.NodeReport{} },
	})
	changed, end := n.holder.Subscribe()
	g.Go("node "+string(id.Name()), client.Run)
	g.Go("watch", func(ctx context.Context) error {
		defer end()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
				n.mu.Lock()
				n.seen = append(n.seen, moment{n.holder.Version(), time.Now()})
				n.mu.Unlock()
			}
		}
	})
}

// applied is when the node first enforced v or a later version; older ones are forgotten.
func (n *simulated) applied(ctx context.Context, v postern.Version) (time.Time, error) {
	if err := n.holder.WaitFor(ctx, v); err != nil {
		return time.Time{}, err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		n.mu.Lock()
		for i, m := range n.seen {
			if m.version.Covers(v) {
				n.seen = n.seen[i:]
				n.mu.Unlock()
				return m.at, nil
			}
		}
		n.mu.Unlock()
		select {
		case <-ctx.Done():
			return time.Time{}, errors.New("nodes: a version was enforced and not seen: " + v.Epoch + "/" + strconv.FormatInt(v.Revision, 10))
		case <-tick.C:
		}
	}
}
