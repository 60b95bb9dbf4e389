package pump

import (
	"net"
	"syscall"
)

// A Feed is what a TLS connection reads its bytes from, so that Run can read the socket
// beneath it in its own way. Elsewhere it is the connection that it wraps. Its Read is
// for one goroutine.
type Feed struct {
	net.Conn
	prefix []byte
	raw    syscall.RawConn // nil where the connection is not a bare socket

	// While Run is inside of its RawConn.Read:
	active  bool
	fd      int
	drained bool // the last read left nothing
}

// NewFeed wraps conn, of which prefix was read already.
func NewFeed(conn net.Conn, prefix []byte) *Feed {
	f := &Feed{Conn: conn, prefix: prefix}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			f.raw = raw
		}
	}
	return f
}

// Read reads from the prefix, and then from the socket. Under Run it does not wait.
func (f *Feed) Read(b []byte) (int, error) {
	if len(f.prefix) > 0 {
		n := copy(b, f.prefix)
		f.prefix = f.prefix[n:]
		return n, nil
	}
	if !f.active {
		return f.Conn.Read(b)
	}
	if f.drained {
		return 0, errAgain
	}
	n, err := rawRead(f.fd, b)
	f.drained = n < len(b)
	return n, err
}

// feedOf is the Feed beneath a TLS connection, or nil.
func feedOf(conn net.Conn) *Feed {
	t, ok := conn.(interface{ NetConn() net.Conn })
	if !ok {
		return nil
	}
	f, ok := t.NetConn().(*Feed)
	if !ok || f.raw == nil {
		return nil
	}
	return f
}

// errAgain says that there is nothing to read now. To crypto/tls it is a time-out, after
// which reading can go on.
var errAgain net.Error = again{}

type again struct{}

func (again) Error() string   { return "pump: nothing to read now" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }
