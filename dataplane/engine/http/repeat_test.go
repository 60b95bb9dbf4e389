package http

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/secret"
)

// newPlain is a house before a resource that speaks HTTP/1.1 without TLS.
func newPlain(t *testing.T, terms engine.HTTPTerms, lent func() string, answer http.HandlerFunc) *house {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	all := engine.Terms{Task: "t", Resource: "target", Subject: "alice", Host: "127.0.0.1", HTTP: terms, TLS: engine.TLSTerms{Mode: "disable"}}
	if _, err := fmt.Sscanf(server.URL, "http://127.0.0.1:%d", &all.Port); err != nil {
		t.Fatal(err)
	}
	door := enginetest.NewDoor(t, all, func(engine.Purpose) engine.Credential { return engine.Credential{Password: secret.FromString(lent())} })
	return &house{door: door, addr: enginetest.Serve(t, New(Config{AllowPlaintext: true}), bareDoor{door})}
}

// TestAnswersThatRepeat: an answer with the head of the one before is passed on as that was,
// whoever asks and how, and what differs is not.
func TestAnswersThatRepeat(t *testing.T) {
	var lent atomic.Value
	lent.Store("first-secret")
	h := newPlain(t, engine.HTTPTerms{Authority: "orders.internal", Auth: "bearer"}, func() string { return lent.Load().(string) }, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Date", "Thu, 26 Nov 2026 12:00:00 GMT")
		h.Set("Location", "http://orders.internal/next")
		h.Add("Set-Cookie", "a=1; Domain=orders.internal; Path=/")
		h.Set("Postern-Code", "denied")
		h.Set("X-Note", strings.TrimPrefix(r.URL.Path, "/"))
		h.Set("Content-Length", "5")
		_, _ = io.WriteString(w, "small")
	})
	ask := func(method, path string, minor int) string {
		t.Helper()
		c := dialRaw(t, h.addr) // another connection, and the same one to the resource
		defer func() { _ = c.Close() }()
		_, _ = fmt.Fprintf(c, "%s %s HTTP/1.%d\r\nHost: x\r\nPostern-Task: t.target\r\nAuthorization: Bearer %s\r\n\r\n", method, path, minor, enginetest.Token)
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := httputil.DumpResponse(resp, true)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := ask("GET", "/one", 1)
	if strings.Contains(first, "internal") || strings.Contains(first, "Postern-Code") || !strings.Contains(first, "Location: /next\r\n") || !strings.HasSuffix(first, "\r\n\r\nsmall") {
		t.Fatalf("%s", first)
	}
	for range 3 {
		if got := ask("GET", "/one", 1); got != first {
			t.Errorf("then %q, at first %q", got, first)
		}
	}
	if got := ask("HEAD", "/one", 1); got != strings.TrimSuffix(first, "small") {
		t.Errorf("HEAD: %q", got)
	}
	if got := ask("GET", "/one", 0); !strings.Contains(got, "Connection: close\r\n") || !strings.HasSuffix(got, "\r\n\r\nsmall") {
		t.Errorf("HTTP/1.0: %q", got)
	}
	if got := ask("GET", "/other-secret", 1); !strings.Contains(got, "X-Note: other-secret\r\n") {
		t.Errorf("another answer: %q", got)
	}
	all := h.door.Last().Executions()
	for i, e := range all[1:4] {
		if e.Chunks != all[0].Chunks || e.Outcome.Tag != "200 OK" {
			t.Errorf("execution %d: %d bytes are recorded, of the first %d", i+1, e.Chunks, all[0].Chunks)
		}
	}
	// What was passed on before may be a secret now.
	lent.Store("other-secret")
	if got := ask("GET", "/other-secret", 1); strings.Contains(got, "X-Note") || !strings.HasPrefix(got, "HTTP/1.1 503 ") {
		t.Errorf("the credential was handed on: %q", got)
	}
}

// TestRequestsThatRepeat: the resource gets of each request what that said, and of one that
// says the same as the one before the same, also under a policy that has judged it anew.
func TestRequestsThatRepeat(t *testing.T) {
	h := newPlain(t, engine.HTTPTerms{Authority: "orders.internal", Auth: "none"}, func() string { return "" }, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s %s %q %q", r.Method, r.Host, r.RequestURI, r.Header["X-Note"], r.Header["Authorization"])
	})
	c := dialRaw(t, h.addr)
	defer func() { _ = c.Close() }()
	br := bufio.NewReader(c)
	ask := func(method, path, note string) {
		t.Helper()
		_, _ = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nPostern-Task: t.target\r\nX-Note: %s\r\nAuthorization: Bearer %s\r\n\r\n", method, path, note, enginetest.Token)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != fmt.Sprintf("%s orders.internal %s %q []", method, path, []string{note}) {
			t.Errorf("%s %s with %q: the resource got %q (%v)", method, path, note, got, err)
		}
	}
	for range 2 {
		for range 3 {
			ask("GET", "/a?b=1", "one")
		}
		ask("GET", "/c", "one")
		ask("POST", "/c", "one")
		ask("GET", "/a?b=1", "one")
		ask("GET", "/a?b=1", "two")
		ask("GET", "/a?b=1", "one")
		h.door.Set(func(p *enginetest.Policy) { p.Version++ })
		ask("GET", "/a?b=1", "one")
	}
}
