package request

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/posterngate/postern/pkg/postern"
)

// TestPermission: a request says once under which task it is, by its header or its host, or
// by both in the same way.
func TestPermission(t *testing.T) {
	for name, c := range map[string]struct {
		host   string
		header []string
		want   string
		code   postern.Code
	}{
		"by host":             {"read--orders.node.example:8443", nil, "read.orders", 0},
		"by header":           {"node.example", []string{"read.orders"}, "read.orders", 0},
		"by both":             {"read--orders.node.example", []string{"read.orders"}, "read.orders", 0},
		"by both, task alone": {"read--orders.node.example", []string{"read"}, "read.orders", 0},
		"by neither":          {"node.example", nil, "", postern.CodeNoGrant},
		"two ways":            {"read--orders.node.example", []string{"write.orders"}, "", postern.CodeProtocol},
		"twice":               {"node.example", []string{"read.orders", "write.orders"}, "", postern.CodeProtocol},
		"twice beside a host": {"read--orders.node.example", []string{"read.orders", "read.orders"}, "", postern.CodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Host = c.host
			r.Header[TaskHeader] = c.header
			got, err := permissionOf(r)
			var no *postern.Refusal
			if errors.As(err, &no) != (c.want == "") || got != c.want || no != nil && no.Code != c.code {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
