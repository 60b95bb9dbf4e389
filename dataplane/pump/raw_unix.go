//go:build unix

package pump

import (
	"io"
	"os"
	"syscall"

	"github.com/posterngate/postern/pkg/wire"
)

const rawReads = true

// passRaw does the whole of pass inside one RawConn.Read: the buffer is taken only when
// there is something to read, and after a short read the goroutine waits at once,
// without the read that would only say so. A close that came together with the last
// bytes shows at the next event or Poke.
func (p *pump) passRaw() error {
	var out error
	err := p.raw.Read(func(fd uintptr) bool {
		for {
			space := p.space(wire.Large)
			n, err := syscall.Read(int(fd), space)
			switch {
			case err == syscall.EINTR:
				continue
			case err == syscall.EAGAIN:
				p.drop()
				return false
			case err != nil:
				out = os.NewSyscallError("read", err)
				return true
			case n == 0:
				out = io.EOF
				return true
			}
			short := n < len(space)
			if out = p.took(n, nil); out != nil || p.next.Park != nil {
				return true
			}
			if short {
				p.drop()
				return false
			}
		}
	})
	if out != nil {
		return out
	}
	return err
}
