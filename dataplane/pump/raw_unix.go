//go:build unix

package pump

import (
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/posterngate/postern/pkg/wire"
)

const rawReads = true

// rawRead reads what is there, or returns errAgain.
func rawRead(fd int, b []byte) (int, error) {
	n, errno := again(read, fd, b)
	switch {
	case errno == syscall.EAGAIN:
		return 0, errAgain
	case errno != 0:
		return 0, os.NewSyscallError("read", errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// rawWrite writes what the socket takes now, or returns errAgain.
func rawWrite(fd int, b []byte) (int, error) {
	n, errno := again(write, fd, b)
	switch {
	case errno == syscall.EAGAIN:
		return 0, errAgain
	case errno != 0:
		return 0, os.NewSyscallError("write", errno)
	}
	return n, nil
}

// again calls until no signal comes between.
func again(call func(fd int, b []byte) (int, syscall.Errno), fd int, b []byte) (n int, errno syscall.Errno) {
	for {
		if n, errno = call(fd, b); errno != syscall.EINTR {
			return n, errno
		}
	}
}

// passRaw does the whole of pass inside one RawConn.Read: the buffer is taken only when
// there is something to read, and after a short read the goroutine waits at once,
// without the read that would only say so. It must be one, since a call forgets what
// became readable before it. A close that came together with the last bytes shows at the
// next event or Poke.
func (p *pump) passRaw() error {
	var out error
	err := p.raw.Read(func(fd uintptr) bool {
		p.fed(int(fd))
		for {
			space := p.space(wire.Large)
			n, short, err := p.readNow(int(fd), space)
			wait := errors.Is(err, errAgain)
			if wait {
				err = nil
			}
			if n > 0 || err != nil {
				if out = p.took(n, err); out != nil || p.next.Park != nil {
					return true
				}
			}
			if wait || short {
				p.drop()
				return false
			}
		}
	})
	p.fed(-1)
	if out != nil {
		return out
	}
	return err
}

// readNow reads without waiting; short says that nothing is left to read.
func (p *pump) readNow(fd int, space []byte) (n int, short bool, err error) {
	if p.feed != nil {
		// Whether something is left TLS knows, which may hold records, or the Feed.
		n, err = p.conn.Read(space)
		return n, false, err
	}
	n, err = rawRead(fd, space)
	return n, err == nil && n < len(space), err
}

// fed switches the Feed, if there is one, to the descriptor; -1 switches it back.
func (p *pump) fed(fd int) {
	if p.feed != nil {
		p.feed.active, p.feed.fd, p.feed.drained = fd >= 0, fd, false
	}
}
