package session

import (
	"testing"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// TestAuthority: a service is named as its own clients name it, without its scheme's own port.
func TestAuthority(t *testing.T) {
	for _, c := range []struct {
		host, mode string
		port       int32
		want       string
	}{
		{"orders.internal", "", 443, "orders.internal"}, {"orders.internal", "", 80, "orders.internal:80"}, {"orders.internal", "", 8443, "orders.internal:8443"},
		{"orders.internal", "disable", 80, "orders.internal"}, {"orders.internal", "disable", 443, "orders.internal:443"}, {"::1", "", 443, "[::1]"},
	} {
		ep := &typesv1.Endpoint{Host: c.host, Port: c.port, Tls: &typesv1.EndpointTLS{Mode: c.mode}}
		if got := httpTerms(ep).Authority; got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
