package ssh

import (
	"net"
	"sync/atomic"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// pageful is what the library writes when its buffer is full: the beginning of a packet,
// whose rest follows at once.
const pageful = 4096

// A wire is a connection on which a packet goes out as one. The library writes a large one
// in two parts, and both would be sent, received and woken up for by themselves.
type wire struct {
	net.Conn
	raw  syscall.RawConn // nil where the connection is no socket
	join atomic.Bool
}

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
