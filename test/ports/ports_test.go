package ports

import (
	"net"
	"strconv"
	"testing"
)

// TestTake: no port is given twice, and whoever is given one can listen there.
func TestTake(t *testing.T) {
	seen := map[int]bool{}
	for range 50 {
		port, err := Take()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] || port < first || port >= last {
			t.Fatalf("port %d", port)
		}
		seen[port] = true
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		_ = ln.Close()
		if reserve(port) {
			t.Fatalf("port %d is given to another too", port)
		}
	}
}
