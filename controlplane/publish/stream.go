package publish

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const (
	helloWait = 10 * time.Second // for the first message, and for a version to publish
	aheadWait = 5 * time.Second  // for the replica to have what the node has already
	aheadPoll = 100 * time.Millisecond
	sendWait  = 10 * time.Second // for a node to take one message
	lockGrace = 2 * time.Second  // for a locked node to take the lock and end its sessions
	nextGrace = 2 * time.Second  // for a node to come with its next certificate, and for the replica to hear of it
	auditTime = time.Minute      // between comparisons on a quiet stream

	// maxUnacked bounds what a node was sent and did not confirm. Locks go on up to it;
	// everything else waits for the one update before it, and so merges meanwhile.
	maxUnacked  = 16
	maxCommands = 64
)

// Node is who is on the other side of a stream, as its certificate and its enrolment say.
type Node struct {
	Name   postern.NodeName
	Labels map[string]string
	Region string
	Serial string // of the certificate
}

// A stream is one node's Sync call. Its mutable fields belong to the Hub's mutex.
type stream struct {
	name   postern.NodeName
	serial string // of its certificate
	grpc   nodev1.SyncService_SyncServer
	end    context.CancelCauseFunc
	wake   chan struct{}

	labels  map[string]string
	known   bool // whether its Node object was seen
	scope   scopeKey
	reach   []string
	target  *published      // what the node is to have; nil before its hello
	sent    state           // what it has once it has taken all that was sent
	told    postern.Version // up to where it was told that it has all; it takes nothing older
	unacked []sentUpdate
	audited time.Time // when its content was last compared
	resent  bool      // whether a difference was answered with a snapshot already

	commands []*nodev1.Command
	waiting  map[string]chan<- *nodev1.CommandResult
	pinged   bool
	echo     int64
	locking  *time.Timer
	leaving  *time.Timer // while the certificate is not the one that is known here
	status   status
}

// A sentUpdate is an update that the node has yet to confirm.
type sentUpdate struct {
	version postern.Version
	whole   *published // what the node then holds, where that is a published state
}

// Serve is one node's Sync call, from its hello to its end. The caller has verified
// who the node is. Of two streams of one node the newer stays.
func (h *Hub) Serve(ctx context.Context, n Node, conn nodev1.SyncService_SyncServer) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	s := &stream{
		name: n.Name, serial: n.Serial, grpc: conn, end: end, wake: make(chan struct{}, 1), labels: labelsOf(n.Labels, n.Region),
		waiting: map[string]chan<- *nodev1.CommandResult{}, status: status{region: n.Region},
	}
	parts := run.New(ctx)
	if !h.start(s, parts) {
		return fault.New(codes.Unavailable, "the control plane is not publishing; try another replica")
	}
	<-parts.Context().Done()
	h.leave(s)
	// The two goroutines end when this call has returned and the stream with it; the
	// Hub waits for them.
	err := context.Cause(parts.Context())
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// start runs the goroutines of a stream in the Hub's group, unless it is not running.
func (h *Hub) start(s *stream, parts *run.Group) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams == nil {
		return false
	}
	h.streams.Go("stream", func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() {
			s.end(fault.New(codes.Unavailable, "the control plane is stopping"))
		})()
		parts.Go("receive", func(ctx context.Context) error { return h.receive(ctx, s) })
		parts.Go("send", func(ctx context.Context) error { return h.send(ctx, s) })
		if err := parts.Wait(); err != nil && !errors.Is(err, io.EOF) {
			h.log.Info("stream of a node ended", "node", s.name, "error", err)
		}
		return nil
	})
	return true
}

func (s *stream) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// retarget gives the stream a new state to reach.
func (s *stream) retarget(p *published, now time.Time) {
	if s.status.behind.IsZero() && (s.target == nil || s.target.content != p.content) {
		s.status.behind = now
	}
	s.target = p
	s.nudge()
}

// lockOut ends the stream once the node has had time to take the lock.
func (s *stream) lockOut(reason string) {
	if s.locking == nil {
		s.locking = time.AfterFunc(lockGrace, func() {
			s.end(fault.New(codes.PermissionDenied, "node %q is locked: %s", s.name, reason).WithKind(postern.CodeKilled.String()))
		})
	}
}

// superseded ends the stream unless its certificate is the one that is known by then.
func (h *Hub) superseded(s *stream) {
	if s.leaving != nil {
		return
	}
	s.leaving = time.AfterFunc(nextGrace, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		s.leaving = nil
		if n := h.world.node(s.name); n != nil && n.GetSpec().GetSerial() != s.serial {
			s.end(fault.New(codes.PermissionDenied, "node %q has a newer certificate than this one", s.name).WithKind(fault.KindSuperseded))
		}
	})
}

// receive reads what the node says.
func (h *Hub) receive(ctx context.Context, s *stream) error {
	expired := time.AfterFunc(helloWait, func() {
		s.end(fault.New(codes.DeadlineExceeded, "no hello within %s", helloWait))
	})
	req, err := s.grpc.Recv()
	if !expired.Stop() || err != nil {
		return err
	}
	hello := req.GetHello()
	if hello == nil {
		return fault.New(codes.InvalidArgument, "the first message of a stream must be a hello")
	}
	if err := h.join(ctx, s, hello); err != nil {
		return err
	}
	for {
		req, err := s.grpc.Recv()
		if err != nil {
			return err
		}
		if err := h.heard(s, req); err != nil {
			return err
		}
	}
}

// join makes the stream the one of its node. A node that comes back with content that
// is still known is told the difference, else everything.
func (h *Hub) join(ctx context.Context, s *stream, hello *nodev1.SyncHello) error {
	applied := postern.Version{Epoch: hello.GetApplied().GetEpoch(), Revision: hello.GetApplied().GetRevision()}
	if err := h.catchUp(ctx, applied); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if old := h.nodes[s.name]; old != nil {
		old.end(fault.New(codes.Aborted, "node %q has opened a newer stream", s.name))
		h.drop(old)
	}
	h.rescope(s, map[labelsKey][]string{})
	if h.scopes[s.scope] == nil {
		h.scopes[s.scope] = h.stateOf(s.reach, nil, true)
	}
	if applied.Epoch == h.version.Epoch {
		s.told = applied
		s.sent = h.recall(applied, hello.GetContentHash())
	}
	now := h.now()
	s.status.seen, s.status.version, s.status.release = now, applied, hello.GetRelease()
	s.status.process, s.status.joined = hello.GetProcess(), now
	s.audited = now
	h.nodes[s.name] = s
	delete(h.gone, s.name)
	s.retarget(h.scopes[s.scope], now)
	if reason, ok := h.lockedNodes()[string(s.name)]; ok {
		s.lockOut(reason)
	}
	h.log.Info("node connected", "node", s.name, "applied", applied.String(), "resumed", !s.sent.isZero())
	return nil
}

// catchUp waits until something is published, and the replica has seen what the node
// has applied already: a node never goes back.
func (h *Hub) catchUp(ctx context.Context, applied postern.Version) error {
	ctx, cancel := context.WithTimeoutCause(ctx, helloWait, fault.New(codes.Unavailable, "nothing is published yet; try another replica"))
	defer cancel()
	select {
	case <-h.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel = context.WithTimeoutCause(ctx, aheadWait, fault.New(codes.Unavailable, "this replica is behind the node; try another one. If all are, the store was put back to a backup: stop them, and run postern-control epoch"))
	defer cancel()
	for {
		h.mu.Lock()
		h.pull()
		ok := h.covered.Epoch != applied.Epoch || h.covered.Covers(applied)
		h.nudge()
		h.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-time.After(aheadPoll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leave forgets a stream, and keeps what is known of its node.
func (h *Hub) leave(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(s)
}

func (h *Hub) drop(s *stream) {
	for _, t := range []*time.Timer{s.locking, s.leaving} {
		if t != nil {
			t.Stop()
		}
	}
	for _, result := range s.waiting {
		close(result)
	}
	s.waiting = nil
	if h.nodes[s.name] == s {
		delete(h.nodes, s.name)
		h.gone[s.name] = s.status
	}
}

// heard takes in one message of a node that has joined.
func (h *Hub) heard(s *stream, req *nodev1.SyncRequest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.status.seen = h.now()
	switch m := req.GetKind().(type) {
	case *nodev1.SyncRequest_Ack:
		return h.acked(s, m.Ack)
	case *nodev1.SyncRequest_Ping:
		h.pull()
		h.nudge()
		s.pinged, s.echo = true, m.Ping.GetMonotonicNanos() // a newer ping is answered for an older one too
		s.nudge()
	case *nodev1.SyncRequest_Report:
		s.status.report = m.Report
	case *nodev1.SyncRequest_Result:
		if result, ok := s.waiting[m.Result.GetId()]; ok {
			delete(s.waiting, m.Result.GetId())
			result <- m.Result
		}
	default:
		return fault.New(codes.InvalidArgument, "a message that has no place here: %T", m)
	}
	return nil
}

// acked notes that a node enforces what it was sent, and compares what it holds.
func (h *Hub) acked(s *stream, ack *nodev1.SyncAck) error {
	v := postern.Version{Epoch: ack.GetVersion().GetEpoch(), Revision: ack.GetVersion().GetRevision()}
	if len(s.unacked) == 0 || s.unacked[0].version != v {
		return fault.New(codes.InvalidArgument, "an ack of %s, which was not sent next", v)
	}
	was := s.unacked[0]
	s.unacked = s.unacked[1:]
	s.status.version, s.status.confirmed, s.status.rejections = v, h.now(), ack.GetRejections()
	if was.whole != nil {
		s.audited = h.now()
		h.compare(s, was.whole, ack.GetContentHash())
	}
	if len(s.unacked) == 0 && s.sent.content == s.target.content {
		s.status.behind = time.Time{}
	}
	s.nudge()
	return nil
}

// compare answers a difference with a snapshot, and one that even that leaves with a
// rejection that operators see.
func (h *Hub) compare(s *stream, whole *published, hash []byte) {
	if want := whole.hash(); string(want[:]) == string(hash) {
		s.resent = false
		return
	}
	h.log.Error("node holds something else than was published", "node", s.name, "version", whole.version.String(), "again", s.resent)
	if s.resent {
		s.status.rejections = append(s.status.rejections, &nodev1.Rejection{
			Object: "*", Reason: "what the node holds differs from what was published, even after a snapshot",
		})
		return
	}
	s.resent, s.sent = true, state{}
}

// send writes what is due, the most urgent first, until ctx is done.
func (h *Hub) send(ctx context.Context, s *stream) error {
	audit := time.NewTicker(auditTime)
	defer audit.Stop()
	for {
		m, err := h.next(s)
		switch {
		case err != nil:
			return err
		case m != nil:
			err := s.write(m)
			if err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.wake:
		case <-audit.C:
		}
	}
}

// write sends one message. A node that does not take it in time loses its stream, and
// will be told the difference when it comes back.
func (s *stream) write(m any) error {
	slow := time.AfterFunc(sendWait, func() {
		s.end(fault.New(codes.ResourceExhausted, "the node took no message for %s", sendWait))
	})
	defer slow.Stop()
	return s.grpc.SendMsg(m)
}

// next is the message that is due, or nil.
func (h *Hub) next(s *stream) (any, error) {
	h.mu.Lock()
	if s.target == nil {
		h.mu.Unlock()
		return nil, nil
	}
	if to, whole, ok := h.step(s); ok {
		s.told = h.saying(s, to)
		f := h.frame(s.from(), to, s.told)
		s.sent = to
		s.unacked = append(s.unacked, sentUpdate{s.told, whole})
		h.mu.Unlock()
		return f.encode(s.grpc)
	}
	defer h.mu.Unlock()
	if len(s.commands) > 0 {
		c := s.commands[0]
		s.commands = s.commands[1:]
		return &nodev1.SyncResponse{Kind: &nodev1.SyncResponse_Command{Command: c}}, nil
	}
	if s.pinged && s.sent == s.target.state {
		s.pinged, s.told = false, h.covered
		return h.bookmark(s), nil
	}
	return nil, nil
}

// from is what the node has; after a change of epoch nothing that counts.
func (s *stream) from() state {
	if s.sent.version.Epoch != s.target.version.Epoch {
		return state{}
	}
	return s.sent
}

// step is the next state to take the node to. Locks and ended grants go ahead of
// everything else, and of acks; the rest merges until the node has confirmed.
func (h *Hub) step(s *stream) (to state, whole *published, ok bool) {
	from, target := s.from(), s.target
	quiet := len(s.unacked) == 0
	switch {
	case len(s.unacked) >= maxUnacked:
	case from.isZero():
		return target.state, target, true
	case from.urgent != target.urgent && (from.scoped != target.scoped || from.keys != target.keys):
		return state{from.version, content{target.urgent, from.scoped, from.keys}}, nil, true
	case from.urgent != target.urgent:
		return target.state, target, true
	case !quiet:
	case from != target.state, h.now().Sub(s.audited) >= auditTime:
		s.audited = h.now()
		return target.state, target, true
	}
	return state{}, nil, false
}

// saying is the version that an update says. A state keeps the version of the last change
// that concerns nodes, and bookmarks take a node further than that; it would refuse what
// says less.
func (h *Hub) saying(s *stream, to state) postern.Version {
	need := to.version
	if s.told.Covers(need) {
		need = s.told
	}
	if to.content != s.target.content { // the rest is still to come
		return need
	}
	if !h.said.Covers(need) {
		h.said = h.covered // the newest there is, so that others can be told the same
		h.frames = map[frameKey]*frame{}
	}
	return h.said
}

// bookmark answers the ping: how old what the node now has may be. While a lock cannot be
// read it answers none, for what the node has is not all that holds.
func (h *Hub) bookmark(s *stream) *nodev1.SyncResponse {
	echo := s.echo
	if len(h.world.unread) > 0 && !hole.Is("publish-unread") {
		echo = 0
	}
	return &nodev1.SyncResponse{Kind: &nodev1.SyncResponse_Bookmark{Bookmark: &nodev1.Bookmark{
		EchoMonotonicNanos: echo,
		Version:            &typesv1.Version{Epoch: h.covered.Epoch, Revision: h.covered.Revision},
		ReplicaStaleness:   durationpb.New(max(0, h.now().Sub(h.asOf))),
	}}}
}
