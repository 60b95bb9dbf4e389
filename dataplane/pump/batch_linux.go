package pump

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// A batch is what turns of a loop have written and nobody was sent yet. The loop sends it by
// one system call, before it asks for events again or hands a pump back. Whom a write wakes
// the kernel may run when the call ends, so that a call for each socket costs a switch for
// each: together they cost a fifth less (DECISIONS.md, 107). Its lock is taken after that
// of a sock.
type batch struct {
	ring    *ring                // nil where the kernel has none: everything is written at once
	turning atomic.Pointer[pump] // whose turn it is, if the batch may have what it writes

	mu      sync.Mutex
	sending bool // the parcels are the kernel's
	n       int
	parcels [maxParcels]parcel
}

// A parcel is what is to be sent to a socket, which has one at most.
type parcel struct {
	to   *sock // nil where it was taken back
	pump *pump // whose turn wrote it; nil for a passenger
	buf  []byte
	sent int
	err  syscall.Errno
}

const (
	// maxParcels is how many sockets are written to before they are sent to: the first
	// should not wait for many others.
	maxParcels = 16
	// maxParcel is how many bytes are copied at most; more are worth a call.
	maxParcel = 4 << 10
)

// turn is the pump's, for the loop's goroutine, which holds no lock.
func (t *batch) turn(p *pump) (over bool) {
	t.turning.Store(p)
	over = p.turn()
	t.turning.Store(nil)
	if over || t.full() {
		t.send()
		over = over || p.stalled()
	}
	return over
}

// turned is the pump that has its turn, where that writes to s, or nil.
func (s *sock) turned() *pump {
	if p := s.l.batch.turning.Load(); p != nil && slices.Contains(p.outs, s) {
		return p
	}
	return nil
}

// post has the loop, whose turn it is, send b at the end of its round. It is false where b
// has to be written now. The caller holds s.mu.
func (s *sock) post(p *pump, b []byte) bool {
	t := &s.l.batch
	t.mu.Lock()
	defer t.mu.Unlock()
	i := s.posted - 1
	if i < 0 {
		i = t.n
	}
	if t.ring == nil || t.sending || i == maxParcels || len(t.parcels[i].buf)+len(b) > maxParcel {
		return false
	}
	c := &t.parcels[i]
	if i == t.n {
		c.to, c.pump = s, p
		t.n++
		s.posted = t.n
	}
	c.buf = append(c.buf, b...)
	return true
}

// unpost writes what the loop was to send, or waits until it has. The caller holds s.mu.
func (s *sock) unpost() error {
	t := &s.l.batch
	for s.posted > 0 {
		t.mu.Lock()
		if t.sending {
			t.mu.Unlock()
			s.moved.Wait()
			continue
		}
		c := &t.parcels[s.posted-1]
		n, err := s.some(c.buf)
		s.keep(c.buf[n:])
		s.posted = 0
		c.clear()
		t.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return s.failed
}

func (t *batch) full() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n == maxParcels
}

// send sends everything. It is for the loop's goroutine, which holds no lock.
func (t *batch) send() {
	t.mu.Lock()
	parcels := t.parcels[:t.n]
	t.sending = t.n > 0
	t.mu.Unlock()
	if len(parcels) == 0 {
		return
	}
	works := t.hand(parcels)
	for i := range parcels {
		parcels[i].arrive()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n, t.sending = 0, false
	if !works {
		t.ring.close()
		t.ring = nil
	}
}

// hand gives the parcels to the kernel; works is false where the ring does not any more.
func (t *batch) hand(parcels []parcel) (works bool) {
	const untold = syscall.EINPROGRESS
	put := 0
	for i := range parcels {
		if c := &parcels[i]; c.to != nil {
			c.sent, c.err = 0, untold
			put++
		}
	}
	taken, works := 0, true
	if put > 1 { // one alone is written
		for i := range parcels {
			if c := &parcels[i]; c.to != nil {
				t.ring.put(i, c.to.fd, c.buf)
			}
		}
		var err error
		taken, err = t.ring.submit(put, func(i, sent int, err syscall.Errno) { parcels[i].sent, parcels[i].err = sent, err })
		works = err == nil
	}
	for i := range parcels {
		c := &parcels[i]
		switch {
		case c.to == nil:
			continue
		case c.err == untold && taken > 0: // nobody knows whether it was sent
			c.err = syscall.EIO
		case c.err == untold:
			c.sent, c.err = again(write, c.to.fd, c.buf)
		}
		taken--
	}
	return works
}

// arrive tells the socket what became of its parcel, and the pump where it has to wait.
func (c *parcel) arrive() {
	s, p := c.to, c.pump
	if s == nil {
		return
	}
	s.mu.Lock()
	switch c.err {
	case 0:
		s.keep(c.buf[c.sent:])
	case syscall.EAGAIN:
		s.keep(c.buf)
	default:
		s.failed = os.NewSyscallError("write", c.err)
		s.stalled.Store(true) // drain says why
	}
	s.posted = 0
	stalled := s.stalled.Load()
	if s.adrift = p == nil && len(s.out) > 0; s.adrift {
		s.ask()
	}
	s.moved.Broadcast()
	s.settle()
	s.mu.Unlock()
	c.clear()
	if stalled && p != nil {
		p.feed.sock.handBack(p)
	}
}

func (c *parcel) clear() { c.to, c.pump, c.buf = nil, nil, c.buf[:0] }

// handBack gives p, which has to wait for what it wrote, to its own goroutine, unless that
// has it already or a turn is under way, which sees the same.
func (s *sock) handBack(p *pump) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pump == p && !s.stepping {
		s.pump, p.err = nil, nil
		p.handed <- struct{}{}
		s.ask()
	}
}

// float writes more of what a passenger wrote, who waits elsewhere. The caller holds mu.
func (s *sock) float() {
	n, err := s.some(s.out)
	if s.out = s.out[n:]; err != nil || len(s.out) == 0 {
		s.adrift, s.out = false, nil
		s.stalled.Store(false)
	}
}

// keep has b written once the socket takes more. The caller holds mu.
func (s *sock) keep(b []byte) {
	if len(b) > 0 {
		s.out = append(s.out, b...)
		s.stalled.Store(true)
	}
}
