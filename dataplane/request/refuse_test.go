package request

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
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

// TestRefusedAsAsked: a refusal is in the form that its client shows to people.
func TestRefusedAsAsked(t *testing.T) {
	const (
		bearer = `Bearer realm="postern", error="invalid_token"`
		basic  = `Basic realm="postern"`
	)
	for _, c := range []struct {
		path, accept, agent string
		kind, says          string
		challenges          []string
	}{
		{"/a", "", "git/2.39.5", "text/plain; charset=utf-8", "postern: no <token>\n  hint: take one\n", []string{bearer, basic}},
		{"/a", "application/json", "npm/10", "application/problem+json", `"error":"postern: no \u003ctoken\u003e; hint: take one"`, []string{bearer, basic}},
		{"/a", "text/html,*/*;q=0.8", "Mozilla/5.0", "text/html; charset=utf-8", "<p>no &lt;token&gt;</p>", []string{bearer}},
		{"/v2/", "", "docker/29.1", "application/json", `{"errors":[{"code":"UNAUTHORIZED","message":"postern: no \u003ctoken\u003e; hint: take one"}]}`, []string{basic}},
		{"/v2/team/app/manifests/v1", "application/vnd.oci.image.index.v1+json", "skopeo/1.9", "application/json", `"UNAUTHORIZED"`, []string{basic}},
		{"/v2/users", "application/json", "curl/8", "application/problem+json", `"status":401`, []string{bearer, basic}},
		{"/v2/team/app/tags/list", "text/html", "Mozilla/5.0", "text/html; charset=utf-8", "<h1>401: Unauthorized</h1>", []string{bearer}},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, c.path, nil)
		r.Header.Set("Accept", c.accept)
		r.Header.Set("User-Agent", c.agent)
		Refuse(w, r, &postern.Refusal{Code: postern.CodeBadToken, Reason: "no <token>", Hint: "take one"})
		if got := w.Header().Get("Content-Type"); got != c.kind || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%+v: %s: %s", c, got, w.Body)
		}
		if got := w.Header().Values("WWW-Authenticate"); !slices.Equal(got, c.challenges) {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
