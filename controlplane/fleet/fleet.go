// Package fleet is the nodes of all replicas as one. Each replica writes to the store
// what it hears of the nodes whose streams it has, and passes on the commands that other
// replicas have for them. So it does not matter which replica is asked. It decides
// nothing: who may command a node is for those who call it.
package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/posterngate/postern/controlplane/publish"
	"github.com/posterngate/postern/controlplane/store"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// Kinds in the store.
const (
	kindPresence = "presence" // by node: what its replica hears of it
	kindReplica  = "replica"  // by id of the replica: that it lives
	kindCommand  = "command"  // by id: for the nodes of other replicas
	kindAnswer   = "answer"   // by command and replica
)

const (
	// period is how often a replica writes what it hears of a node, at least: by as much
	// a node may have been heard of later than the store says.
	period = 4 * time.Second
	// look is how often a replica looks for changes to write at once.
	look = 500 * time.Millisecond
	// silent is after how long without a word a replica, or a node that is said to be
	// connected, is taken to be gone.
	silent = 3 * period
	// garbage is how old a command is that nobody waits for.
	garbage = time.Minute
	// relayWait bounds the wait for other replicas, and nodeWait that for nodes meanwhile: what
	// a replica has heard of the others by then still reaches who asked.
	relayWait = 5 * time.Second
	nodeWait  = relayWait - time.Second
)

// Hub has the streams of this replica; *publish.Hub is one.
type Hub interface {
	Nodes() []*apiv1.NodeStatus
	Last(node postern.NodeName) (publish.Sighting, bool)
	Version() postern.Version
	Snapshot() *policy.Snapshot
	Command(ctx context.Context, node postern.NodeName, cmd *nodev1.Command) (*nodev1.CommandResult, error)
	Broadcast(ctx context.Context, cmd *nodev1.Command) (postern.NodeName, error)
	Await(ctx context.Context, v postern.Version) map[postern.NodeName]time.Time
}

// Config is what a Fleet works with; all is required.
type Config struct {
	Store  store.Store
	Hub    Hub
	Logger *slog.Logger
	Now    func() time.Time
}

// A Fleet reaches every node. It is safe for concurrent use. What it knows of others
// comes while Run runs.
type Fleet struct {
	cfg   Config
	id    string // of this replica
	cache *store.Cache

	mu      sync.Mutex
	waiting map[string]chan answer       // by command
	written map[postern.NodeName]written // by this replica
	calls   *run.Group                   // while Run runs
}

// New makes a Fleet of one replica.
func New(cfg Config) *Fleet {
	return &Fleet{
		cfg: cfg, id: rand.Text(), cache: store.NewCache(cfg.Store, cfg.Logger, kindPresence, kindReplica).WithoutStaleness(),
		waiting: map[string]chan answer{}, written: map[postern.NodeName]written{},
	}
}

// Version is the newest version that this replica publishes.
func (f *Fleet) Version() postern.Version { return f.cfg.Hub.Version() }

// Snapshot is the policy that it was compiled from.
func (f *Fleet) Snapshot() *policy.Snapshot { return f.cfg.Hub.Snapshot() }

// Run writes what this replica hears, reads what others do, and passes commands on,
// until ctx is done.
func (f *Fleet) Run(ctx context.Context) error {
	calls := run.New(ctx)
	f.mu.Lock()
	f.calls = calls
	f.mu.Unlock()
	err := run.All(ctx,
		run.Part{Name: "follow the fleet", Run: f.cache.Run},
		run.Part{Name: "tell of nodes", Run: f.tell},
		run.Part{Name: "pass commands on", Run: f.relay},
	)
	f.mu.Lock()
	f.calls = nil
	f.mu.Unlock()
	calls.Stop()
	return errors.Join(err, calls.Wait())
}
