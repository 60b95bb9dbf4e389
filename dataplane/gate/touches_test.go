package gate

import (
	"testing"

	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/sql"
)

// TestShapeOfWhatIsDenied: the index may name the method of gRPC that was refused, whose
// names are a program's own.
func TestShapeOfWhatIsDenied(t *testing.T) {
	for want, facts := range map[string]policy.Facts{
		"/shop.Orders/Get": &http.Facts{Method: "POST", Path: "/shop.Orders/Get", ContentType: "application/grpc"},
		"/orders/?":        &http.Facts{Method: "POST", Path: "/orders/17", ContentType: "application/json"},
		"":                 &sql.Facts{},
	} {
		if got := shape(facts); got != want {
			t.Errorf("%+v: %q, want %q", facts, got, want)
		}
	}
	if shape(nil) != "" || shape((*http.Facts)(nil)) != "" {
		t.Error("nothing has a shape")
	}
}
