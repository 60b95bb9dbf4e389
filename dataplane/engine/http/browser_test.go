package http

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/pkg/postern"
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

// tabs is a door at which a code is good with the verifier of its sign-in.
type tabs struct {
	lobby
	mu    sync.Mutex
	begun []string
}

// verifier is that of the nth sign-in.
func (d *tabs) verifier(n int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begun[n]
}

func (d *tabs) BeginSignIn(_ context.Context, _, _, verifier string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begun = append(d.begun, verifier)
	return "https://control.example/web/enter/x", nil
}

func (d *tabs) FinishSignIn(_ context.Context, _, code, verifier string) (string, time.Time, error) {
	if n, err := strconv.Atoi(code); err != nil || d.verifier(n) != verifier {
		return "", time.Time{}, &postern.Refusal{Code: postern.CodeBadToken, Reason: "not of this sign-in"}
	}
	return "psb_x", time.Now().Add(time.Hour), nil
}

// TestTabsSignIn: of two tabs that sign in at once neither is turned away; who has neither begun
// nor ever signed in is.
func TestTabsSignIn(t *testing.T) {
	r := newResource(t)
	door := &tabs{lobby: lobby{enginetest.NewDoor(t, r.terms(), credential)}}
	tr := secure(t, enginetest.Serve(t, New(Config{TLS: &tls.Config{Certificates: r.TLS.Certificates[:1], MinVersion: tls.VersionTLS12}}), door))
	crumbs := map[string]*http.Cookie{}
	ask := func(target string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://t--target.example.com"+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/html")
		for _, c := range crumbs {
			req.AddCookie(c)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		for _, c := range resp.Cookies() {
			if crumbs[c.Name] = c; c.MaxAge < 0 {
				delete(crumbs, c.Name)
			}
		}
		return resp.StatusCode, resp.Header.Get("Location")
	}
	ask("/first")
	ask("/second")
	for code, want := range []string{"/second", "/"} {
		if status, to := ask(callbackPath + "?code=" + strconv.Itoa(code)); status != http.StatusSeeOther || to != want {
			t.Errorf("tab %d: %d to %q", code, status, to)
		}
	}
	clear(crumbs)
	ask("/third")
	if door.verifier(2) == door.verifier(0) {
		t.Error("a verifier outlives its sign-in")
	}
	for _, who := range []string{"who has begun another sign-in", "who has begun none"} {
		if status, to := ask(callbackPath + "?code=0"); status != http.StatusUnauthorized || to != "" {
			t.Errorf("%s: %d to %q", who, status, to)
		}
		clear(crumbs)
	}
}

// secure asks over TLS, whatever the address.
func secure(t *testing.T, addr string) *http.Transport {
	t.Helper()
	tr := &http.Transport{DialTLS: func(string, string) (net.Conn, error) { //nolint:staticcheck // one address
		return tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // of this test
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// TestSignOut: who signs in next in a browser finds nothing of who did before.
func TestSignOut(t *testing.T) {
	r := newResource(t)
	tr := secure(t, enginetest.Serve(t, New(Config{TLS: &tls.Config{Certificates: r.TLS.Certificates[:1], MinVersion: tls.VersionTLS12}}), lobby{enginetest.NewDoor(t, r.terms(), credential)}))
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
