package config

import (
	"fmt"
	"net/url"
	"slices"

	"github.com/posterngate/postern/pkg/conf"
	"github.com/posterngate/postern/pkg/object"
)

// Channel is where people are told what waits for them. Exactly one of webhook and slack
// is set.
type Channel struct {
	// Name of the channel.
	Name string `json:"name"`
	// Secret is the name of the Secret that the channel uses: with the field "value", of at
	// least 16 bytes, for a webhook, and with "token" and "signingSecret" for Slack.
	Secret string `json:"secret"`
	// Webhook is an address that gets a signed message for each change, one after the other.
	// What is answered too late is sent again as it is by then; "time" says which is newer.
	Webhook *Webhook `json:"webhook"`
	// Slack is a channel of a workspace, in which people can also answer: their app's
	// request URL is URL/channels/NAME. Who answers there must have signed in on the pages
	// within 12 hours, and not out since.
	Slack *Slack `json:"slack"`
}

// Webhook is an address.
type Webhook struct {
	// URL of https, or of http on loopback.
	URL string `json:"url"`
	// CA is a PEM file that signs the address's certificate; the system's where empty.
	CA string `json:"ca"`
}

// Slack says where in Slack.
type Slack struct {
	// Channel is its id, such as C0123456789.
	Channel string `json:"channel"`
	// Team is the id of the workspace, such as T0123456789: only its members answer.
	Team string `json:"team"`
	// URL of the API; https://slack.com/api where empty.
	URL string `json:"url"`
	// People are subjects by the ids of members, for those whom their e-mail address does
	// not tell.
	People map[string]string `json:"people"`
}

// Hook is one sender of webhooks.
type Hook struct {
	// Name by which Bindings call it.
	Name string `json:"name"`
	// Secret is the name of the Secret whose field "value", of at least 16 bytes, signs.
	Secret string `json:"secret"`
}

func checkHooks(hooks []Hook) error {
	for i, h := range hooks {
		if object.CheckName(h.Name) != nil || h.Secret == "" || slices.ContainsFunc(hooks[:i], func(o Hook) bool { return o.Name == h.Name }) {
			return fmt.Errorf("hooks[%d]: each has a name of its own and a secret", i)
		}
	}
	return nil
}

func checkChannels(channels []Channel) error {
	for i, c := range channels {
		switch {
		case object.CheckName(c.Name) != nil || c.Secret == "" || slices.ContainsFunc(channels[:i], func(o Channel) bool { return o.Name == c.Name }):
			return fmt.Errorf("channels[%d]: each has a name of its own and a secret", i)
		case (c.Webhook == nil) == (c.Slack == nil):
			return fmt.Errorf("channels[%d]: exactly one of webhook and slack", i)
		case c.Webhook != nil && !sendable(c.Webhook.URL):
			return fmt.Errorf("channels[%d].webhook.url: %q is not a URL of https", i, c.Webhook.URL)
		case c.Slack != nil && (c.Slack.Channel == "" || c.Slack.Team == ""):
			return fmt.Errorf("channels[%d].slack: channel and team are required", i)
		case c.Slack != nil && c.Slack.URL != "" && !sendable(c.Slack.URL):
			return fmt.Errorf("channels[%d].slack.url: %q is not a URL of https", i, c.Slack.URL)
		}
	}
	return nil
}

// sendable lets https through, and plain http on loopback.
func sendable(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && conf.Loopback(u.Hostname())
}
