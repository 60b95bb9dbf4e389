package request

import (
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
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

// TestTokens: a token is shown as one, or as the password of programs that know nothing else, and
// by no browser, which would show it to whoever has it ask.
func TestTokens(t *testing.T) {
	basic := func(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }
	for name, c := range map[string]struct {
		authorization []string
		headers       http.Header
		want          string
		refused       bool
	}{
		"none":                  {nil, nil, "", false},
		"a token":               {[]string{"bearer t"}, nil, "t", false},
		"a password":            {[]string{basic("postern:t")}, nil, "t", false},
		"another's password":    {[]string{basic("alice:t")}, nil, "", true},
		"an empty one":          {[]string{basic("postern:")}, nil, "", true},
		"two":                   {[]string{basic("postern:t"), "Bearer t"}, nil, "", true},
		"two in one":            {[]string{basic("postern:t, Bearer t")}, nil, "", true},
		"of a browser":          {[]string{basic("postern:t")}, http.Header{"Sec-Fetch-Site": {"same-origin"}}, "", true},
		"of an old one":         {[]string{basic("postern:t")}, http.Header{"Origin": {"https://evil.example"}}, "", true},
		"a browser's session":   {[]string{basic("postern:psb_t")}, nil, "", true},
		"a signature of AWS":    {[]string{"AWS4-HMAC-SHA256 Credential=x"}, nil, "", true},
		"what is not in base64": {[]string{"Basic postern:t"}, nil, "", true},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		maps.Copy(r.Header, c.headers)
		if c.authorization != nil {
			r.Header["Authorization"] = c.authorization
		}
		if got, err := bearer(r); got != c.want || err != nil != c.refused {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestChallenges: programs are told that a password will do, and browsers are not, which would ask
// people for it.
func TestChallenges(t *testing.T) {
	for name, c := range map[string]struct {
		header http.Header
		want   int
	}{
		"git": {http.Header{"User-Agent": {"git/2.43.0"}}, 2}, "a script": {http.Header{"Sec-Fetch-Site": {"same-origin"}}, 1}, "an old browser": {http.Header{"User-Agent": {"Mozilla/5.0"}}, 1},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header = c.header
		Refuse(w, r, &postern.Refusal{Code: postern.CodeBadToken, Reason: "no token"})
		if got := w.Header()["Www-Authenticate"]; len(got) != c.want || !strings.HasPrefix(got[0], "Bearer ") {
			t.Errorf("%s: %q", name, got)
		}
	}
}
