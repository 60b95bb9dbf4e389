package vault_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/credential/vault"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/wait"
)

// hanging is a Vault that gives tokens and time, and answers nothing at one path: whether it
// was asked there, and whether who asked has given up.
func hanging(t *testing.T, path string) (src *vault.Source, asked, left *atomic.Bool) {
	t.Helper()
	asked, left = &atomic.Bool{}, &atomic.Bool{}
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, path):
			asked.Store(true)
			select {
			case <-release:
			case <-r.Context().Done():
				left.Store(true)
			}
		case strings.HasSuffix(r.URL.Path, "/auth/token/lookup-self"):
			_, _ = io.WriteString(w, `{"data":{"ttl":1,"renewable":true}}`)
		default:
			_, _ = io.WriteString(w, `{"lease_id":"l","lease_duration":60}`)
		}
	}))
	t.Cleanup(func() { close(release); srv.Close() })
	now := time.Now() // stands still, so that the token lives
	src, err := vault.New(vault.Config{Address: srv.URL, TokenFile: writeFile(t, "root"), Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
	check(t, err)
	return src, asked, left
}

var lent = []byte(`{"accessor":"a","lease":"l","tokenEnd":"2100-01-01T00:00:00Z"}`)

// TestALoginThatHangs holds up nobody for longer than they have time.
func TestALoginThatHangs(t *testing.T) {
	src, asked, left := hanging(t, "/auth/token/lookup-self")
	g := run.New(t.Context())
	g.Go("logs in", func(ctx context.Context) error {
		_, _ = src.Renew(ctx, lent, time.Now().Add(time.Hour))
		return nil
	})
	wait.For(t, "it logs in", asked.Load)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := src.Renew(ctx, lent, time.Now().Add(time.Hour)); err == nil || left.Load() {
		t.Errorf("who has no time left waited for the login: %v", err)
	}
	g.Stop()
	check(t, g.Wait())
}

// TestARenewalThatHangs holds up nobody: the token is good until it ends.
func TestARenewalThatHangs(t *testing.T) {
	src, asked, left := hanging(t, "/auth/token/renew-self")
	g := run.New(t.Context())
	g.Go("keeps the login", func(ctx context.Context) error {
		_ = src.Run(ctx)
		return nil
	})
	wait.For(t, "the login is renewed", asked.Load)
	if _, err := src.Renew(t.Context(), lent, time.Now().Add(time.Hour)); err != nil || left.Load() {
		t.Errorf("a lease waited for the login's renewal: %v", err)
	}
	g.Stop()
	check(t, g.Wait())
}
