package fleet

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports below those that the system hands out to outgoing connections, so that nobody
// takes one by chance while a process that must have it again is being restarted.
const (
	firstPort = 15000
	lastPort  = 32000
)

// port is host:port on loopback that nobody listens on now.
func port() (string, error) {
	for range 200 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+rand.IntN(lastPort-firstPort)))
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			return addr, ln.Close()
		}
	}
	return "", errors.New("no free port")
}
