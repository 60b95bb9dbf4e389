package http

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/request"
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

// lobby is a door at which everybody is signed in as who may.
type lobby struct{ *enginetest.Door }

func (lobby) BeginSignIn(context.Context, string, string, string) (string, error) {
	return "https://control.example/web/enter/x", nil
}

func (lobby) FinishSignIn(context.Context, string, string, string) (string, time.Time, error) {
	return "psb_x", time.Now().Add(time.Hour), nil
}

func (lobby) SignOut(context.Context, string) error { return nil }

// TestComesBack: a browser that has signed in is where it wanted to be, in the very words of
// its link.
func TestComesBack(t *testing.T) {
	r := newResource(t)
	addr := enginetest.Serve(t, New(Config{TLS: &tls.Config{Certificates: r.TLS.Certificates[:1], MinVersion: tls.VersionTLS12}}), lobby{enginetest.NewDoor(t, r.terms(), credential)})
	for _, protocol := range []string{"http/1.1", "h2"} {
		tr := &http.Transport{
			DialTLS: func(string, string) (net.Conn, error) { //nolint:staticcheck // one address
				return tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}) //nolint:gosec // of this test
			},
			ForceAttemptHTTP2: protocol == "h2",
		}
		t.Cleanup(tr.CloseIdleConnections)
		ask := func(target string, cookies []*http.Cookie) *http.Response {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://t--target.example.com"+target, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept", "text/html")
			for _, c := range cookies {
				req.AddCookie(c)
			}
			resp, err := tr.RoundTrip(req)
			if err != nil || resp.StatusCode != http.StatusSeeOther || resp.ProtoMajor == 2 != (protocol == "h2") {
				t.Fatal(resp, err)
			}
			_ = resp.Body.Close()
			return resp
		}
		for _, to := range []string{"/", "/caf%C3%A9/a%20b?q=%2Fx+y&z"} {
			begun := ask(to, nil)
			if back := ask(callbackPath+"?code=c", begun.Cookies()[:1]); back.Header.Get("Location") != to {
				t.Errorf("%s: from %s to %s", protocol, to, back.Header.Get("Location"))
			}
		}
	}
}

// TestSignOut: who signs in next in a browser finds nothing of who did before.
func TestSignOut(t *testing.T) {
	r := newResource(t)
	addr := enginetest.Serve(t, New(Config{TLS: &tls.Config{Certificates: r.TLS.Certificates[:1], MinVersion: tls.VersionTLS12}}), lobby{enginetest.NewDoor(t, r.terms(), credential)})
	tr := &http.Transport{DialTLS: func(string, string) (net.Conn, error) { //nolint:staticcheck // one address
		return tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // of this test
	}}
	t.Cleanup(tr.CloseIdleConnections)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://t--target.example.com"+logoutPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	for _, name := range []string{request.SessionCookie, "app", "__Secure-app"} {
		req.AddCookie(&http.Cookie{Name: name, Value: enginetest.Token})
	}
	resp, err := tr.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	_ = resp.Body.Close()
	over := map[string]bool{}
	for _, c := range resp.Cookies() {
		over[c.Name] = c.MaxAge < 0 && c.Value == "" && c.Path == "/" && c.Secure
	}
	if len(over) != 3 || !over[request.SessionCookie] || !over["app"] || !over["__Secure-app"] {
		t.Errorf("taken back: %v", over)
	}
	if got := resp.Header.Get("Clear-Site-Data"); got != `"cache", "storage"` {
		t.Errorf("the browser is told to clear %q", got)
	}
}
