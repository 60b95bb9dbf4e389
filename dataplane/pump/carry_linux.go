package pump

import (
	"errors"
	"iter"
	"sync/atomic"
)

// A Carrier runs one function as a loop's passenger: where it waits for bytes of a socket
// that has a seat, it is stepped by that socket's loop when they are there, and no goroutine
// is woken. While it rides it must wait for nothing else, or the loop would: before it may,
// it calls Off. Its methods but Evict are for that function.
type Carrier struct {
	next   func() (*sock, bool)
	yield  func(*sock) bool
	riding atomic.Bool
	reads  int   // that did not wait, one after the other
	loop   *loop // that runs it now, or nil
	ended  bool
	panic  any
	handed chan struct{}        // the loop gives it back
	at     atomic.Pointer[sock] // where it waited last
}

// maxRide is how often a passenger reads without waiting before it is bulk, which others
// should not wait for.
const maxRide = 16

// Carry runs fn, and returns when that does; a panic of fn is the caller's.
func Carry(fn func(c *Carrier)) {
	c := &Carrier{handed: make(chan struct{}, 1)}
	next, stop := iter.Pull(func(yield func(*sock) bool) {
		c.yield = yield
		fn(c)
	})
	defer stop()
	c.next = next
	for {
		at := c.step()
		if at != nil {
			at.seat(c)
			<-c.handed
		}
		if c.ended {
			break
		}
	}
	if c.panic != nil {
		panic(c.panic)
	}
}

// step runs it until it waits for a socket, or is to be run by its own goroutine, which is
// nil, or has ended.
func (c *Carrier) step() (at *sock) {
	defer func() {
		if v := recover(); v != nil {
			c.panic, c.ended, at = v, true, nil
		}
	}()
	at, more := c.next()
	c.ended = !more
	return at
}

// On lets it ride, until Off.
func (c *Carrier) On() { c.riding.Store(true) }

// Rides reports whether it does.
func (c *Carrier) Rides() bool { return c.riding.Load() }

// Off has its own goroutine run it.
func (c *Carrier) Off() {
	c.riding.Store(false)
	if c.loop != nil {
		c.yield(nil)
	}
}

// Evict has its own goroutine run it, and is for any other. It is false where it cannot be,
// since a loop runs it just now.
func (c *Carrier) Evict() bool {
	if !c.riding.Load() {
		return true
	}
	s := c.at.Load()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rider != c {
		return false
	}
	c.riding.Store(false)
	s.letRiderGo()
	return true
}

// read is sock.read for a passenger.
func (c *Carrier) read(s *sock, b []byte) (int, error) {
	for c.riding.Load() {
		if s.drained { // epoll tells when there is more
			s.drained, c.reads = false, 0
			c.yield(s)
			continue
		}
		n, err := s.readNow(b)
		if errors.Is(err, errAgain) {
			continue
		}
		if c.reads++; c.reads > maxRide {
			c.Off()
		}
		return n, err
	}
	return s.read(b)
}

// readNow reads what is there, or returns errAgain. It is for whoever may read alone.
func (s *sock) readNow(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(&s.reading); err != nil {
		return 0, err
	}
	n, err := rawRead(s.fd, b)
	s.drained = n < len(b)
	return n, err
}

// write is sock.write for a passenger.
func (c *Carrier) write(s *sock, b []byte) (int, error) {
	n, err := s.writeNow(b, c.loop == s.l)
	if err != nil || n == len(b) {
		return n, err
	}
	if c.riding.Load() {
		c.Off() // it takes no more
	}
	m, err := s.write(b[n:])
	return n + m, err
}

// writeNow writes what the socket takes, or has its loop do that soon, whose turn it may be.
func (s *sock) writeNow(b []byte, looped bool) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(&s.writing); err != nil || len(s.out) > 0 {
		return 0, err
	}
	if looped && s.post(nil, b) {
		return len(b), nil
	}
	if err := s.unpost(); err != nil || len(s.out) > 0 {
		return 0, err
	}
	return s.some(b)
}

// seat has the loop step c when there is something to read.
func (s *sock) seat(c *Carrier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rider = c
	c.at.Store(s)
	if s.usable(&s.reading) != nil {
		s.letRiderGo() // it is told when it reads
		return
	}
	s.ask()
}

// carry steps c, which waited here. The caller holds mu.
func (s *sock) carry(c *Carrier) {
	s.rider = nil
	s.mu.Unlock()
	c.loop = s.l
	at := c.step()
	c.loop = nil
	if s.l.batch.full() {
		s.l.batch.send()
	}
	if at != nil {
		at.seat(c)
	} else {
		c.handed <- struct{}{}
	}
	s.mu.Lock()
}

// letRiderGo gives the passenger back to its own goroutine. The caller holds mu.
func (s *sock) letRiderGo() {
	if c := s.rider; c != nil {
		s.rider = nil
		c.handed <- struct{}{}
	}
}
