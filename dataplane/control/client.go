// Package control is a node's side of the control plane: it enrols, keeps the policy
// current and knows how old it may be, and carries what sessions ask: grants, holds,
// credentials, records. A Client keeps one Sync stream up, to whichever replica
// answers, and sends every call to that replica.
//
// What the policy means is pkg/policy's, which policy is current snapshot's, and what
// follows from its age the session keeper's.
package control

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/posterngate/postern/dataplane/snapshot"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/run"
)

// Config is what a Client needs; all is required but ServerName, Endpoints, Release,
// Protocols, DialOptions and Logger.
type Config struct {
	Addrs      []string // of the control plane, host:port; the first that answers is used
	ServerName string   // in its certificate; empty for the host of the address
	Identity   *Identity
	Process    string // names this process of the node; new at each start
	Snapshot   *snapshot.Holder
	// OnCommand does what the control plane asks for now. It is called concurrently and
	// must heed ctx. The id of the result is set by the Client.
	OnCommand func(ctx context.Context, cmd *nodev1.Command) *nodev1.CommandResult
	// Report says what runs on the node; it is asked every second.
	Report    func() *nodev1.NodeReport
	Endpoints map[string]string // public address by protocol
	Release   string
	Protocols []string
	// DialOptions are further ones, such as a stats handler for traces.
	DialOptions []grpc.DialOption
	Logger      *slog.Logger
}

// A Client is a node's connection to the control plane. It is safe for concurrent use.
// Its calls work while Run runs; errors for the person who asked are *postern.Refusal.
type Client struct {
	cfg     Config
	log     *slog.Logger
	clock   *clock
	rotated chan struct{} // the identity has changed, or should
	renewal chan struct{} // the CAs have changed
	now     func() time.Time

	// recordingKey and rawKey are what the control plane said last with a grant.
	recordingKey, rawKey atomic.Pointer[[]byte]
	answers              answers

	mu      sync.Mutex
	up      *link         // where calls go; nil while no Sync stream is up
	changed chan struct{} // closed and replaced when up changes
}

// New makes a Client that does nothing before Run.
func New(cfg Config) *Client {
	c := &Client{cfg: cfg, log: cfg.Logger, clock: newClock(suspended), rotated: make(chan struct{}, 1), renewal: make(chan struct{}, 1), now: time.Now, changed: make(chan struct{})}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Run keeps the node connected, its policy current and its certificates fresh, until
// ctx is done.
func (c *Client) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("follow the control plane", func(ctx context.Context) error { return c.follow(ctx, g) })
	g.Go("rotate the identity", c.rotate)
	return g.Wait()
}

// Staleness is how old the node's policy may be, and never less than it is. It is the
// longest duration before the first answer, and when the control plane has said that
// this node may not serve.
func (c *Client) Staleness() time.Duration { return c.clock.staleness() }

// Connected reports whether a replica of the control plane answers.
func (c *Client) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up != nil
}
