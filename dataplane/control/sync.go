package control

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const (
	minBackoff  = 200 * time.Millisecond
	maxBackoff  = 5 * time.Second // well within what a node may go on alone
	pingPeriod  = time.Second
	reportEvery = 10 * time.Second // where nothing has changed
	silenceWait = 20 * time.Second // without any answer the replica is given up
	commandWait = 30 * time.Second
	maxCommands = 64 // at once
	outgoing    = 64 // messages that wait to be sent
)

var (
	errResync  = errors.New("an update did not follow what is applied; asking for everything")
	errSilence = errors.New("the control plane did not answer in time")
	errRotated = errors.New("the certificate was renewed")
)

// follow keeps a Sync stream up.
func (c *Client) follow(ctx context.Context, g *run.Group) error {
	addr, failures, cold := 0, 0, false
	for ctx.Err() == nil {
		before := c.cfg.Identity.serial()
		up, err := c.sync(ctx, g, c.cfg.Addrs[addr%len(c.cfg.Addrs)], cold)
		if ctx.Err() != nil {
			return nil
		}
		if up {
			failures = 0
		}
		cold = errors.Is(err, errResync)
		switch code := fault.CodeOf(err); {
		case errors.Is(err, errRotated), fault.Is(err, fault.KindSuperseded) && before != c.cfg.Identity.serial():
			continue // at once, with the new certificate
		case fault.Is(err, fault.KindSuperseded) && c.renew(ctx) == nil:
			continue // the answer to the last renewal was lost
		case code == codes.PermissionDenied, code == codes.Unauthenticated:
			c.clock.deny()
			c.log.Error("the control plane refuses this node", "addr", c.cfg.Addrs[addr%len(c.cfg.Addrs)], "error", err)
		default:
			c.log.Warn("stream to the control plane ended", "addr", c.cfg.Addrs[addr%len(c.cfg.Addrs)], "error", err)
		}
		if !up {
			addr++
		}
		if wait := jitter(failures); !run.Pause(ctx, wait) {
			return nil
		}
		failures++
	}
	return nil
}

// jitter is a random wait up to a bound that doubles with every failure, so that nodes
// that lost one replica together do not come back together.
func jitter(failures int) time.Duration {
	bound := maxBackoff
	if failures < 8 {
		bound = min(maxBackoff, minBackoff<<failures)
	}
	return rand.N(bound)
}

// sync runs one Sync stream to its end, and reports whether it was ever up.
func (c *Client) sync(ctx context.Context, links *run.Group, addr string, cold bool) (up bool, err error) {
	select {
	case <-c.rotated: // the new connection has the newest certificate
	default:
	}
	l, err := c.dial(addr)
	if err != nil {
		return false, err
	}
	defer c.retire(links, l)
	g := run.New(ctx)
	s := &syncing{Client: c, link: l, out: make(chan *nodev1.SyncRequest, outgoing), heard: make(chan struct{}, 1), commands: make(chan struct{}, maxCommands)}
	if s.conn, err = nodev1.NewSyncServiceClient(l.main).Sync(g.Context()); err != nil {
		g.Stop()
		return false, errors.Join(err, g.Wait())
	}
	s.out <- s.hello(cold)
	g.Go("send", s.send)
	g.Go("receive", func(ctx context.Context) error { return s.receive(ctx, g) })
	g.Go("watch", s.watch)
	err = g.Wait()
	return s.up, err
}

// syncing is one Sync stream.
type syncing struct {
	*Client
	link     *link
	conn     nodev1.SyncService_SyncClient
	out      chan *nodev1.SyncRequest
	heard    chan struct{} // signals a message
	commands chan struct{} // holds one for every command at work
	up       bool          // of receive's goroutine, until the group has ended
}

// hello says what the node has; a cold one asks for everything, by keeping the hash back.
func (s *syncing) hello(cold bool) *nodev1.SyncRequest {
	h := &nodev1.SyncHello{Release: s.cfg.Release, Protocols: s.cfg.Protocols, Process: s.cfg.Process}
	if v := s.cfg.Snapshot.Version(); !v.IsZero() {
		// Whatever is sent must not be older than this, a snapshot neither.
		h.Applied = &typesv1.Version{Epoch: v.Epoch, Revision: v.Revision}
		if !cold {
			h.ContentHash = s.cfg.Snapshot.Hash()
		}
	}
	return &nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Hello{Hello: h}}
}

// send is the one writer of the stream.
func (s *syncing) send(ctx context.Context) error {
	tick := time.NewTicker(pingPeriod)
	defer tick.Stop()
	var reported *nodev1.NodeReport
	var reportedAt time.Time
	tell := func(report *nodev1.NodeReport) error {
		reported, reportedAt = proto.CloneOf(report), time.Now()
		return s.conn.Send(&nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Report{Report: report}})
	}
	said := false // the hello
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-s.out:
			// Who hears that a policy is enforced may be led here by what it has made reachable.
			if m.GetAck() != nil {
				if report := s.cfg.Report(); !slices.Equal(report.GetResources(), reported.GetResources()) && tell(report) != nil {
					return nil
				}
			}
			if s.conn.Send(m) != nil {
				return nil // receive has the reason
			}
			if said {
				continue
			}
			said = true
		case <-tick.C:
		}
		if !said {
			continue
		}
		ping := &nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Ping{Ping: &nodev1.SyncPing{MonotonicNanos: s.clock.ping()}}}
		if s.conn.Send(ping) != nil {
			return nil
		}
		report := s.cfg.Report()
		if proto.Equal(report, reported) && time.Since(reportedAt) < reportEvery {
			continue
		}
		if tell(report) != nil {
			return nil
		}
	}
}

// watch ends a stream that has fallen silent, or whose certificate has been replaced.
func (s *syncing) watch(ctx context.Context) error {
	silence := time.NewTimer(silenceWait)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.heard:
			silence.Reset(silenceWait)
		case <-silence.C:
			return errSilence
		case <-s.rotated:
			return errRotated
		}
	}
}

func (s *syncing) receive(ctx context.Context, g *run.Group) error {
	for {
		m, err := s.conn.Recv()
		if err != nil {
			return err
		}
		select {
		case s.heard <- struct{}{}:
		default:
		}
		switch m := m.GetKind().(type) {
		case *nodev1.SyncResponse_Update:
			err = s.apply(ctx, m.Update)
		case *nodev1.SyncResponse_Bookmark:
			s.clock.echoed(m.Bookmark.GetEchoMonotonicNanos(), m.Bookmark.GetReplicaStaleness().AsDuration())
			s.cfg.Snapshot.Advance(version(m.Bookmark.GetVersion()))
		case *nodev1.SyncResponse_Command:
			err = s.command(ctx, g, m.Command)
		}
		if err != nil {
			return err
		}
	}
}

// apply makes an update the policy and says so.
func (s *syncing) apply(ctx context.Context, u *nodev1.Update) error {
	before := s.cfg.Snapshot.Version()
	ack := s.cfg.Snapshot.Apply(u)
	if ack == nil {
		return errResync // nothing was applied, and what is enforced is as old as it was
	}
	if v := version(u.GetVersion()); v.Epoch != before.Epoch {
		s.clock.forget()
	}
	if s.cfg.Identity.outdated(u) {
		select {
		case s.renewal <- struct{}{}:
		default:
		}
	}
	for _, r := range ack.GetRejections() {
		s.log.Warn("object does not compile here, whatever needs it is denied", "object", r.GetObject(), "reason", r.GetReason())
	}
	if !s.up {
		s.up = true
		s.raise(s.link)
		s.log.Info("connected to the control plane", "addr", s.link.addr, "version", version(u.GetVersion()).String(), "snapshot", u.GetSnapshot())
	}
	return s.put(ctx, &nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Ack{Ack: ack}})
}

func (s *syncing) put(ctx context.Context, m *nodev1.SyncRequest) error {
	select {
	case s.out <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// command does what is asked, beside the stream.
func (s *syncing) command(ctx context.Context, g *run.Group, cmd *nodev1.Command) error {
	select {
	case s.commands <- struct{}{}:
	default:
		return s.put(ctx, result(cmd, &nodev1.CommandResult{Error: "the node is busy with other commands"}))
	}
	g.Go("command", func(ctx context.Context) error {
		defer func() { <-s.commands }()
		return s.put(ctx, result(cmd, s.obey(ctx, cmd)))
	})
	return nil
}

func (s *syncing) obey(ctx context.Context, cmd *nodev1.Command) (r *nodev1.CommandResult) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("panic in a command", "command", fmt.Sprintf("%T", cmd.GetKind()), "panic", v, "stack", string(debug.Stack()))
			r = &nodev1.CommandResult{Error: "internal error"}
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	return s.cfg.OnCommand(ctx, cmd)
}

func result(cmd *nodev1.Command, r *nodev1.CommandResult) *nodev1.SyncRequest {
	if r == nil {
		r = &nodev1.CommandResult{}
	}
	r.Id = cmd.GetId()
	return &nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Result{Result: r}}
}

func version(v *typesv1.Version) postern.Version {
	return postern.Version{Epoch: v.GetEpoch(), Revision: v.GetRevision()}
}
