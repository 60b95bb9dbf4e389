package ssh

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// pageful is what the library writes when its buffer is full: the beginning of a packet,
// whose rest follows at once.
const pageful = 4096

// A wire is a connection on which a packet goes out as one. The library writes a large one
// in two parts, and both would be sent, received and woken up for by themselves. It reads
// one in two parts too: with the second, what has come behind it is taken from the system.
type wire struct {
	net.Conn
	raw  syscall.RawConn // nil where the connection is no socket
	join atomic.Bool

	ahead []byte           // what was read and not asked for yet: the rest of spare
	spare *[readAhead]byte // from spares, while there is something in it
}

// readAhead is how much is read ahead at most, in bytes.
const readAhead = 128 << 10

var spares = sync.Pool{New: func() any { return new([readAhead]byte) }}

func newWire(nc net.Conn) *wire {
	w := &wire{Conn: nc}
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			w.raw = raw
		}
	}
	return w
}

// joined says that the handshake is over: from now on no packet of the cipher that was
// agreed ends where the library's buffer does. If one did, the system would send it after
// 200 ms.
func (w *wire) joined(c ssh.ConnMetadata) {
	if m, ok := c.(ssh.AlgorithmsConnMetadata); ok {
		switch m.Algorithms().Write.Cipher {
		case ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305:
			w.join.Store(true)
		}
	}
}

// Read is for one goroutine at a time. A spare is held while there is something in it, and
// never to wait.
func (w *wire) Read(p []byte) (int, error) {
	if len(w.ahead) == 0 && len(p) > pageful && w.raw != nil {
		if n := w.readOn(p); n > 0 {
			return n, nil
		}
	}
	if len(w.ahead) == 0 {
		return w.Conn.Read(p)
	}
	n := copy(p, w.ahead)
	if w.ahead = w.ahead[n:]; len(w.ahead) == 0 {
		spares.Put(w.spare)
		w.spare = nil
	}
	return n, nil
}

// readOn reads what is there, into p and what does not fit ahead. Nothing, and all errors,
// are a common read's.
func (w *wire) readOn(p []byte) int {
	room := spares.Get().(*[readAhead]byte)
	n := 0
	err := w.raw.Read(func(fd uintptr) bool {
		n, _ = unix.Readv(int(fd), [][]byte{p, room[:]})
		return true
	})
	if err != nil || n <= len(p) {
		spares.Put(room)
		return max(n, 0)
	}
	w.spare, w.ahead = room, room[:n-len(p)]
	return len(p)
}

func (w *wire) Write(p []byte) (int, error) {
	if len(p) != pageful || w.raw == nil || !w.join.Load() {
		return w.Conn.Write(p)
	}
	// Whatever the system does not take at once, with all its errors, is a common write's.
	n := 0
	err := w.raw.Write(func(fd uintptr) bool {
		n, _ = unix.SendmsgN(int(fd), p, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		return true
	})
	if n = max(n, 0); err != nil || n == len(p) {
		return n, err
	}
	rest, err := w.Conn.Write(p[n:])
	return n + rest, err
}
