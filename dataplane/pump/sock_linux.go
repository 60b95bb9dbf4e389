package pump

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/posterngate/postern/pkg/wire"
)

// A sock is a socket that a loop has taken. Beside the loop's turns it reads and writes
// like any other connection: with waiting and deadlines.
type sock struct {
	l    *loop
	fd   int
	slot int32        // in the loop
	turn int32        // tells it from others that had the slot
	soft atomic.Int32 // how many turns are under way whose writes must not wait
	// stalled says that a write left something in out.
	stalled atomic.Bool
	drained bool // the last readNow left nothing

	mu       sync.Mutex
	moved    sync.Cond // something that a waiter waits for has changed
	asked    uint32    // what epoll tells of; 0 where it knows nothing of the socket
	pump     *pump     // that the loop steps when there is something to read
	rider    *Carrier  // the same
	stepping bool      // a turn is under way, so that the descriptor stays
	closed   bool
	readers  int // that wait
	writers  int
	readable bool // told since the last reader began to wait
	writable bool
	reading  deadline
	writing  deadline
	posted   int    // its parcel in the loop's batch, from 1
	out      []byte // what is still to be written
	adrift   bool   // the loop writes out; nobody waits for that
	failed   error  // of a write; final
}

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func newSock(l *loop, fd int) *sock {
	s := &sock{l: l, fd: fd}
	s.moved.L = &s.mu
	return s
}

// ready is told by the loop, on its goroutine.
func (s *sock) ready(events uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 && s.writers > 0 {
		s.writable = true
		s.moved.Broadcast()
	}
	if events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 && s.adrift && !s.closed {
		s.float()
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLERR|unix.EPOLLHUP) != 0 && !s.closed {
		switch p := s.pump; {
		case s.rider != nil:
			s.carry(s.rider)
			if s.writers == 0 && !s.adrift { // what is asked stays: most likely it is wanted again
				return
			}
		case p != nil:
			s.step(p)
		case s.readers > 0:
			s.readable = true
			s.moved.Broadcast()
		}
	}
	s.ask()
}

// step gives p, which the loop has, one turn, and hands it back where that was the last.
// The caller holds mu.
func (s *sock) step(p *pump) {
	s.stepping = true
	s.mu.Unlock()
	over := s.l.batch.turn(p)
	s.mu.Lock()
	s.stepping = false
	if !over {
		over = s.interrupt(p)
	}
	s.settle()
	if over {
		s.pump = nil
		p.handed <- struct{}{}
	}
}

// interrupt reports whether p must look around before it goes on. The caller holds mu.
func (s *sock) interrupt(p *pump) bool {
	switch {
	case s.closed:
		p.err = net.ErrClosed
	case s.reading.over():
		p.err = os.ErrDeadlineExceeded
	default:
		return false
	}
	return true
}

// ride has the loop step p until it has to wait for something else than bytes to read,
// or ends, or the read deadline is over.
func (s *sock) ride(p *pump) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.err = nil
	if s.interrupt(p) {
		return p.err
	}
	s.stepping = true // what TLS has read already the loop cannot see
	s.mu.Unlock()
	over := p.turn()
	s.mu.Lock()
	s.stepping = false
	s.settle()
	if over || s.interrupt(p) {
		return p.err
	}
	s.pump = p
	s.ask()
	s.mu.Unlock()
	<-p.handed
	s.mu.Lock()
	return p.err
}

// ask tells epoll what is waited for. The caller holds mu.
func (s *sock) ask() {
	if s.closed {
		return
	}
	var want uint32
	if s.pump != nil || s.rider != nil || s.readers > 0 && !s.readable {
		want |= unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if s.writers > 0 && !s.writable || s.adrift {
		want |= unix.EPOLLOUT
	}
	if want == s.asked {
		return
	}
	op := unix.EPOLL_CTL_MOD
	switch {
	case s.asked == 0:
		op = unix.EPOLL_CTL_ADD
	case want == 0: // the end of a connection is told in any case
		op = unix.EPOLL_CTL_DEL
	}
	if err := unix.EpollCtl(s.l.epoll, op, s.fd, &unix.EpollEvent{Events: want, Fd: s.slot, Pad: s.turn}); err != nil {
		s.fail(os.NewSyscallError("epoll_ctl", err))
		return
	}
	s.asked = want
}

// fail ends the socket for everybody. The caller holds mu.
func (s *sock) fail(err error) {
	if s.failed == nil {
		s.failed = err
	}
	s.closed = true
	s.letGo(err)
	s.settle()
}

// letGo hands the pump back, unless a turn is under way, which does that itself, and wakes
// who waits. The caller holds mu.
func (s *sock) letGo(why error) {
	if p := s.pump; p != nil && !s.stepping {
		s.pump, p.err = nil, why
		p.handed <- struct{}{}
	}
	s.letRiderGo()
	s.moved.Broadcast()
}

// settle closes the descriptor of a closed socket once nobody uses it. The caller holds mu.
func (s *sock) settle() {
	if !s.closed || s.stepping || s.posted > 0 || s.fd < 0 {
		return
	}
	s.l.leave(s)
	_ = unix.Close(s.fd) // epoll forgets it
	s.fd = -1
}

func (s *sock) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.unpost()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	s.letGo(net.ErrClosed)
	s.settle()
	return nil
}

// linger is for how long what was written may still be sent after the end, which is a reset
// once that is over; less than 0 is for as long as the system likes.
func (s *sock) linger(seconds int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	l := unix.Linger{}
	if seconds >= 0 {
		l = unix.Linger{Onoff: 1, Linger: int32(seconds)} //nolint:gosec // a few seconds
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
}

// read waits until there is something to read.
func (s *sock) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := s.usable(&s.reading); err != nil {
			return 0, err
		}
		n, err := rawRead(s.fd, b)
		if !errors.Is(err, errAgain) {
			return n, err
		}
		s.await(&s.readers, &s.readable, &s.reading)
	}
}

// write writes all of b, and waits where the socket takes no more; during a turn it keeps
// the rest instead, for drain.
func (s *sock) write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(&s.writing); err != nil {
		return 0, err
	}
	if p := s.turned(); p != nil && len(s.out) == 0 && s.post(p, b) {
		return len(b), nil
	}
	if err := s.unpost(); err != nil {
		return 0, err
	}
	n := 0
	if len(s.out) == 0 {
		var err error
		if n, err = s.some(b); err != nil {
			return n, err
		}
	}
	if n == len(b) {
		return n, nil
	}
	s.keep(b[n:])
	if s.soft.Load() > 0 {
		return len(b), nil
	}
	if err := s.flush(); err != nil {
		return n, err
	}
	return len(b), nil
}

// some writes what the socket takes now. The caller holds mu.
func (s *sock) some(b []byte) (n int, err error) {
	for n < len(b) {
		k, err := rawWrite(s.fd, b[n:])
		n += k
		if errors.Is(err, errAgain) {
			return n, nil
		}
		if err != nil {
			s.failed = err
			return n, err
		}
	}
	return n, nil
}

// drain waits until nothing is left to write.
func (s *sock) drain() error {
	if !s.stalled.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flush()
}

func (s *sock) flush() error {
	for len(s.out) > 0 {
		if err := s.usable(&s.writing); err != nil {
			return err
		}
		n, err := s.some(s.out)
		if s.out = s.out[n:]; err != nil {
			return err
		}
		if len(s.out) > 0 {
			s.await(&s.writers, &s.writable, &s.writing)
		}
	}
	s.out, s.adrift = nil, false
	s.stalled.Store(false)
	return s.failed
}

func (s *sock) usable(d *deadline) error {
	switch {
	case s.failed != nil:
		return s.failed
	case s.closed:
		return net.ErrClosed
	case d.over():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// await waits until the loop tells that something can be done, or d is over.
func (s *sock) await(waiters *int, told *bool, d *deadline) {
	*told = false
	*waiters++
	s.ask()
	for !*told && !s.closed && !d.over() {
		s.moved.Wait()
	}
	*waiters--
	s.ask()
}

func (s *sock) setDeadline(d *deadline, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.at = t
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if t.IsZero() {
		return
	}
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, s.late)
		return
	}
	s.lateLocked()
}

func (s *sock) late() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lateLocked()
}

func (s *sock) lateLocked() {
	if s.reading.over() && !s.closed {
		s.letGo(os.ErrDeadlineExceeded)
		s.ask()
		return
	}
	s.moved.Broadcast()
}

// maxReads is how often a turn reads before it is somebody else's.
const maxReads = 4

// turn reads what is there and steps, without waiting; over says that the pump has to go
// on elsewhere. A panic is an error of this pump alone.
func (p *pump) turn() (over bool) {
	for _, o := range p.outs {
		o.soft.Add(1)
	}
	defer func() {
		if v := recover(); v != nil {
			p.err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
		over = p.err != nil || p.next.Park != nil
		for _, o := range p.outs {
			o.soft.Add(-1)
			over = over || o.stalled.Load()
		}
	}()
	p.err = p.some()
	return over
}

// some reads until nothing is left, or there is no reason to go on.
func (p *pump) some() error {
	p.fed(p.feed.sock.fd)
	defer p.fed(-1)
	plain := p.conn == net.Conn(p.feed) // epoll does not know what TLS has read already
	for reads := 1; ; reads++ {
		n, err := p.conn.Read(p.space(wire.Large))
		wait := errors.Is(err, errAgain)
		if wait {
			err = nil
		}
		if n > 0 || err != nil {
			if err := p.took(n, err); err != nil || p.next.Park != nil {
				return err
			}
		}
		switch {
		case wait:
			p.drop()
			return nil
		case p.stalled() || plain && reads == maxReads:
			return nil
		}
	}
}

func (p *pump) stalled() bool {
	for _, o := range p.outs {
		if o.stalled.Load() {
			return true
		}
	}
	return false
}
