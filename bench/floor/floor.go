// Package floor measures what the machine costs whatever a gateway does.
package floor

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/pkg/run"
)

// small is a message as short as a query or its answer.
const small = 120

// tries is how often each is measured; the least counts, for contention only adds.
const tries = 5

// Measure measures all floors, in less than a second.
func Measure() (result.Floors, error) {
	var f result.Floors
	dir, err := os.MkdirTemp("", "postern-floor-")
	if err != nil {
		return f, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	hop := func(network, addr string, size, times int) float64 {
		ns, herr := hop(network, addr, size, times)
		err = errors.Join(err, herr)
		return ns
	}
	f.Syscall = least(200_000, func() { _ = unix.Getuid() })
	f.TCPHop = hop("tcp", "127.0.0.1:0", small, 5000)
	f.UnixHop = hop("unix", filepath.Join(dir, "s"), small, 5000)
	f.TCP64K = hop("tcp", "127.0.0.1:0", 64<<10, 1000)
	block := make([]byte, 16<<10)
	f.SHA16K = least(2000, func() { _ = sha256.Sum256(block) })
	return f, err
}

// least is the fewest nanoseconds of CPU time that one call took.
func least(times int, f func()) float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	best := 0.0
	for range tries {
		began := threadTime()
		for range times {
			f()
		}
		if ns := float64(threadTime()-began) / float64(times); best == 0 || ns < best {
			best = ns
		}
	}
	return best
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// hop is one write and one read of a message by one thread, without a wake-up.
func hop(network, addr string, size, times int) (float64, error) {
	ln, err := net.Listen(network, addr)
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	var server net.Conn
	g := run.New(context.Background())
	g.Go("accept", func(context.Context) error {
		var err error
		server, err = ln.Accept()
		return err
	})
	client, err := net.Dial(network, ln.Addr().String())
	if err := errors.Join(err, g.Wait()); err != nil {
		return 0, err
	}
	defer client.Close()
	defer server.Close()
	a, err := descriptor(client)
	if err != nil {
		return 0, err
	}
	defer a.Close()
	b, err := descriptor(server)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	out, in := make([]byte, size), make([]byte, size)
	var failed error
	ns := least(times, func() {
		if n, err := unix.Write(int(a.Fd()), out); err != nil || n != size {
			failed = fmt.Errorf("write of %d: %d, %w", size, n, err)
			return
		}
		for got := 0; got < size; {
			n, err := unix.Read(int(b.Fd()), in[got:])
			if err != nil || n == 0 {
				failed = fmt.Errorf("read: %d, %w", n, err)
				return
			}
			got += n
		}
	})
	return ns, failed
}

// descriptor is a blocking descriptor of its own for a connection.
func descriptor(c net.Conn) (*os.File, error) {
	var f *os.File
	var err error
	switch c := c.(type) {
	case *net.TCPConn:
		f, err = c.File()
	case *net.UnixConn:
		f, err = c.File()
	default:
		return nil, io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	return f, unix.SetNonblock(int(f.Fd()), false)
}
