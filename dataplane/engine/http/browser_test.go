package http

import (
	"encoding/base64"
	"net/url"
	"testing"
)

// FuzzWithin: wherever a browser is sent after a sign-in is on this host.
func FuzzWithin(f *testing.F) {
	for _, to := range []string{"/", "/a?b=c", "//evil.example", "/\\evil.example", "https://evil.example", "/.postern/callback?code=x", "/\t/evil.example", "", "/a\r\nSet-Cookie: x=y"} {
		f.Add(base64.RawURLEncoding.EncodeToString([]byte(to)))
	}
	f.Add("/%2e")
	base, _ := url.Parse("https://desk--desk.postern.example:8443/.postern/callback")
	f.Fuzz(func(t *testing.T, encoded string) {
		to := within(encoded)
		u, err := base.Parse(to)
		if err != nil {
			return // no browser goes there either
		}
		if u.Host != base.Host || u.Scheme != "https" || u.User != nil || to[0] != '/' || len(to) > 1 && (to[1] == '/' || to[1] == '\\') {
			t.Errorf("%q leads to %q", encoded, to)
		}
	})
}
