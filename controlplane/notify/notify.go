// Package notify tells channels outside of Postern what waits for people, and takes the
// answers that come back from where people talk. It asks the same question of everybody
// who answers as the API does: an answer is worth what the approve package says.
package notify

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/hook"
	"github.com/posterngate/postern/controlplane/store"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/secret"
)

const (
	// toldKind is what a channel was told of a hold last: a told, by a hash of both.
	toldKind = "told"

	sendTimeout = 10 * time.Second
	// What fails is tried again after firstPause, twice as long each time, and never longer
	// than maxPause.
	firstPause = time.Second
	maxPause   = time.Minute
	// tick is how often a channel looks for what is left to tell where nothing happens.
	tick = time.Minute

	maxAnswerBytes = 64 << 10
)

// A Channel is where people are told. Exactly one of Webhook and Slack is set.
type Channel struct {
	Name    string
	Secret  string // the name of the Secret that it signs and signs in with
	Webhook *Webhook
	Slack   *Slack
}

// Holds are what is told of, and answered; *approve.Service is one.
type Holds interface {
	All() []*typesv1.Hold
	Changes() (<-chan struct{}, func())
	Ready() <-chan struct{}
	URL(id string) string
	History(ctx context.Context, h *typesv1.Hold) (*apiv1.HoldHistory, error)
	Review(ctx context.Context, by approve.Caller, id string, yes bool, reason string, digest []byte) (*typesv1.Hold, error)
}

// Config is what a Service needs; everything but Now is required.
type Config struct {
	Channels []Channel
	Holds    Holds
	Store    store.Store
	Secret   func(ctx context.Context, name string) (map[string]secret.Bytes, error)
	// Person finds who has signed in on the pages lately, by name or by e-mail address.
	Person func(ctx context.Context, name, email string) (postern.Subject, error)
	Now    func() time.Time // time.Now where nil
	Logger *slog.Logger
}

// Service tells channels. It is safe for concurrent use; of several replicas over one
// store one tells at a time, and each takes answers.
type Service struct {
	cfg    Config
	client *http.Client
	gate   *hook.Gate
}

// New makes a Service; it must Run to tell.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Service{cfg: cfg, client: client(nil), gate: hook.MessageGate()}
	for _, c := range cfg.Channels {
		if c.Webhook != nil {
			c.Webhook.client = client(c.Webhook.TLS)
		}
	}
	return s
}

func client(roots *tls.Config) *http.Client {
	return &http.Client{
		Timeout:   sendTimeout,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: roots, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("a channel must answer where it is, and redirects")
		},
	}
}

// told is what a channel knows of a hold.
type told struct {
	Event string   `json:"event"`
	Asks  []string `json:"asks,omitempty"` // the groups that may answer it, sorted; none once it is settled
	// Where it was told, as the channel names it.
	Place string `json:"place,omitempty"`
}

// event is what is to be told of a hold now: its state, and whether a further group is
// asked.
func event(h *typesv1.Hold) string {
	word := strings.ToLower(strings.TrimPrefix(h.GetState().String(), "HOLD_STATE_"))
	if approve.Waiting(h) {
		word = "asked"
		if h.GetEscalateTime() != nil && len(h.GetApproverGroups()) > 0 && h.GetApproverGroups()[len(h.GetApproverGroups())-1] == h.GetEscalateGroup() {
			word = "escalated"
		}
	}
	if n := len(h.GetApprovals()); n > 0 && approve.Waiting(h) {
		word = fmt.Sprintf("%s, answered %d", word, n)
	}
	return word
}

func toldKey(channel, hold string) store.Key {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%s", len(channel), channel, hold))
	return store.Key{Kind: toldKind, Name: hex.EncodeToString(sum[:])}
}

// Run tells every channel of what waits and of what became of it, each at least once,
// until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	if len(s.cfg.Channels) == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.cfg.Store.Lead(ctx, "notify", func(ctx context.Context, guard store.Op) error {
		var parts []run.Part
		for _, c := range s.cfg.Channels {
			parts = append(parts, run.Part{Name: "channel " + c.Name, Run: func(ctx context.Context) error { return s.serve(ctx, c, guard) }})
		}
		return run.All(ctx, parts...)
	})
}

// serve tells one channel. How holds stand is compared with what the channel was told, so
// that nothing is lost while it does not answer, or while nobody leads.
func (s *Service) serve(ctx context.Context, c Channel, guard store.Op) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.cfg.Holds.Ready():
	}
	changed, stop := s.cfg.Holds.Changes()
	defer stop()
	failing := map[string]*retry{}
	pause := time.Duration(0)
	for ctx.Err() == nil {
		wait, err := s.pass(ctx, c, guard, failing)
		switch {
		case err == nil:
			pause = 0
		case ctx.Err() == nil:
			pause = longer(pause)
			wait = pause
			s.cfg.Logger.WarnContext(ctx, "a channel was not told; trying again", "channel", c.Name, "after", pause, "error", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
	return ctx.Err()
}

// A retry is when a hold is told of again of which a channel did not take what it was told:
// others are told of meanwhile, for it may be the hold that the channel does not like.
type retry struct {
	pause time.Duration
	at    time.Time
}

func longer(pause time.Duration) time.Duration { return min(max(2*pause, firstPause), maxPause) }

// pass tells a channel what it does not know, and returns after how long to look again. Of what
// is settled it hears only where it had been asked. Those that have failed are told last.
func (s *Service) pass(ctx context.Context, c Channel, guard store.Op, failing map[string]*retry) (time.Duration, error) {
	holds := s.cfg.Holds.All()
	if c.Name == s.cfg.Channels[0].Name {
		if err := s.sweep(ctx, guard, holds); err != nil {
			return 0, err
		}
	}
	slices.SortFunc(holds, func(a, b *typesv1.Hold) int {
		return cmp.Compare(failing[a.GetId()].paused(), failing[b.GetId()].paused())
	})
	maps.DeleteFunc(failing, func(id string, _ *retry) bool {
		return !slices.ContainsFunc(holds, func(h *typesv1.Hold) bool { return h.GetId() == id })
	})
	wait := tick
	for _, h := range holds {
		r := failing[h.GetId()]
		if r != nil && s.cfg.Now().Before(r.at) {
			wait = min(wait, r.at.Sub(s.cfg.Now()))
			continue
		}
		sent, err := s.tell(ctx, c, h, guard)
		if err != nil {
			return 0, err
		}
		if sent == nil {
			delete(failing, h.GetId())
			continue
		}
		next := longer(r.paused())
		failing[h.GetId()], wait = &retry{next, s.cfg.Now().Add(next)}, min(wait, next)
		if ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "a channel was not told of a hold; trying again", "channel", c.Name, "hold", h.GetId(), "after", next, "error", sent)
		}
	}
	return wait, nil
}

func (r *retry) paused() time.Duration {
	if r == nil {
		return 0
	}
	return r.pause
}

// tell tells a channel how a hold stands, unless it knows; sent is why it did not take that.
func (s *Service) tell(ctx context.Context, c Channel, h *typesv1.Hold, guard store.Op) (sent, err error) {
	key := toldKey(c.Name, h.GetId())
	was, revision, err := s.was(ctx, key)
	if err != nil {
		return nil, err
	}
	now := told{Event: event(h)}
	if approve.Waiting(h) {
		now.Asks = slices.Sorted(slices.Values(h.GetApproverGroups()))
	}
	if was.Event == now.Event && slices.Equal(was.Asks, now.Asks) || was.Event == "" && !approve.Waiting(h) {
		return nil, nil
	}
	if now.Place, sent = s.send(ctx, c, h, now.Event, was, revision); sent != nil {
		return sent, nil
	}
	value, err := json.Marshal(now)
	if err != nil {
		return nil, err
	}
	_, err = s.cfg.Store.Commit(ctx, guard, store.Op{Key: key, Value: value, If: revision})
	return nil, err
}

// sweep forgets what channels know of holds that are forgotten.
func (s *Service) sweep(ctx context.Context, guard store.Op, holds []*typesv1.Hold) error {
	all, _, err := s.cfg.Store.List(ctx, toldKind, "", 0)
	if err != nil {
		return err
	}
	known := map[store.Key]bool{}
	for _, h := range holds {
		for _, c := range s.cfg.Channels {
			known[toldKey(c.Name, h.GetId())] = true
		}
	}
	for _, e := range all {
		if known[e.Key] {
			continue
		}
		if _, err := s.cfg.Store.Commit(ctx, guard, store.Op{Key: e.Key, Delete: true, If: e.Revision}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) was(ctx context.Context, key store.Key) (told, int64, error) {
	e, err := s.cfg.Store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return told{}, 0, nil
	}
	if err != nil {
		return told{}, 0, err
	}
	var t told
	if err := json.Unmarshal(e.Value, &t); err != nil {
		return told{}, 0, fmt.Errorf("read %s: %w", key, err)
	}
	return t, e.Revision, nil
}

// send tells a channel how h stands, and returns where: was is what it was told last, at a
// revision of the store.
func (s *Service) send(ctx context.Context, c Channel, h *typesv1.Hold, event string, was told, revision int64) (place string, err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	fields, err := s.cfg.Secret(ctx, c.Secret)
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", c.Secret, err)
	}
	if c.Slack != nil {
		return s.post(ctx, c.Slack, fields, h, was)
	}
	return "", s.webhook(ctx, c.Webhook, fields, h, event, revision)
}
