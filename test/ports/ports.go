// Package ports hands out ports of loopback to those who have to name one before somebody
// listens there.
package ports

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// Ports below those that the system hands out to outgoing connections, so that nobody
// takes one by chance while a process that must have it again is being restarted.
const (
	first = 15000
	last  = 32000
)

// Take is a port of 127.0.0.1 that nobody listens on now, and that nobody else who asks
// here, in any process, is given before this one ends: between this and the start of who
// listens there, another suite would find it free too.
func Take() (int, error) {
	ln, err := Listen()
	if err != nil {
		return 0, err
	}
	return ln.Addr().(*net.TCPAddr).Port, ln.Close()
}

// Addr is host:port of such a port.
func Addr() (string, error) {
	port, err := Take()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), err
}

// Listen listens on such a port. Who closes it and listens there again at once may find it
// taken: a process that is being started has all descriptors for a moment.
func Listen() (net.Listener, error) {
	for range 200 {
		n := first + rand.IntN(last-first)
		if !reserve(n) {
			continue
		}
		if ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n))); err == nil {
			return ln, nil
		}
	}
	return nil, errors.New("no free port")
}

// reserved are the locks on ports, which the system takes back with the process.
var reserved struct {
	sync.Mutex
	files []*os.File
}

func reserve(n int) bool {
	dir := filepath.Join(os.TempDir(), "postern-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return false
	}
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(n)), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return false
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return false
	}
	reserved.Lock()
	defer reserved.Unlock()
	reserved.files = append(reserved.files, f)
	return true
}
