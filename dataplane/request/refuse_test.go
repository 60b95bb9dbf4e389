package request

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

// TestRetryAfter: who is refused for a while is told for how long, rounded so that they do
// not come too soon.
func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		after        time.Duration
		kind, header string
		want         string
	}{
		{1200 * time.Millisecond, "application/json", "Retry-After", "2"},
		{time.Second, "", "Retry-After", "1"},
		{0, "", "Retry-After", ""},
		{1200 * time.Millisecond, "application/grpc", "Grpc-Retry-Pushback-Ms", "1201"},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Content-Type", c.kind)
		Refuse(w, r, &postern.Refusal{Code: postern.CodeLimit, Reason: "too many", After: c.after})
		if got := w.Header().Get(c.header); got != c.want || c.kind == "" && w.Code != http.StatusTooManyRequests {
			t.Errorf("%+v: %d %q", c, w.Code, got)
		}
	}
}
