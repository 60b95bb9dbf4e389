package request

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/dataplane/request/h1"
	"github.com/posterngate/postern/pkg/secret"
)

// A Book holds the sessions that requests join: one for each token, task and client
// address, over however many connections. It is safe for concurrent use.
type Book struct {
	// Idle ends a session without requests whose task names no time for that.
	Idle time.Duration
	// Linger is for how long a session outlives its last connection, so that a client that
	// connects for each request has one session and not many.
	Linger time.Duration
	// Loops take connections to resources; nil where none do.
	Loops *pump.Loops

	mu     sync.Mutex
	visits map[[sha256.Size]byte]*Visit
}

// A Visit is one session and the way to its resource.
type Visit struct {
	engine.Session
	// Upstream is the session's own way to the resource; HTTP1 and HTTP2 are for who needs
	// just one version: to upgrade, or where there is no TLS in which one could be agreed.
	Upstream http.RoundTripper
	HTTP1    *h1.Client
	HTTP2    *http.Transport

	book  *Book
	key   [sha256.Size]byte
	ready chan struct{} // closed once the session is there, or err
	err   error

	waits waits

	letting sync.Mutex // guards let
	let     bool       // people have let the session in

	// Guarded by the book.
	conns, requests int
	used            time.Time
	timer           *time.Timer
	gone            bool // no request joins it any more
	closed          bool
}

// join finds the visit of a claim, or opens its session; who comes while it is opening
// waits for it. The visit is held until it is left.
func (b *Book) join(ctx context.Context, d engine.Door, c Claim) (*Visit, error) {
	b.mu.Lock()
	v := b.visits[c.key]
	if v != nil {
		v.requests++
		b.mu.Unlock()
		select {
		case <-v.ready:
		default:
			pump.Off(ctx)
		}
		select {
		case <-v.ready:
			if v.err != nil {
				b.leave(v)
				return nil, v.err
			}
			return v, nil
		case <-ctx.Done():
			b.leave(v)
			return nil, context.Cause(ctx)
		}
	}
	v = &Visit{book: b, key: c.key, ready: make(chan struct{}), requests: 1}
	if b.visits == nil {
		b.visits = map[[sha256.Size]byte]*Visit{}
	}
	b.visits[c.key] = v
	b.mu.Unlock()

	pump.Off(ctx)
	// Others may wait for it, so that it does not end with the request that came first.
	c.Token = secret.FromString(c.token)
	s, err := d.Open(context.WithoutCancel(ctx), c.Claim)
	c.Token.Wipe()
	if err != nil {
		b.mu.Lock()
		v.err = err
		b.forget(v)
		b.mu.Unlock()
		close(v.ready)
		b.leave(v)
		return nil, err
	}
	b.mu.Lock()
	v.Session = s
	v.connect()
	b.mu.Unlock()
	close(v.ready)
	context.AfterFunc(s.Context(), func() { b.end(v) })
	return v, nil
}

// hold keeps a visit for something beside a request of now.
func (b *Book) hold(v *Visit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v.requests++
}

// leave ends a request's hold.
func (b *Book) leave(v *Visit) {
	b.mu.Lock()
	v.requests--
	v.used = time.Now()
	b.settle(v)
}

// attach counts a connection that the visit's requests come by; detach ends that.
func (b *Book) attach(v *Visit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v.conns++
}

func (b *Book) detach(v *Visit) {
	b.mu.Lock()
	v.conns--
	v.used = time.Now()
	b.settle(v)
}

// end takes no more requests into a visit whose session must end.
func (b *Book) end(v *Visit) {
	b.mu.Lock()
	b.forget(v)
	b.settle(v)
}

// left reports whether no request joins a visit any more.
func (b *Book) left(v *Visit) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return v.gone
}

func (b *Book) forget(v *Visit) {
	v.gone = true
	if b.visits[v.key] == v {
		delete(b.visits, v.key)
	}
}

// settle closes a visit that nobody needs, or looks again later. It is called with the
// book locked, and unlocks it.
func (b *Book) settle(v *Visit) {
	if v.closed || v.requests > 0 || v.Session == nil {
		b.mu.Unlock()
		return
	}
	left := b.rest(v) - time.Since(v.used)
	if v.gone || left <= 0 {
		b.forget(v)
		v.closed = true
		if v.timer != nil {
			v.timer.Stop()
		}
		b.mu.Unlock()
		v.Close(nil)
		v.waits.stop()
		v.HTTP1.CloseIdleConnections()
		v.HTTP2.CloseIdleConnections()
		return
	}
	if v.timer == nil {
		v.timer = time.AfterFunc(left, func() {
			b.mu.Lock()
			b.settle(v)
		})
	} else {
		v.timer.Reset(left)
	}
	b.mu.Unlock()
}

// rest is for how long a visit without requests goes on.
func (b *Book) rest(v *Visit) time.Duration {
	idle := v.Terms().Idle
	if idle == 0 {
		idle = b.Idle
	}
	if v.conns == 0 {
		return min(idle, b.Linger)
	}
	return idle
}

// LetIn waits for people to let the session in. All requests wait for one answer.
func (v *Visit) LetIn(ctx context.Context) error {
	w, ok := v.Session.(engine.Waiter)
	if !ok {
		return errors.New("request: a session that nobody can be let into")
	}
	v.letting.Lock()
	defer v.letting.Unlock()
	if v.let {
		return nil
	}
	err := w.AwaitSession(ctx, func(string) {})
	v.let = err == nil
	return err
}
