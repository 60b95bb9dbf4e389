package notify

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/posterngate/postern/controlplane/approve"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/secret"
)

const (
	// DefaultSlackURL is where Slack's API is.
	DefaultSlackURL = "https://slack.com/api"

	// Fields of a Slack channel's Secret: the bot's token, and what signs requests of Slack.
	slackToken   = "token"
	slackSigning = "signingSecret"

	// maxShown is the longest text that is shown in Slack, and so can be answered there.
	maxShown = 2500
)

// Slack is a channel of a workspace. Its Secret has the fields token and signingSecret.
type Slack struct {
	URL     string            // of the API; DefaultSlackURL where empty
	Channel string            // the id of the channel
	Team    string            // the id of the workspace: nobody else answers
	People  map[string]string // subjects by ids of members, for whom the e-mail address does not do
}

// choice is what a button stands for: a hold, and what was shown of it.
type choice struct {
	Hold   string `json:"hold"`
	Digest string `json:"digest"`
}

type object = map[string]any

// post tells of a hold in a new message, or changes the one that told of it before. Slack
// tells nobody of a change, so those who are asked only now are told beneath it.
func (s *Service) post(ctx context.Context, c *Slack, fields map[string]secret.Bytes, h *typesv1.Hold, was told) (string, error) {
	blocks, err := s.blocks(ctx, h)
	if err != nil {
		return "", err
	}
	message := object{"channel": c.Channel, "blocks": blocks, "text": fmt.Sprintf("%s asks for %s: %s", escape(h.GetSubject()), h.GetTask(), approve.StateText(h)), "unfurl_links": false}
	method := "chat.postMessage"
	channel, ts, again := strings.Cut(was.Place, " ")
	if again {
		method, message["channel"], message["ts"] = "chat.update", channel, ts
	}
	var answer struct {
		Channel string `json:"channel"`
		TS      string `json:"ts"`
	}
	err = s.slack(ctx, c, fields, method, message, &answer)
	if errors.Is(err, errNoMessage) { // somebody has deleted it
		if !approve.Waiting(h) {
			return was.Place, nil
		}
		delete(message, "ts")
		message["channel"] = c.Channel
		again, err = false, s.slack(ctx, c, fields, "chat.postMessage", message, &answer)
	}
	if err != nil {
		return "", err
	}
	more := slices.DeleteFunc(slices.Clone(h.GetApproverGroups()), func(g string) bool { return slices.Contains(was.Asks, g) })
	if again && approve.Waiting(h) && len(more) > 0 {
		text := escape(strings.Join(more, " and ")) + ": you are asked now, too"
		if err := s.slack(ctx, c, fields, "chat.postMessage", object{"channel": channel, "thread_ts": ts, "reply_broadcast": true, "text": text}, nil); err != nil {
			return "", err
		}
	}
	return answer.Channel + " " + answer.TS, nil
}

// blocks show a hold, with buttons while it waits. What does not fit has none: nobody
// answers to what they were not shown.
func (s *Service) blocks(ctx context.Context, h *typesv1.Hold) ([]object, error) {
	past, err := s.cfg.Holds.History(ctx, h)
	if err != nil {
		return nil, err
	}
	asked := "the task for " + h.GetDuration()
	switch h.GetScope() {
	case "statement":
		asked = "this statement"
	case "session":
		asked = "a session on " + h.GetResource()
	}
	lines := []string{fmt.Sprintf("*%s* asks for %s under the task *%s*: *%s*", escape(h.GetSubject()), asked, h.GetTask(), approve.StateText(h))}
	add := func(name, value string) { // on one line: what people write cannot pass for a line of ours
		if value = strings.Join(strings.Fields(value), " "); value != "" {
			lines = append(lines, name+": "+escape(value))
		}
	}
	add("why", h.GetReason())
	add("on", h.GetResource())
	if h.EstimatedRows != nil {
		add("rows", "about "+strconv.FormatInt(h.GetEstimatedRows(), 10))
	}
	add("masked", strings.Join(h.GetMasked(), ", "))
	add("before", fmt.Sprintf("%d sessions with this task, %d statements, %d of them denied; asked %d times: %d yes, %d no",
		past.GetSessions(), past.GetStatements(), past.GetDenied(), past.GetAsked(), past.GetApproved(), past.GetRefused()))
	add("asks", strings.Join(h.GetApproverGroups(), " and "))
	for _, a := range h.GetApprovals() {
		word := "no"
		if a.GetApproved() {
			word = "yes"
		}
		add("answer", strings.TrimSpace(a.GetSubject()+": "+word+" "+a.GetReason()))
	}
	text := strings.Join(lines, "\n")
	statement := approve.Plain(h.GetStatement())
	for i, p := range h.GetParameters() {
		statement += "\n" + approve.Plain(approve.ParameterText(i, p))
	}
	whole := len(text) <= maxShown && len(statement) <= maxShown
	blocks := []object{{"type": "section", "text": object{"type": "mrkdwn", "text": cut(text)}}}
	if statement != "" {
		blocks = append(blocks, object{"type": "rich_text", "elements": []object{{"type": "rich_text_preformatted", "elements": []object{{"type": "text", "text": cut(statement)}}}}})
	}
	if !approve.Waiting(h) {
		return blocks, nil
	}
	link := object{"type": "button", "action_id": "look", "text": words("Look closer"), "url": s.cfg.Holds.URL(h.GetId())}
	if !whole {
		return append(blocks, object{"type": "section", "text": words("It is too long to be shown here.")}, object{"type": "actions", "elements": []object{link}}), nil
	}
	value, err := json.Marshal(choice{Hold: h.GetId(), Digest: hex.EncodeToString(h.GetDigest())})
	if err != nil {
		return nil, err
	}
	return append(blocks, object{"type": "actions", "elements": []object{
		{"type": "button", "action_id": "approve", "style": "primary", "text": words("Approve"), "value": string(value)},
		{"type": "button", "action_id": "deny", "style": "danger", "text": words("Deny"), "value": string(value)},
		link,
	}}), nil
}

func words(text string) object { return object{"type": "plain_text", "text": text} }

// escape keeps a text from being read as markup, and shows what cannot be seen.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "*", "∗", "_", "_\u2060", "`", "ˋ").Replace(approve.Plain(s))
}

func cut(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + " …"
}

// A slackError is what Slack says is wrong.
type slackError string

func (e slackError) Error() string { return string(e) }

const errNoMessage slackError = "message_not_found"

// slack calls a method of Slack's API.
func (s *Service) slack(ctx context.Context, c *Slack, fields map[string]secret.Bytes, method string, message, answer any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	base := c.URL
	if base == "" {
		base = DefaultSlackURL
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("Authorization", "Bearer "+string(fields[slackToken].Reveal()))
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("slack %s: %w", method, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return fmt.Errorf("slack %s: %w", method, err)
	}
	var ok struct {
		OK    bool   `json:"ok"`
		Error string `json:"error"`
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("slack %s: %s", method, resp.Status)
	}
	if err := json.Unmarshal(text, &ok); err != nil {
		return fmt.Errorf("slack %s: %w", method, err)
	}
	if !ok.OK {
		return fmt.Errorf("slack %s: %w", method, slackError(ok.Error))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}
