package fleet

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
	firstPort = 15000
	lastPort  = 32000
)

// port is host:port on loopback that nobody listens on now, and that no other test takes
// before this process ends: between this and the start of who listens there, another suite
// would find it free too.
func port() (string, error) {
	ln, err := listen()
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// port is one for the node, where it runs.
func (spec NodeSpec) port() (string, error) {
	addr, err := port()
	if _, n, _ := net.SplitHostPort(addr); err == nil && spec.In != nil {
		addr = net.JoinHostPort(spec.In.Host, n)
	}
	return addr, err
}

// listen listens on such a port. Who closes it and listens there again at once may find it
// taken: a process that is being started has all descriptors for a moment.
func listen() (net.Listener, error) {
	for range 200 {
		n := firstPort + rand.IntN(lastPort-firstPort)
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
