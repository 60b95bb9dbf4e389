package approvals_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/e2e/fleet"
	"github.com/posterngate/postern/test/e2e/house"
)

const (
	slackToken   = "xoxb-a-token-of-a-bot"
	slackSigning = "what slack signs requests with"
)

// slack stands in for Slack: it keeps what it is told, and knows who its members are.
type slack struct {
	members map[string]string // e-mail address by id

	mu    sync.Mutex
	calls []call
}

type call struct {
	method string
	body   map[string]any
}

func (s *slack) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c := call{method: strings.TrimPrefix(r.URL.Path, "/api/")}
	if r.Header.Get("Authorization") != "Bearer "+slackToken || json.Unmarshal(body, &c.body) != nil {
		_, _ = io.WriteString(w, `{"ok":false,"error":"invalid_auth"}`)
		return
	}
	s.mu.Lock()
	s.calls = append(s.calls, c)
	n := len(s.calls)
	s.mu.Unlock()
	answer := map[string]any{"ok": true}
	switch c.method {
	case "chat.postMessage", "chat.update":
		answer["channel"], answer["ts"] = "C1", fmt.Sprint(n, ".1")
		if ts := c.body["ts"]; ts != nil {
			answer["ts"] = ts
		}
	case "users.info":
		id := r.URL.Query().Get("user")
		answer["user"] = map[string]any{"id": id, "team_id": "T1", "is_email_confirmed": true, "profile": map[string]any{"email": s.members[id]}}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// said is whatever a method was called with, as text.
func (s *slack) said(method string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, c := range s.calls {
		if c.method == method {
			text, _ := json.Marshal(c.body)
			out = append(out, string(text))
		}
	}
	return out
}

// button finds what the button for an action stands for, in the newest message that has
// a text in it.
func (s *slack) button(action, with string) (value string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range slices.Backward(s.calls) {
		if text, _ := json.Marshal(c.body); c.method != "chat.postMessage" || !strings.Contains(string(text), with) {
			continue
		}
		blocks, _ := c.body["blocks"].([]any)
		for _, b := range blocks {
			elements, _ := b.(map[string]any)["elements"].([]any)
			for _, e := range elements {
				if one, _ := e.(map[string]any); one["action_id"] == action {
					value, ok = one["value"].(string)
					return value, ok
				}
			}
		}
	}
	return "", false
}

// chat is the fleet and Slack beside it.
type chat struct {
	*fleet.Fleet
	slack *slack
	hc    *http.Client
}

// a request is one that Slack makes when somebody clicks.
type request struct{ body, at, signature string }

func click(user, action, value string) request {
	payload, _ := json.Marshal(map[string]any{
		"type": "block_actions", "team": map[string]any{"id": "T1"}, "user": map[string]any{"id": user, "team_id": "T1"}, "trigger_id": "t",
		"actions": []any{map[string]any{"action_id": action, "value": value}},
	})
	return signed(slackSigning, time.Now(), url.Values{"payload": {string(payload)}}.Encode())
}

func signed(key string, at time.Time, body string) request {
	r := request{body: body, at: strconv.FormatInt(at.Unix(), 10)}
	h := hmac.New(sha256.New, []byte(key))
	_, _ = io.WriteString(h, "v0:"+r.at+":"+body)
	r.signature = "v0=" + hex.EncodeToString(h.Sum(nil))
	return r
}

func (c *chat) send(t *testing.T, r request) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.Addr+"/channels/chat", strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("X-Slack-Request-Timestamp", r.at)
	req.Header.Set("X-Slack-Signature", r.signature)
	resp, err := c.hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// TestSlack: a statement in psql waits for a click in Slack, with the real binaries. What
// Slack did not sign just now and for the first time counts for nothing, nor what is
// clicked by who may not approve.
func TestSlack(t *testing.T) {
	s := &slack{members: map[string]string{"UALICE": "alice@sample.example", "UBOB": "bob@sample.example", "UCAROL": "carol@sample.example", "UEVE": "eve@elsewhere.example"}}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	f := fleet.Start(t, fleet.Options{
		Embedded: true, Sealed: true, Nodes: []fleet.NodeSpec{{Name: "n1", Region: "eu-1"}},
		Control: "channels: [{name: chat, secret: chat, slack: {channel: C1, team: T1, url: \"" + srv.URL + "/api\"}}]\n",
		World:   "apiVersion: postern/v1\nkind: Secret\nmetadata: {name: chat}\nspec: {data: {token: \"" + slackToken + "\", signingSecret: \"" + slackSigning + "\"}}\n",
	})
	c := &chat{f, s, f.HTTPClient(t)}
	for _, who := range []string{"alice", "bob", "carol"} {
		f.SignIn(t, who)
	}
	t.Run("who may not", c.mayNot)
	t.Run("the yes", c.yes)
	t.Run("the no", c.no)
	t.Run("others are asked", c.others)
}

// held runs a DELETE of alice's in psql, and returns once Slack shows it: what the button
// says, and how psql ends.
func (c *chat) held(t *testing.T, id int, action string) (value string, ended func() fleet.Result) {
	t.Helper()
	var r fleet.Result
	g := run.New(context.Background())
	text := fmt.Sprintf("DELETE FROM sales.orders WHERE id = %d", id)
	g.Go("psql", func(context.Context) error {
		r = c.Run(t, "alice", "psql", "purge-order", "--", "-XAtc", text)
		return nil
	})
	fleet.Eventually(t, time.Minute, "Slack shows "+text, func() error {
		v, ok := c.slack.button(action, text)
		if value = v; !ok {
			return fmt.Errorf("%.1000v", c.slack.said("chat.postMessage"))
		}
		return nil
	})
	return value, func() fleet.Result { _ = g.Wait(); return r }
}

func (c *chat) there(t *testing.T, id int) bool {
	t.Helper()
	return c.PG.SQLIn(t, "warehouse", fmt.Sprintf("SELECT count(*) FROM sales.orders WHERE id = %d", id))[0][0] == "1"
}

// mayNot: nothing of this runs the statement, and in the end its asker takes it back.
func (c *chat) mayNot(t *testing.T) {
	value, ended := c.held(t, 71, "approve")
	good := click("UBOB", "approve", value)
	forged := good
	forged.signature = "v0=" + strings.Repeat("0", 64)
	changed := good
	changed.body = strings.Replace(good.body, "UBOB", "UBOX", 1)
	late := signed(slackSigning, time.Now().Add(-10*time.Minute), good.body)
	early := signed(slackSigning, time.Now().Add(10*time.Minute), good.body)
	moved := good // the time is signed too
	moved.at = strconv.FormatInt(time.Now().Add(-30*time.Second).Unix(), 10)
	for what, r := range map[string]request{
		"forged": forged, "changed": changed, "ten minutes old": late, "to come": early, "another time": moved,
		"another key": signed("what somebody signs requests with", time.Now(), good.body), "unsigned": {body: good.body},
	} {
		if status := c.send(t, r); status != http.StatusUnauthorized {
			t.Errorf("%s: %d", what, status)
		}
	}
	for user, why := range map[string]string{
		"UALICE": "", "UCAROL": "", "UEVE": "you have not signed in within", "UNOBODY": "no confirmed e-mail address",
	} {
		before := len(c.slack.said("chat.postEphemeral"))
		if status := c.send(t, click(user, "approve", value)); status != http.StatusOK {
			t.Errorf("%s: %d", user, status)
		}
		told := c.slack.said("chat.postEphemeral")[before:]
		if len(told) != 1 || !strings.Contains(told[0], "It does not count") || !strings.Contains(told[0], why) || !strings.Contains(told[0], user) {
			t.Errorf("%s was told %v", user, told)
		}
	}
	other := strings.Replace(value, `"digest":"`, `"digest":"00`, 1) // of what nobody was shown
	if c.send(t, click("UBOB", "approve", other)); !strings.Contains(strings.Join(c.slack.said("chat.postEphemeral"), " "), "UBOB") {
		t.Error("a yes to something else counts")
	}
	if !c.there(t, 71) {
		t.Fatal("it ran")
	}
	c.Must(t, "alice", "withdraw", c.Hold(t, "bob", "purge-order"))
	if r := ended(); r.Code == 0 || !strings.Contains(r.Stderr, "withdrawn") || !c.there(t, 71) {
		t.Errorf("%+v", r)
	}
	if status := c.send(t, click("UBOB", "approve", value)); status != http.StatusOK || !c.there(t, 71) {
		t.Errorf("a yes to what was withdrawn: %d", status)
	}
}

// yes: the message shows who asks for what, a click runs it, once, and the message says so.
func (c *chat) yes(t *testing.T) {
	value, ended := c.held(t, 72, "approve")
	posted := c.slack.said("chat.postMessage")
	house.Has(t, posted[len(posted)-1], "*alice* asks for this statement under the task *purge-order*", "DELETE FROM sales.orders WHERE id = 72", "rows: about 1", "asks: leads", `"channel":"C1"`)
	good := click("UBOB", "approve", value)
	if status := c.send(t, good); status != http.StatusOK {
		t.Fatalf("the click: %d %v", status, c.slack.said("chat.postEphemeral"))
	}
	if r := ended(); r.Code != 0 || !strings.Contains(r.Stdout, "DELETE 1") || c.there(t, 72) {
		t.Fatalf("%+v", r)
	}
	if status := c.send(t, good); status != http.StatusConflict {
		t.Errorf("the same click once more: %d", status)
	}
	fleet.Eventually(t, time.Minute, "the message says what became of it", func() error {
		for _, text := range c.slack.said("chat.update") {
			if strings.Contains(text, "id = 72") && strings.Contains(text, "answer: bob: yes") && !strings.Contains(text, `"action_id":"approve"`) {
				return nil
			}
		}
		return fmt.Errorf("%.2000v", c.slack.said("chat.update"))
	})
	if r := c.Must(t, "ada", "audit", "log", "--format", "json"); !strings.Contains(r, "slack:T1/UBOB") {
		t.Error("the audit log does not say from where bob answered")
	}
}

// no: the button asks why, and the answer is what the client reads.
func (c *chat) no(t *testing.T) {
	value, ended := c.held(t, 73, "deny")
	if status := c.send(t, click("UBOB", "deny", value)); status != http.StatusOK || len(c.slack.said("views.open")) != 1 {
		t.Fatalf("the form: %d", status)
	}
	payload, _ := json.Marshal(map[string]any{
		"type": "view_submission", "team": map[string]any{"id": "T1"}, "user": map[string]any{"id": "UBOB", "team_id": "T1"},
		"view": map[string]any{"callback_id": "deny", "private_metadata": value, "state": map[string]any{"values": map[string]any{"reason": map[string]any{"reason": map[string]any{"value": "not today"}}}}},
	})
	if status := c.send(t, signed(slackSigning, time.Now(), url.Values{"payload": {string(payload)}}.Encode())); status != http.StatusOK {
		t.Fatalf("the no: %d", status)
	}
	if r := ended(); r.Code == 0 || !strings.Contains(r.Stderr, "refused by bob: not today") || !c.there(t, 73) {
		t.Errorf("%+v", r)
	}
}

// others: when the rule asks others while a statement waits, its message says so, they are told,
// and the click of those of before does not count any more.
func (c *chat) others(t *testing.T) {
	value, ended := c.held(t, 74, "approve")
	c.Apply(t, "apiVersion: postern/v1\nkind: ApprovalRule\nmetadata: {name: leads}\nspec: {all: [{group: security, atLeast: 1}]}\n")
	fleet.Eventually(t, time.Minute, "the message names whom the rule asks now", func() error {
		told := strings.Join(c.slack.said("chat.postMessage"), "\n")
		for _, text := range c.slack.said("chat.update") {
			if strings.Contains(text, "id = 74") && strings.Contains(text, "asks: security") && strings.Contains(told, "security: you are asked now, too") {
				return nil
			}
		}
		return fmt.Errorf("%.2000v", c.slack.said("chat.update"))
	})
	before := len(c.slack.said("chat.postEphemeral"))
	if status := c.send(t, click("UBOB", "approve", value)); status != http.StatusOK || len(c.slack.said("chat.postEphemeral")) != before+1 || !c.there(t, 74) {
		t.Errorf("a lead's yes: %d, %v", status, c.slack.said("chat.postEphemeral")[before:])
	}
	c.Must(t, "alice", "withdraw", c.Hold(t, "alice", "purge-order"))
	if r := ended(); r.Code == 0 || !c.there(t, 74) {
		t.Errorf("%+v", r)
	}
}
