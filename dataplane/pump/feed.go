package pump

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// A Feed is a socket that Run reads in its own way, and whose reads and writes do not tell
// the scheduler; below TLS it stands between the two. Elsewhere it is the connection that it
// wraps. Its Read is for one goroutine at a time.
type Feed struct {
	net.Conn
	prefix  []byte
	raw     syscall.RawConn // nil where the connection is not a bare socket
	bare    *net.TCPConn    // nil where there is none that a loop can take
	sock    *sock           // nil unless a loop has taken it
	carrier *Carrier        // that reads and writes sock; nil where nobody rides

	writing sync.Mutex
	out     []byte // what a Write has left to write
	outErr  error
	write   func(fd uintptr) bool // writes some of out; nil where the connection's own Write is to be used

	in    []byte // what a Read reads into
	got   int
	inErr error
	read  func(fd uintptr) bool // reads into in; nil where the connection's own Read is to be used
	look  func(fd uintptr) bool // the same, without waiting
	probe [1]byte

	// While Run is inside of its RawConn.Read:
	active  bool
	fd      int
	drained bool // the last read left nothing
}

// A Bare is a connection that stands for a socket and does not need to see what is read
// from it and written to it, or that it is closed by whoever closes what it wraps; what
// wraps a socket otherwise may want to.
type Bare interface {
	net.Conn
	syscall.Conn
	// Bare is the socket.
	Bare() *net.TCPConn
}

// A Mover is a Bare that is told how to close its socket once a loop has taken that.
type Mover interface{ Moved(hangUp func() error) }

// NewFeed wraps conn, of which prefix was read already.
func NewFeed(conn net.Conn, prefix []byte) *Feed {
	f := &Feed{Conn: conn, prefix: prefix}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			f.raw = raw
		}
	}
	switch c := conn.(type) {
	case *net.TCPConn:
		f.bare = c
	case Bare:
		f.bare = c.Bare()
	case *net.UnixConn:
	default:
		return f
	}
	if f.raw != nil && rawReads {
		f.write, f.read = f.writeSome, f.readSome
		f.look = func(fd uintptr) bool { f.readSome(fd); return true }
	}
	return f
}

// Wrap is conn as a Feed, unless it has one beneath it already.
func Wrap(conn net.Conn) net.Conn {
	if feedOf(conn) != nil {
		return conn
	}
	return NewFeed(conn, nil)
}

// Read reads from the prefix, and then from the socket. Under Run it does not wait.
func (f *Feed) Read(b []byte) (int, error) {
	if len(f.prefix) > 0 {
		n := copy(b, f.prefix)
		f.prefix = f.prefix[n:]
		return n, nil
	}
	if !f.active {
		switch {
		case f.carrier != nil:
			return f.carrier.read(f.sock, b)
		case f.sock != nil:
			return f.sock.read(b)
		case f.read == nil || len(b) == 0:
			return f.Conn.Read(b)
		}
		f.in, f.got, f.inErr = b, 0, nil
		err := f.raw.Read(f.read)
		f.in = nil
		if err == nil {
			err = f.inErr
		}
		return f.got, err
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
	switch {
	case f.carrier != nil:
		return f.carrier.write(f.sock, b)
	case f.sock != nil:
		return f.sock.write(b)
	}
	if f.write == nil {
		return f.Conn.Write(b)
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	f.out, f.outErr = b, nil
	err := f.raw.Write(f.write)
	n := len(b) - len(f.out)
	f.out = nil
	return n, errors.Join(f.outErr, err)
}

// Close closes the socket, and what stands for it.
func (f *Feed) Close() error {
	if f.sock == nil {
		return f.Conn.Close()
	}
	err := f.sock.close()
	_ = f.Conn.Close() // its socket is closed since the loop took its own
	return err
}

// SetDeadline sets both deadlines.
func (f *Feed) SetDeadline(t time.Time) error {
	return errors.Join(f.SetReadDeadline(t), f.SetWriteDeadline(t))
}

// SetReadDeadline is as of every connection; Run owns it while it runs.
func (f *Feed) SetReadDeadline(t time.Time) error {
	if f.sock == nil {
		return f.Conn.SetReadDeadline(t)
	}
	f.sock.setDeadline(&f.sock.reading, t)
	return nil
}

// SetWriteDeadline is as of every connection.
func (f *Feed) SetWriteDeadline(t time.Time) error {
	if f.sock == nil {
		return f.Conn.SetWriteDeadline(t)
	}
	f.sock.setDeadline(&f.sock.writing, t)
	return nil
}

// readSome reads what is there; false is that nothing is.
func (f *Feed) readSome(fd uintptr) bool {
	f.got, f.inErr = rawRead(int(fd), f.in)
	return !errors.Is(f.inErr, errAgain)
}

// Quiet reports whether conn, a Feed or what has one beneath it that nobody reads, is open and
// has brought nothing: neither bytes nor its end. What cannot be asked is quiet.
func Quiet(conn net.Conn) bool {
	f := feedOf(conn)
	switch {
	case f == nil:
		return true
	case len(f.prefix) > 0:
		return false
	case f.sock != nil:
		_, err := f.sock.readNow(f.probe[:])
		return errors.Is(err, errAgain)
	case f.read == nil:
		return true
	}
	f.in = f.probe[:]
	err := f.raw.Read(f.look)
	f.in = nil
	return err == nil && errors.Is(f.inErr, errAgain)
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

// HangUp closes the socket beneath conn, which a loop may have taken; TLS says no goodbye.
func HangUp(conn net.Conn) error {
	if f := feedOf(conn); f != nil {
		return f.Close()
	}
	return conn.Close()
}

// Abrupt has whoever reads from conn's other side be told of its end by a reset, which nobody
// takes for the end of what was said, until it is taken back. What has no socket ends as it does.
func Abrupt(conn net.Conn, on bool) error {
	seconds := -1 // to the system's liking
	if on {
		seconds = 0
	}
	switch f := feedOf(conn); {
	case f == nil || f.bare == nil:
		return nil
	case f.sock != nil:
		return f.sock.linger(seconds)
	default:
		return f.bare.SetLinger(seconds)
	}
}

// feedOf is the Feed that conn is, or that is beneath it, such as where it is TLS; or nil.
func feedOf(conn net.Conn) *Feed {
	for {
		if f, ok := conn.(*Feed); ok {
			return f
		}
		t, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = t.NetConn()
	}
}

// errAgain says that there is nothing to read now. To crypto/tls it is a time-out, after
// which reading can go on.
var errAgain net.Error = notNow{}

type notNow struct{}

func (notNow) Error() string   { return "pump: nothing to read now" }
func (notNow) Timeout() bool   { return true }
func (notNow) Temporary() bool { return true }
