package pump

import (
	"errors"
	"net"
	"syscall"
)

// A Feed is what stands between a TLS connection and its socket, so that Run can read the
// socket in its own way. Elsewhere it is the connection that it wraps. Its Read is for one
// goroutine, and so is its Write, as crypto/tls has it.
type Feed struct {
	net.Conn
	prefix []byte
	raw    syscall.RawConn // nil where the connection is not a bare socket
	out    []byte          // what a Write has left to write
	outErr error
	write  func(fd uintptr) bool // writes some of out; made once

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
			f.write = f.writeSome
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

// Write writes all of b, and waits where the socket takes no more.
func (f *Feed) Write(b []byte) (int, error) {
	if f.raw == nil || !rawReads {
		return f.Conn.Write(b)
	}
	f.out, f.outErr = b, nil
	err := f.raw.Write(f.write)
	n := len(b) - len(f.out)
	f.out = nil
	return n, errors.Join(f.outErr, err)
}

// writeSome writes until nothing is left or the socket takes no more, which is false.
func (f *Feed) writeSome(fd uintptr) bool {
	for len(f.out) > 0 {
		n, err := rawWrite(int(fd), f.out)
		f.out = f.out[n:]
		if errors.Is(err, errAgain) {
			return false
		}
		if err != nil {
			f.outErr = err
			return true
		}
	}
	return true
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
var errAgain net.Error = notNow{}

type notNow struct{}

func (notNow) Error() string   { return "pump: nothing to read now" }
func (notNow) Timeout() bool   { return true }
func (notNow) Temporary() bool { return true }
