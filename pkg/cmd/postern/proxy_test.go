package main

import (
	"context"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/posterngate/postern/pkg/run"
)

// TestProxy: a control plane to which only a proxy leads is reached by it, and one on loopback,
// or one that NO_PROXY names, without.
func TestProxy(t *testing.T) {
	srv := httptest.NewUnstartedServer(fakeAPI())
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Value
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method + " " + r.Host)
		there, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer there.Close()
		w.WriteHeader(http.StatusOK)
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer here.Close()
		back := run.New(r.Context())
		back.Go("back", func(context.Context) error { _, _ = io.Copy(here, there); return nil })
		_, _ = io.Copy(there, here)
		there.Close()
		_ = back.Wait()
	}))
	t.Cleanup(proxy.Close)
	for _, c := range []struct {
		what, addr, name, asked string
	}{
		{"by a proxy", "https://example.com:8443", "HTTPS_PROXY", "CONNECT example.com:8443"},
		{"small letters", "https://example.com:8443", "https_proxy", "CONNECT example.com:8443"},
		{"loopback", srv.URL, "HTTPS_PROXY", ""},
	} {
		asked.Store("")
		env := map[string]string{"POSTERN_ADDR": c.addr, "POSTERN_CA": ca, "POSTERN_HOME": t.TempDir(), "POSTERN_TOKEN": "alice", c.name: proxy.URL}
		var out, stderr strings.Builder
		code := Main(t.Context(), []string{"whoami"}, Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &stderr, Getenv: func(name string) string { return env[name] }})
		if code != exitOK || asked.Load() != c.asked {
			t.Errorf("%s: %d, the proxy was asked %q: %s", c.what, code, asked.Load(), &stderr)
		}
	}
	direct := &app{env: Env{Getenv: func(name string) string {
		return map[string]string{"HTTPS_PROXY": proxy.URL, "NO_PROXY": "example.com"}[name]
	}}}
	if u, err := direct.proxy()(httptest.NewRequest(http.MethodPost, "https://postern.example.com/", nil)); u != nil || err != nil {
		t.Errorf("what NO_PROXY names goes by %v, %v", u, err)
	}
}
