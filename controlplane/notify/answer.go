package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/hook"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

const (
	// Path is where Slack sends what people do; the name of a channel follows.
	Path = "/channels/"

	// seenKind tells which requests were taken, until they would be late anyway.
	seenKind = "slackseen"

	// answerTime is how long Slack waits.
	answerTime   = 3 * time.Second
	maxBodyBytes = 64 << 10
)

// interaction is what Slack tells of a click or a form, as far as it matters here.
type interaction struct {
	Type string `json:"type"`
	Team struct {
		ID string `json:"id"`
	} `json:"team"`
	User struct {
		ID     string `json:"id"`
		TeamID string `json:"team_id"`
	} `json:"user"`
	TriggerID string `json:"trigger_id"`
	Actions   []struct {
		ActionID string `json:"action_id"`
		Value    string `json:"value"`
	} `json:"actions"`
	View struct {
		CallbackID      string `json:"callback_id"`
		PrivateMetadata string `json:"private_metadata"`
		State           struct {
			Values map[string]map[string]struct {
				Value string `json:"value"`
			} `json:"values"`
		} `json:"state"`
	} `json:"view"`
}

// ServeHTTP takes what people do in Slack: POST Path/NAME.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "only POST", http.StatusMethodNotAllowed)
		return
	}
	if !s.gate.Allow(r, s.cfg.Now()) {
		http.Error(w, http.StatusText(http.StatusTooManyRequests), http.StatusTooManyRequests)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		http.Error(w, "too long, or broken off", http.StatusRequestEntityTooLarge)
		return
	}
	c, fields, status, err := s.trust(r, body)
	if err != nil {
		s.cfg.Logger.WarnContext(r.Context(), "an answer from a channel was refused", "path", r.URL.Path, "address", r.RemoteAddr, "error", err)
		http.Error(w, http.StatusText(status), status)
		return
	}
	in, err := parse(body)
	if err != nil {
		http.Error(w, "this is no interaction", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	if err := s.take(ctx, c, fields, in); err != nil {
		s.cfg.Logger.InfoContext(ctx, "an answer from a channel does not count", "channel", c.Name, "user", in.User.ID, "error", err)
		s.refuse(ctx, w, c, fields, in, err)
	}
}

// parse reads the body of a request of Slack's: a form whose field payload is JSON.
func parse(body []byte) (*interaction, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	in := &interaction{}
	return in, json.Unmarshal([]byte(form.Get("payload")), in)
}

// trust finds the channel of a request, and refuses one that Slack did not sign for it,
// just now, for the first time.
func (s *Service) trust(r *http.Request, body []byte) (*Channel, map[string]secret.Bytes, int, error) {
	name := strings.TrimPrefix(r.URL.Path, Path)
	i := slices.IndexFunc(s.cfg.Channels, func(c Channel) bool { return c.Name == name && c.Slack != nil })
	if i < 0 {
		return nil, nil, http.StatusUnauthorized, errors.New("there is no such channel")
	}
	c := &s.cfg.Channels[i]
	fields, err := s.cfg.Secret(r.Context(), c.Secret)
	if err != nil {
		return nil, nil, http.StatusServiceUnavailable, fmt.Errorf("secret %s: %w", c.Secret, err)
	}
	signature := r.Header.Get("X-Slack-Signature")
	if err := verifySlack(fields[slackSigning].Reveal(), signature, r.Header.Get("X-Slack-Request-Timestamp"), s.cfg.Now(), body); err != nil {
		return nil, nil, http.StatusUnauthorized, err
	}
	s.gate.Good(r)
	if err := s.once(r.Context(), signature); err != nil {
		return nil, nil, http.StatusConflict, err
	}
	return c, fields, http.StatusOK, nil
}

// verifySlack is Slack's v0: HMAC-SHA256 over "v0", the time and the body.
func verifySlack(key []byte, signature, at string, now time.Time, body []byte) error {
	forged := errors.New("the signature is not good")
	seconds, err := strconv.ParseInt(at, 10, 64)
	sum, herr := hex.DecodeString(strings.TrimPrefix(signature, "v0="))
	if err != nil || herr != nil || len(key) < hook.MinKeyBytes || !strings.HasPrefix(signature, "v0=") {
		return forged
	}
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte("v0:" + at + ":"))
	_, _ = h.Write(body)
	if !hmac.Equal(sum, h.Sum(nil)) {
		return forged
	}
	return hook.InTime(time.Unix(seconds, 0), now)
}

// once takes a request for the first time, and refuses it from then on.
func (s *Service) once(ctx context.Context, signature string) error {
	if err := hook.Sweep(ctx, s.cfg.Store, seenKind, s.cfg.Now()); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(strings.ToLower(signature)))
	_, err := s.cfg.Store.Commit(ctx, hook.Seen(seenKind, hex.EncodeToString(sum[:]), s.cfg.Now()))
	if store.IsConflict(err) {
		return errors.New("it was taken already")
	}
	return err
}

// take does what somebody in Slack wants done, as far as they may.
func (s *Service) take(ctx context.Context, c *Channel, fields map[string]secret.Bytes, in *interaction) error {
	switch {
	case in.Type == "block_actions" && len(in.Actions) == 1:
		switch a := in.Actions[0]; a.ActionID {
		case "look":
			return nil // the link is followed by the browser
		case "approve":
			return s.review(ctx, c, fields, in, a.Value, true, "")
		case "deny":
			if _, err := s.person(ctx, c, fields, in); err != nil {
				return err
			}
			return s.slack(ctx, c.Slack, fields, "views.open", object{"trigger_id": in.TriggerID, "view": object{
				"type": "modal", "callback_id": "deny", "private_metadata": a.Value, "title": words("Deny"), "submit": words("Deny"),
				"blocks": []object{{"type": "input", "block_id": "reason", "label": words("Why"), "element": object{"type": "plain_text_input", "action_id": "reason"}}},
			}}, nil)
		}
	case in.Type == "view_submission" && in.View.CallbackID == "deny":
		return s.review(ctx, c, fields, in, in.View.PrivateMetadata, false, in.View.State.Values["reason"]["reason"].Value)
	}
	return fault.New(codes.InvalidArgument, "this is not something to be done here")
}

// review answers as whoever clicked. The digest is that of what they were shown.
func (s *Service) review(ctx context.Context, c *Channel, fields map[string]secret.Bytes, in *interaction, value string, yes bool, reason string) error {
	var of choice
	digest := []byte(nil)
	err := json.Unmarshal([]byte(value), &of)
	if err == nil {
		digest, err = hex.DecodeString(of.Digest)
	}
	if err != nil || len(digest) == 0 {
		return fault.New(codes.InvalidArgument, "the button does not say what was shown")
	}
	sub, err := s.person(ctx, c, fields, in)
	if err != nil {
		return err
	}
	_, err = s.cfg.Holds.Review(ctx, approve.Caller{Subject: sub, Address: "slack:" + in.Team.ID + "/" + in.User.ID}, of.Hold, yes, reason, digest)
	return err
}

// person is who somebody in Slack is here: by the configured id, or by the e-mail address
// that Slack has confirmed. Their groups are those of their last sign-in.
func (s *Service) person(ctx context.Context, c *Channel, fields map[string]secret.Bytes, in *interaction) (postern.Subject, error) {
	no := func(format string, args ...any) (postern.Subject, error) {
		return postern.Subject{}, fault.New(codes.PermissionDenied, format, args...)
	}
	if in.User.ID == "" || c.Slack.Team == "" || in.Team.ID != c.Slack.Team || in.User.TeamID != "" && in.User.TeamID != c.Slack.Team {
		return no("only members of the workspace answer")
	}
	if name := c.Slack.People[in.User.ID]; name != "" {
		return s.cfg.Person(ctx, name, "")
	}
	var info struct {
		User struct {
			ID        string `json:"id"`
			TeamID    string `json:"team_id"`
			Deleted   bool   `json:"deleted"`
			Bot       bool   `json:"is_bot"`
			Guest     bool   `json:"is_restricted"`
			Stranger  bool   `json:"is_stranger"`
			Confirmed bool   `json:"is_email_confirmed"`
			Profile   struct {
				Email string `json:"email"`
			} `json:"profile"`
		} `json:"user"`
	}
	if err := s.slack(ctx, c.Slack, fields, "users.info?user="+url.QueryEscape(in.User.ID), object{}, &info); err != nil {
		return postern.Subject{}, fault.Wrap(err, codes.Unavailable, "Slack does not say who you are; try again")
	}
	u := info.User
	if u.ID != in.User.ID || u.TeamID != c.Slack.Team || u.Deleted || u.Bot || u.Guest || u.Stranger {
		return no("only members of the workspace answer")
	}
	if !u.Confirmed || u.Profile.Email == "" {
		return no("Slack has no confirmed e-mail address of yours")
	}
	return s.cfg.Person(ctx, "", u.Profile.Email)
}

// refuse tells whoever clicked why it does not count, also where the time for it was too short.
func (s *Service) refuse(ctx context.Context, w http.ResponseWriter, c *Channel, fields map[string]secret.Bytes, in *interaction, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer cancel()
	text := "It does not count: " + fault.From(err).Reason
	if fault.CodeOf(err) == codes.Internal || fault.CodeOf(err) == codes.Unknown {
		text = "It does not count: something went wrong; the operators find it in the log"
		s.cfg.Logger.ErrorContext(ctx, "an answer from a channel failed", "channel", c.Name, "error", err)
	}
	if in.Type == "view_submission" {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(object{"response_action": "errors", "errors": object{"reason": text}})
		return
	}
	if err := s.slack(ctx, c.Slack, fields, "chat.postEphemeral", object{"channel": c.Slack.Channel, "user": in.User.ID, "text": escape(text)}, nil); err != nil {
		s.cfg.Logger.WarnContext(ctx, "somebody was not told why their answer does not count", "channel", c.Name, "error", err)
	}
}
