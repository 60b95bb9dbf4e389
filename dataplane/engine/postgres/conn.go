package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/wire"
)

// A conn is one session after its greeting: two cores, one for each direction, over
// one state. A core holds mu for the whole of a step and writes after it.
type conn struct {
	e       *Engine
	s       engine.Session
	terms   *engine.Terms
	log     *slog.Logger
	target  net.Conn
	out     clientOut
	pinned  map[string]string // settings that must keep their value
	names   resolution        // what names mean in this session
	slot    *slot             // of the database's catalogue, which was read
	tokens  tokens            // keys of masks
	program string            // as the client calls itself
	login   *login            // what target was when the session got it
	group   *run.Group
	wake    chan struct{} // signals that the queue has moved
	unsent  atomic.Bool   // answers have left the queue and not yet been written

	mu         sync.Mutex // guards what follows
	q          queue
	judgedBy   mark // of the catalogue that all in q have that have one
	statements names[prepared]
	portals    names[portal]
	unnamed    portal   // reused for every Bind without a name
	kept       int      // bytes that names keep, at most
	freed      bool     // some name is free and can be purged
	segment    uint64   // of the next message; a segment ends with Sync or a query
	done       uint64   // the last segment that is over
	defined    uint64   // the segment whose transaction defines something; 0 is none
	open       bool     // the segment has messages and no Sync yet
	pipeline   pipeline // of the segment
	status     byte     // of the transaction: I, T or E
	skip       skip
	exclusive  bool    // nothing may follow until the queue is empty
	poison     bool    // the target must be made to fail before anything else is sent
	wasOver    bool    // a result of this segment was stopped here and not at the target
	copying    bool    // the target reads CopyData
	unread     *unread // a message that is too long is passing by
	cancelling bool
	cancelSent bool                    // at some time
	behind     int                     // bytes of the target that wait for more of their message
	holding    context.CancelCauseFunc // ends a wait for people; nil outside of one
	quotesSeen bool                    // errors and notices of some statement may quote
	changeSeen bool                    // some statement may have changed rows
	lastWords  bool                    // the target has said why it ends
	recheck    bool                    // the catalogue may be out of date
	ashore     bool                    // steps may wait, and are on no event loop
	activity   uint64                  // counts steps, for the idle limit
	interned   map[string]string
	touched    definitions
	cause      error // why the session must end

	// Of the client's pump alone.
	texts     map[string]*statement
	shapes    map[string]*shaped
	shape     []byte // reused
	ready     ready
	args      bound
	argNull   func(int) bool
	argShow   func(int) (string, bool)
	argTypes  []uint32 // of args
	up        wire.Out // to the target
	reply     []byte   // to the client
	stream    int      // what is left of a large CopyData
	streaming bool     // whether that is passed on

	// Of the target's pump alone.
	down    wire.Out              // to the client
	back    []byte                // to the target
	tail    int                   // what is left of a large row
	passing bool                  // whether that is passed on
	more    bool                  // rows are left for the next step
	cols    []engine.ResultColumn // reused
	landed  bool                  // it knows of ashore
}

// ready is what a Park found out for the message that waits.
type ready struct {
	st    *statement
	body  *statement
	no    report // set where its code is
	tries int
	yes   bool // people were asked
}

func newConn(e *Engine, s engine.Session, l *login, client net.Conn) *conn {
	c := &conn{
		e: e, s: s, terms: s.Terms(), log: e.log.With("session", s.ID()),
		target: pump.Wrap(l.conn), out: clientOut{conn: pump.Wrap(client)}, pinned: l.pinned, names: resolution{l.account, l.path}, slot: e.catalogs.slot(catalogKey(s.Terms())), tokens: l.tokens, login: l,
		wake: make(chan struct{}, 1), statements: names[prepared]{}, portals: names[portal]{},
		segment: 1, status: 'I', interned: map[string]string{}, texts: map[string]*statement{}, shapes: map[string]*shaped{},
	}
	c.argNull, c.argShow = c.args.null, c.argText
	if len(c.tokens) == 0 {
		if shapes := e.shelf.take(c.shelfKey()); shapes != nil {
			c.shapes = shapes
		}
	}
	return c
}

// run carries the session until either side ends or it must end, and says why.
func (c *conn) run(ctx context.Context) error {
	if c.e.cfg.Loops != nil { // before anybody else has to do with the sockets
		if err := c.e.cfg.Loops.Board(c.target, c.out.conn); err != nil {
			c.log.Debug("session is not carried by an event loop", "error", err)
		}
	}
	c.group = run.New(ctx)
	defer context.AfterFunc(c.s.Context(), func() { c.stop(context.Cause(c.s.Context())) })()
	defer context.AfterFunc(ctx, func() {
		c.stop(&postern.Refusal{Code: postern.CodeKilled, Reason: "the gateway is shutting down", Hint: "connect again", Cause: context.Cause(ctx)})
	})()
	defer context.AfterFunc(c.group.Context(), func() {
		var p *run.Panic // of one pump, which the other knows nothing of
		if cause := context.Cause(c.group.Context()); errors.As(cause, &p) {
			c.stop(cause)
		}
	})()
	stopTicking := c.tick()
	c.group.Go("target", func(ctx context.Context) error {
		err := pump.Run(ctx, c.target, targetCore{c}, c.target, c.out.conn)
		if err != nil {
			err = lost(err)
		}
		c.stop(err)
		return nil
	})
	c.group.Do("client", func(ctx context.Context) error {
		err := pump.Run(ctx, c.out.conn, clientCore{c}, c.target, c.out.conn)
		var out *pump.OutError
		if errors.As(err, &out) && out.Out == c.target {
			err = lost(err)
		}
		c.stop(err)
		return nil
	})
	err := c.group.Wait()
	stopTicking()
	c.mu.Lock()
	if c.cause != nil {
		err = c.cause
	}
	c.mu.Unlock()
	err = c.close(err)
	c.shelve()
	return err
}

// errLeft is the cause where the client said goodbye.
var errLeft = errors.New("the client has left")

// stop ends both pumps; the first cause stands. A blocked write gets a moment, so that
// the client may still be told why, and no more: the target may read nothing for hours.
func (c *conn) stop(cause error) {
	if cause == nil {
		cause = errLeft
	}
	c.mu.Lock()
	first := c.cause == nil
	if first {
		c.cause = cause
	}
	c.mu.Unlock()
	if !first {
		return
	}
	c.group.Stop()
	_ = c.out.conn.SetWriteDeadline(time.Now().Add(lastWordsTime))
	_ = c.target.SetWriteDeadline(time.Now().Add(lastWordsTime))
	pump.Poke(c.out.conn)
	pump.Poke(c.target)
}

// lastWordsTime is how long a client may take to read why its session ends.
const lastWordsTime = time.Second

// close ends what is under way, at the target too, and tells the client why.
func (c *conn) close(cause error) error {
	c.mu.Lock()
	running, told := c.q.n > 0, c.lastWords
	c.mu.Unlock()
	_ = c.target.SetWriteDeadline(time.Now().Add(lastWordsTime))
	var r *postern.Refusal
	if errors.As(cause, &r) && !told {
		c.out.last(errorOf(r, "FATAL").append(nil, 'E'))
	}
	if running {
		c.quell()
	}
	kept := !running && c.leave(cause)
	if !running && !kept {
		_, _ = c.target.Write(appendEmpty(nil, 'X'))
	}
	if !kept {
		_ = c.target.Close()
	}
	err := c.endFlows(cause)
	if errors.Is(cause, errLeft) || errors.Is(cause, io.EOF) || errors.Is(cause, pump.ErrGone) {
		return err
	}
	return cause
}

// endFlows ends every flow that is still open, so that each execution has an end in
// the record.
func (c *conn) endFlows(cause error) error {
	code := "08006"
	var r *postern.Refusal
	if errors.As(cause, &r) {
		code = sqlstate(r.Code)
	}
	var err error
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.q.n > 0 {
		e := c.q.pop()
		if e.code == "" {
			e.code, e.message = code, "the session ended"
		}
		if ferr := c.finish(e); err == nil {
			err = ferr
		}
	}
	for _, v := range c.portals {
		if v.value != nil {
			if ferr := c.endSuspended(v.value); err == nil {
				err = ferr
			}
		}
	}
	return err
}

// signal wakes a client's pump that waits for the queue to move. The caller holds mu.
func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// ddl marks the catalogue as out of date. The caller holds mu. The session waits until it
// was looked at where something hangs on it, as nothing does after a statement that is not
// understood and yet allowed, as everything is.
func (c *conn) ddl(wait bool) {
	c.recheck = c.recheck || wait
	c.e.catalogs.expire(catalogKey(c.terms))
}

// lost is the refusal where the target's connection has failed.
func lost(err error) error {
	var r *postern.Refusal
	if errors.As(err, &r) || errors.Is(err, context.Canceled) {
		return err
	}
	return &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the connection to the resource was lost", Hint: "connect again", Cause: fmt.Errorf("target: %w", err)}
}

// tick looks after what time decides: the idle limit, a catalogue that may have
// changed, and a close that the pump has not noticed.
func (c *conn) tick() (stop func()) {
	period := sweepPeriod
	idle := c.terms.Idle
	if idle > 0 {
		period = min(period, max(idle/idleParts, 10*time.Millisecond))
	}
	var last uint64
	var quiet time.Duration
	sweep := time.Now()
	var mu sync.Mutex
	var timer *time.Timer
	stopped := false
	mu.Lock()
	timer = time.AfterFunc(period, func() {
		mu.Lock()
		defer mu.Unlock()
		if stopped { // the target may be another session's by now
			return
		}
		c.mu.Lock()
		busy := c.q.n > 0 || c.holding != nil || c.activity != last
		last = c.activity
		now := time.Now()
		swept := now.Sub(sweep) >= sweepPeriod
		if swept {
			sweep, c.recheck = now, true
		}
		c.mu.Unlock()
		if busy {
			quiet = 0
		} else {
			quiet += period
		}
		if idle > 0 && quiet >= idle {
			c.stop(&idleTimeout)
			return
		}
		if swept {
			pump.Poke(c.out.conn)
			pump.Poke(c.target)
		}
		timer.Reset(period)
	})
	mu.Unlock()
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

const (
	// sweepPeriod is how often a silent connection is looked at again.
	sweepPeriod = 30 * time.Second
	// idleParts is into how many parts the idle limit is cut: it holds to within one.
	idleParts = 8
)
