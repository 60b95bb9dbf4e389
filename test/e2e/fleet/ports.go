package fleet

import (
	"net"

	"github.com/posterngate/postern/test/ports"
)

// port is host:port for the node, where it runs.
func (spec NodeSpec) port() (string, error) {
	addr, err := ports.Addr()
	if _, n, _ := net.SplitHostPort(addr); err == nil && spec.In != nil {
		addr = net.JoinHostPort(spec.In.Host, n)
	}
	return addr, err
}
