package pump

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/posterngate/postern/pkg/run"
)

// Loops are event loops. Each reads the sockets that were given to it on one goroutine,
// and steps their cores there, so that a message costs no wake-up of a goroutine of its
// own. Whatever may wait (a Park, a socket that takes no more) is left to the goroutine
// that called Run. All methods are safe for concurrent use.
type Loops struct {
	all  []*loop
	next atomic.Uint32
}

// maxEvents is how many sockets are looked at before the kernel is asked again.
const maxEvents = 128

// NewLoops makes n loops, which Run carries; n is at least one.
func NewLoops(n int) (*Loops, error) {
	l := &Loops{}
	for range max(n, 1) {
		one, err := newLoop()
		if err != nil {
			for _, made := range l.all {
				made.close()
			}
			return nil, err
		}
		l.all = append(l.all, one)
	}
	return l, nil
}

// Batches is nil where the loops send to many sockets by one system call, and otherwise why
// they do not: most runtimes of containers forbid their tenants io_uring.
func (l *Loops) Batches() error {
	for _, one := range l.all {
		if one.alone != nil {
			return one.alone
		}
	}
	return nil
}

// Run carries the loops until ctx is done. Sockets that are still there then fail with
// net.ErrClosed. It is called once.
func (l *Loops) Run(ctx context.Context) error {
	g := run.New(ctx)
	for _, one := range l.all {
		g.Go("loop", one.run)
	}
	return g.Wait()
}

// Board gives the sockets beneath conns to a loop, the same for all: that of the one that
// has a loop already, where there is one. Each conn is a Feed or has one beneath it, and
// works as before; only Run is carried by the loop. Nobody else may use them meanwhile. A
// conn whose socket cannot be had stays as it is, which the error says.
func (l *Loops) Board(conns ...net.Conn) error {
	var one *loop
	for _, c := range conns {
		if f := feedOf(c); f != nil && f.sock != nil {
			one = f.sock.l
		}
	}
	if one == nil {
		one = l.all[int(l.next.Add(1))%len(l.all)]
	}
	for _, c := range conns {
		f := feedOf(c)
		switch {
		case f != nil && f.sock != nil:
			continue
		case f == nil || f.bare == nil:
			return errors.New("pump: no bare socket")
		}
		s, err := one.take(f.bare)
		if err != nil {
			return fmt.Errorf("pump: %w", err)
		}
		f.sock, f.raw, f.write, f.read = s, nil, nil, nil
		if m, ok := f.Conn.(Mover); ok {
			m.Moved(s.close)
		}
	}
	return nil
}

type loop struct {
	epoll int
	event int // wakes the loop; socks have slots from 0, and this has -1
	batch batch
	alone error // why batch has no ring

	mu    sync.Mutex
	socks []*sock // by slot; nil where it is free
	free  []int32
	turn  int32 // of the last socket that came
	over  bool
}

func newLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	l := &loop{epoll: epoll, event: -1}
	if l.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		l.close()
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, l.event, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}); err != nil {
		l.close()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	l.batch.ring, l.alone = newRing(maxParcels)
	return l, nil
}

func (l *loop) close() {
	_ = unix.Close(l.epoll)
	if l.event >= 0 {
		_ = unix.Close(l.event)
	}
	if l.batch.ring != nil {
		l.batch.ring.close()
	}
}

func (l *loop) run(ctx context.Context) error {
	defer l.end()
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(l.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	events := make([]unix.EpollEvent, maxEvents)
	for ctx.Err() == nil {
		n, err := poll(l.epoll, events)
		if n == 0 && err == nil {
			n, err = unix.EpollWait(l.epoll, events, -1) // the scheduler is told
		}
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("epoll_wait", err)
		}
		for i := range max(n, 0) {
			if s := l.at(&events[i]); s != nil {
				s.ready(events[i].Events)
			}
		}
		l.batch.send()
	}
	return nil
}

// at is the socket of an event, or nil where it is gone.
func (l *loop) at(e *unix.EpollEvent) *sock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Fd < 0 || int(e.Fd) >= len(l.socks) || l.socks[e.Fd] == nil || l.socks[e.Fd].turn != e.Pad {
		return nil
	}
	return l.socks[e.Fd]
}

// take gives the loop a descriptor of its own for the socket, and closes c, so that the
// runtime's poller is told nothing any more.
func (l *loop) take(c *net.TCPConn) (*sock, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if cerr != nil || err != nil {
		return nil, errors.Join(cerr, os.NewSyscallError("dup", err))
	}
	s := newSock(l, fd)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		_ = unix.Close(fd)
		return nil, net.ErrClosed
	}
	l.turn++
	s.turn = l.turn
	if n := len(l.free); n > 0 {
		s.slot, l.free = l.free[n-1], l.free[:n-1]
		l.socks[s.slot] = s
	} else {
		s.slot = int32(len(l.socks)) //nolint:gosec // far fewer descriptors than that
		l.socks = append(l.socks, s)
	}
	return s, c.Close()
}

// leave forgets a socket; events of it that were fetched already are dropped.
func (l *loop) leave(s *sock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.socks[s.slot] = nil
	l.free = append(l.free, s.slot)
}

// end fails what is left.
func (l *loop) end() {
	l.mu.Lock()
	l.over = true
	left := append([]*sock(nil), l.socks...)
	l.mu.Unlock()
	for _, s := range left {
		if s != nil {
			_ = s.close()
		}
	}
	l.close()
}

// DefaultLoops is how many loops there should be: half of the processors, since the rest
// has work too.
func DefaultLoops() int { return runtime.GOMAXPROCS(0) / 2 }
