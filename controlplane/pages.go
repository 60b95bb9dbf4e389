package controlplane

import (
	"net/http"
	"time"

	"github.com/posterngate/postern/controlplane/hook"
	"github.com/posterngate/postern/controlplane/identity"
	"github.com/posterngate/postern/controlplane/signin"
	"github.com/posterngate/postern/controlplane/web"
)

// pages are what is served beside the API, by path.
func (s *Server) pages(verifier *identity.Verifier) map[string]http.Handler {
	pages := web.New(web.Config{
		URL: s.cfg.URL, Login: verifier, Holds: s.approve, Store: s.store, Audit: s.audit,
		Policy: s.hub.Snapshot, Staleness: s.cache.Staleness, Now: time.Now, Logger: s.log,
	})
	out := map[string]http.Handler{signin.Path: s.signIn.Handler()}
	for _, path := range web.Paths() {
		out[path] = pages
	}
	hooks := hook.Config{Hooks: map[string]string{}, Secret: s.secrets.Fields, Grants: s.task, Store: s.store, Now: time.Now, Logger: s.log}
	for _, h := range s.cfg.Hooks {
		hooks.Hooks[h.Name] = h.Secret
	}
	out[hook.Path] = hook.New(hooks)
	return out
}
