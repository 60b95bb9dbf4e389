package nodeapi

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const (
	maxInFlight   = 32 // chunks of one stream that were read and not answered
	maxPerSession = 8  // of one session
	maxParallel   = 8  // sessions at work at once
	ingestWait    = 30 * time.Second
	// failWait is how long the other sessions of a stream go on when one has failed.
	failWait = 5 * time.Second
)

type recordService struct {
	nodev1.UnimplementedRecordServiceServer
	*Server
}

type shipStream = grpc.BidiStreamingServer[nodev1.ShipRequest, nodev1.ShipResponse]

// Ship takes in the chunks of one node. The chunks of a session are stored in order,
// those of different sessions beside each other. A session whose chunk could not be
// stored is left alone for the rest of the stream, which ends soon after, so that the
// node sends again; the others are stored meanwhile.
func (s recordService) Ship(conn shipStream) error {
	reqs, broken := make(chan *nodev1.ShipRequest), make(chan error, 1)
	g := run.New(conn.Context())
	defer func() { g.Stop(); _ = g.Wait() }()
	ctx := g.Context()
	reading := s.read(func() {
		for {
			req, err := conn.Recv()
			if err != nil {
				broken <- err
				return
			}
			select {
			case reqs <- req:
			case <-ctx.Done():
				return
			}
		}
	})
	if !reading {
		return fault.New(codes.Unavailable, "the control plane is stopping")
	}
	sh := &shipment{conn: conn, node: callerOf(ctx).name, records: s.Records, group: g, sessions: map[string]*lane{}, done: make(chan ingested, maxInFlight)}
	return sh.run(reqs, broken)
}

// A shipment is one Ship call; it belongs to the goroutine of run.
type shipment struct {
	conn     shipStream
	node     postern.NodeName
	records  Records
	group    *run.Group
	sessions map[string]*lane
	ready    []string            // sessions with work that is not begun
	held     *nodev1.ShipRequest // read, and its session is full
	inFlight int
	running  int
	done     chan ingested
	failed   error
}

// A lane is what is to be stored of one session, in order.
type lane struct {
	queue  []*nodev1.ShipRequest // the first is being stored where busy
	busy   bool
	failed bool
}

type ingested struct {
	session string
	resp    *nodev1.ShipResponse
	err     error
}

func (s *shipment) run(reqs <-chan *nodev1.ShipRequest, broken <-chan error) error {
	var failing <-chan time.Time
	for {
		in := reqs
		if s.held != nil || s.inFlight >= maxInFlight {
			in = nil
		}
		select {
		case req := <-in:
			s.take(req)
		case r := <-s.done:
			if err := s.finish(r); err != nil {
				return err
			}
			if s.failed != nil && failing == nil {
				failing = time.After(failWait)
			}
		case err := <-broken:
			if !errors.Is(err, io.EOF) {
				return err
			}
			broken, reqs = nil, nil // no more comes; what was read is answered
		case <-failing:
			return s.failed
		}
		s.begin()
		if broken == nil && s.inFlight == 0 && s.held == nil {
			return s.failed
		}
	}
}

// take queues a chunk, or holds it until its session has room.
func (s *shipment) take(req *nodev1.ShipRequest) {
	l := s.sessions[req.GetSession()]
	if l == nil {
		l = &lane{}
		s.sessions[req.GetSession()] = l
	}
	switch {
	case l.failed:
		return
	case len(l.queue) >= maxPerSession:
		s.held = req
		return
	}
	l.queue = append(l.queue, req)
	s.inFlight++
	if !l.busy && len(l.queue) == 1 {
		s.ready = append(s.ready, req.GetSession())
	}
}

// begin starts as much as may run at once.
func (s *shipment) begin() {
	for s.running < maxParallel && len(s.ready) > 0 {
		l := s.sessions[s.ready[0]]
		s.ready = s.ready[1:]
		l.busy = true
		s.running++
		req := l.queue[0]
		s.group.Go("ingest", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, ingestWait)
			defer cancel()
			r := ingested{session: req.GetSession(), err: fault.New(codes.Internal, "internal error")} // where Ingest panics
			defer func() { s.done <- r }()
			r.resp, r.err = s.records.Ingest(ctx, s.node, req)
			return nil
		})
	}
}

// finish answers for one chunk and queues the next of its session.
func (s *shipment) finish(r ingested) error {
	s.running--
	l := s.sessions[r.session]
	l.busy = false
	if r.err != nil {
		s.inFlight -= len(l.queue)
		l.queue, l.failed = nil, true
		s.failed = r.err
	} else {
		s.inFlight--
		l.queue = l.queue[1:]
		if err := s.conn.Send(r.resp); err != nil {
			return err
		}
		switch {
		case len(l.queue) > 0:
			s.ready = append(s.ready, r.session)
		default:
			delete(s.sessions, r.session)
		}
	}
	if s.held != nil && s.held.GetSession() == r.session {
		req := s.held
		s.held = nil
		s.take(req)
	}
	return nil
}
