package controlplane

import (
	"fmt"
	"net/http"
	"time"

	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/controlplane/hook"
	"github.com/posterngate/postern/controlplane/identity"
	"github.com/posterngate/postern/controlplane/notify"
	"github.com/posterngate/postern/controlplane/signin"
	"github.com/posterngate/postern/controlplane/vouch"
	"github.com/posterngate/postern/controlplane/web"
)

// pages are what is served beside the API, by path.
func (s *Server) pages(verifier *identity.Verifier) (map[string]http.Handler, error) {
	pages := web.New(web.Config{
		URL: s.cfg.URL, Login: verifier, Holds: s.approve, Enter: s.entrance.Enter, Store: s.store, Audit: s.audit,
		Policy: s.hub.Snapshot, Staleness: s.cache.Staleness, Now: time.Now, Logger: s.log,
	})
	out := map[string]http.Handler{signin.Path: s.signIn.Handler(), vouch.Path: s.vouch}
	for _, path := range web.Paths() {
		out[path] = pages
	}
	hooks := hook.Config{Hooks: map[string]string{}, Secret: s.secrets.Fields, Grants: s.task, Store: s.store, Now: time.Now, Logger: s.log}
	for _, h := range s.cfg.Hooks {
		hooks.Hooks[h.Name] = h.Secret
	}
	out[hook.Path] = hook.New(hooks)
	channels, err := channels(s.cfg.Channels)
	if err != nil {
		return nil, err
	}
	s.notify = notify.New(notify.Config{
		Channels: channels, Holds: s.approve, Store: s.store, Secret: s.secrets.Fields, Person: pages.Person, Now: time.Now, Logger: s.log,
	})
	out[notify.Path] = s.notify
	return out, nil
}

func channels(configured []config.Channel) ([]notify.Channel, error) {
	var out []notify.Channel
	for _, c := range configured {
		one := notify.Channel{Name: c.Name, Secret: c.Secret}
		if c.Slack != nil {
			one.Slack = &notify.Slack{URL: c.Slack.URL, Channel: c.Slack.Channel, Team: c.Slack.Team, People: c.Slack.People}
		}
		if c.Webhook != nil {
			one.Webhook = &notify.Webhook{URL: c.Webhook.URL}
			if c.Webhook.CA != "" {
				roots, err := clientTLS(c.Webhook.CA, "", "")
				if err != nil {
					return nil, fmt.Errorf("channel %s: %w", c.Name, err)
				}
				one.Webhook.TLS = roots
			}
		}
		out = append(out, one)
	}
	return out, nil
}
