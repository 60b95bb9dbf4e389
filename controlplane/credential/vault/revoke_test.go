package vault_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/posterngate/postern/controlplane/credential/vault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/wait"
)

// unfound is a proxy before Vault that finds nothing while it is astray.
type unfound struct {
	astray  atomic.Bool
	revoked atomic.Int64 // how many revocations it has not found
}

func (u *unfound) before(t *testing.T, h *house) (address string) {
	t.Helper()
	ca, err := os.ReadFile(h.vault.CAFile)
	check(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	to, err := url.Parse(h.vault.Addr)
	check(t, err)
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !u.astray.Load() {
			proxy.ServeHTTP(w, r)
			return
		}
		if strings.Contains(r.URL.Path, "/revoke") {
			u.revoked.Add(1)
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// What a proxy does not find is revoked once Vault is asked.
func unfoundIsNotRevoked(t *testing.T, h *house) {
	u := &unfound{}
	cfg := h.config()
	cfg.Address, cfg.CA = u.before(t, h), ""
	b := h.broker(h.source(cfg), nil)
	resp, err := b.Lease(t.Context(), h.node(), ask("s-unfound", "reader"))
	check(t, err)
	c := h.open("s-unfound", resp)

	u.astray.Store(true)
	_, _ = b.Release(t.Context(), "node-1", &nodev1.ReleaseRequest{Lease: resp.GetLease()})
	if err := h.login(c); err != nil || u.revoked.Load() != 2 {
		t.Errorf("%d revocations were not found; login: %v", u.revoked.Load(), err)
	}

	u.astray.Store(false)
	g := run.New(t.Context())
	g.Go("sweep", b.Run)
	defer func() {
		g.Stop()
		_ = g.Wait()
	}()
	wait.For(t, "the user is revoked", func() bool { return h.login(c) != nil })
}

// TestGoneBySomebodysWord: what says that there is nothing left to revoke must be Vault, and mean
// what was to be revoked.
func TestGoneBySomebodysWord(t *testing.T) {
	const (
		handle  = `{"accessor":"a"}`
		withOne = `{"accessor":"a","lease":"database/creds/reader/x"}`
	)
	for name, c := range map[string]struct {
		status         int
		answer, handle string
		gone           bool
	}{
		"done":                         {204, "", withOne, true},
		"done before":                  {200, `{"warnings":["No token found with this accessor"]}`, handle, true},
		"done before, by an old Vault": {400, `{"errors":["1 error occurred:\n\t* invalid accessor\n\n"]}`, handle, true},
		"nothing found":                {404, "", handle, false},
		"nothing found by a proxy":     {404, "<p>not found", withOne, false},
		"no such path":                 {404, `{"errors":["no handler for route \"auth/token/revoke-accessor\". route entry not found."]}`, withOne, false},
		"no such path, in few words":   {404, `{"errors":[]}`, withOne, false},
		"no such namespace":            {404, `{"errors":["invalid accessor"],"data":{"a":1}}`, handle, false},
		"another page":                 {200, "<p>sign in", handle, false},
		"out of order":                 {500, `{"errors":["invalid accessor"]}`, handle, false},
		"not allowed":                  {403, `{"errors":["permission denied"]}`, withOne, false},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/auth/token/lookup-self") {
					_, _ = io.WriteString(w, `{"data":{"ttl":3600,"renewable":false}}`)
					return
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.answer)
			}))
			defer srv.Close()
			src, err := vault.New(vault.Config{Address: srv.URL, TokenFile: writeFile(t, "root"), Logger: slog.New(slog.DiscardHandler)})
			check(t, err)
			if err := src.Revoke(t.Context(), []byte(c.handle)); (err == nil) != c.gone {
				t.Errorf("revoked: %v", err)
			}
		})
	}
}
