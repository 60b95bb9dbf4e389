package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/hook"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/test/wait"
)

const world = `
kind: Resource
metadata: {name: warehouse}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: warehouse, tls: {mode: disable}}, credential: {sealed: rw}, catalog: {sealed: rw}}
---
kind: Task
metadata: {name: purge-order}
spec: {purpose: purge, resources: {names: [warehouse]}, permit: [{table: sales.orders, verbs: [delete], columns: [id], requireWhere: true}], duration: 1h}
---
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}]}
`

const signing = "slack signs with this"

// outside is what channels reach: an address for webhooks, and a stand-in that speaks
// Slack's API.
type outside struct {
	mu     sync.Mutex
	hooks  []hooked
	calls  []call
	failed int // how many webhooks are still to be refused
	gone   int // so many messages are not there any more
	users  map[string]any
}

type hooked struct {
	id, signature string
	body          []byte
}

type call struct {
	method string
	body   map[string]any
}

func (o *outside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.URL.Path == "/hook" {
		if o.failed > 0 {
			o.failed--
			http.Error(w, "not now", http.StatusBadGateway)
			return
		}
		o.hooks = append(o.hooks, hooked{r.Header.Get("Idempotency-Key"), r.Header.Get(hook.Header), body})
		return
	}
	method := strings.TrimPrefix(r.URL.Path, "/api/")
	c := call{method: method}
	_ = json.Unmarshal(body, &c.body)
	if r.Header.Get("Authorization") != "Bearer xoxb-token" {
		_, _ = io.WriteString(w, `{"ok":false,"error":"invalid_auth"}`)
		return
	}
	o.calls = append(o.calls, c)
	switch method {
	case "users.info":
		_ = json.NewEncoder(w).Encode(map[string]any{"ok": true, "user": o.users[r.URL.Query().Get("user")]})
	case "chat.postMessage", "chat.update":
		if method == "chat.update" && o.gone > 0 {
			o.gone--
			_, _ = io.WriteString(w, `{"ok":false,"error":"message_not_found"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"ok": true, "channel": "C1", "ts": fmt.Sprintf("%d.1", len(o.calls))})
	default:
		_, _ = io.WriteString(w, `{"ok":true}`)
	}
}

func (o *outside) delete() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gone++
}

func (o *outside) called(method string) []call {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(o.calls), func(c call) bool { return c.method != method })
}

func (o *outside) told() []hooked {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.hooks)
}

type fixture struct {
	t        *testing.T
	out      *outside
	holds    *approve.Service
	svc      *Service
	store    *storetest.Memory
	snapshot atomic.Pointer[policy.Snapshot]
	changed  chan struct{}
	stop     func() // what start began
}

func newFixture(t *testing.T, kinds ...string) *fixture {
	out := &outside{users: map[string]any{}}
	srv := httptest.NewServer(out)
	t.Cleanup(srv.Close)
	return newFixtureAt(t, srv.URL, out, kinds...)
}

// newFixtureAt is newFixture where the outside is at a URL.
func newFixtureAt(t *testing.T, at string, out *outside, kinds ...string) *fixture {
	f := &fixture{t: t, store: storetest.NewMemory(), out: out, changed: make(chan struct{}, 1)}
	f.snapshot.Store(policytest.Compile(t, world))
	logger := slog.New(slog.DiscardHandler)
	f.holds = approve.New(approve.Config{Store: f.store, Snapshot: f.snapshot.Load, Changed: func() (<-chan struct{}, func()) { return f.changed, func() {} }, Audit: audit.New(f.store, time.Now), URL: func(id string) string { return "https://control/approvals/" + id }, Logger: logger})
	grant, err := proto.Marshal(&typesv1.Grant{
		Id: "g-1", Subject: &typesv1.Subject{Name: "alice", Email: "alice@example.com"}, Task: "purge-order", State: typesv1.GrantState_GRANT_STATE_ACTIVE,
		EndTime: timestamppb.New(time.Now().Add(time.Hour)), Reason: "<!channel> *look*\nmasked: everything",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.store.Commit(t.Context(), store.Op{Key: store.Key{Kind: "grant", Name: "g-1"}, Value: grant}); err != nil {
		t.Fatal(err)
	}
	channels := map[string]Channel{
		"webhook": {Name: "siem", Secret: "siem", Webhook: &Webhook{URL: at + "/hook"}},
		"slack":   {Name: "chat", Secret: "chat", Slack: &Slack{URL: at + "/api", Channel: "C1", Team: "T1", People: map[string]string{"U-bob": "bob", "U-alice": "alice"}}},
	}
	cfg := Config{
		Holds: f.holds, Store: f.store, Logger: logger,
		Secret: func(_ context.Context, name string) (map[string]secret.Bytes, error) {
			return map[string]secret.Bytes{"value": secret.FromString("0123456789abcdef"), "token": secret.FromString("xoxb-token"), "signingSecret": secret.FromString(signing)}, nil
		},
		Person: func(_ context.Context, name, email string) (postern.Subject, error) {
			for _, sub := range []postern.Subject{
				{Name: "bob", Email: "bob@example.com", Groups: []string{"leads"}}, {Name: "alice", Email: "alice@example.com", Groups: []string{"leads"}}, {Name: "eve", Email: "eve@example.com"},
			} {
				if name != "" && sub.Name == name || email != "" && sub.Email == email {
					return sub, nil
				}
			}
			return postern.Subject{}, fault.New(codes.Unauthenticated, "you have not signed in")
		},
	}
	for _, k := range kinds {
		cfg.Channels = append(cfg.Channels, channels[k])
	}
	f.svc = New(cfg)
	return f
}

func (f *fixture) start() {
	ctx, cancel := context.WithCancel(f.t.Context())
	g := run.New(ctx)
	g.Go("holds", f.holds.Run)
	g.Go("notify", f.svc.Run)
	f.stop = func() { cancel(); _ = g.Wait() }
	f.t.Cleanup(f.stop)
}

// ask changes the groups of the rule.
func (f *fixture) ask(groups ...string) {
	f.t.Helper()
	var all []string
	for _, g := range groups {
		all = append(all, "{group: "+g+", atLeast: 1}")
	}
	f.snapshot.Store(policytest.Compile(f.t, strings.Replace(world, "{group: leads, atLeast: 1}", strings.Join(all, ", "), 1)))
	f.changed <- struct{}{}
}

func (f *fixture) hold(statement string) *typesv1.Hold {
	f.t.Helper()
	h, err := f.holds.OpenHold(f.t.Context(), "n1", &nodev1.OpenHoldRequest{Scope: "statement", Grant: "g-1", Resource: "warehouse", Session: "s", Statement: statement, Rule: "leads"})
	if err != nil {
		f.t.Fatal(err)
	}
	return h
}

func (f *fixture) state(id string) string {
	f.t.Helper()
	h, err := f.holds.Get(f.t.Context(), approve.Caller{Subject: postern.Subject{Name: "alice"}}, id)
	if err != nil {
		f.t.Fatal(err)
	}
	return approve.StateText(h)
}

// TestWebhook: each change is told, signed, and again until it arrives.
func TestWebhook(t *testing.T) {
	f := newFixture(t, "webhook")
	f.out.failed = 1
	f.start()
	h := f.hold("DELETE 1")
	wait.For(t, "the asking is told", func() bool { return len(f.out.told()) == 1 })
	if _, err := f.holds.Review(t.Context(), approve.Caller{Subject: postern.Subject{Name: "bob", Groups: []string{"leads"}}}, h.GetId(), true, "", nil); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "the yes is told", func() bool { return len(f.out.told()) == 2 })
	for i, word := range []string{"asked", "approved"} {
		got := f.out.told()[i]
		if !strings.HasPrefix(got.id, h.GetId()+"/"+word+"/") {
			t.Errorf("told %q", got.id)
		}
		if _, err := hook.Verify([]byte("0123456789abcdef"), got.signature, time.Now(), got.body); err != nil {
			t.Errorf("%s: %v", word, err)
		}
		var m struct {
			ID, Event, URL string
			Hold           struct{ Statement, Subject string }
		}
		if err := json.Unmarshal(got.body, &m); err != nil || m.ID != got.id || m.Event != word || m.Hold.Statement != "DELETE 1" || m.Hold.Subject != "alice" || m.URL != "https://control/approvals/"+h.GetId() {
			t.Errorf("%s: %v", got.body, err)
		}
	}
}

// TestOneThatIsRefused: a hold that a channel never takes holds up no other one.
func TestOneThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixtureAt(t, "https://siem", nil, "webhook")
		var told, tries atomic.Int32
		f.svc.cfg.Channels[0].Webhook.client.Transport = roundTrip(func(r *http.Request) int {
			body, _ := io.ReadAll(r.Body)
			if strings.Contains(string(body), "DELETE 1") {
				tries.Add(1)
				return http.StatusRequestEntityTooLarge
			}
			told.Add(1)
			return http.StatusOK
		})
		f.start()
		f.hold("DELETE 1")
		time.Sleep(10 * time.Minute) // by now it is tried each minute
		before := tries.Load()
		f.hold("DELETE 2")
		synctest.Wait()
		if told.Load() != 1 {
			t.Error("another one waits for the one that is refused")
		}
		if tries.Load() != before {
			t.Error("what is refused is told again with each change")
		}
		time.Sleep(5 * time.Minute)
		if n := tries.Load() - before; n < 4 || n > 6 || told.Load() != 1 {
			t.Errorf("in five minutes the one was tried %d times, the other told %d times", n, told.Load())
		}
		f.stop()
	})
}

type roundTrip func(*http.Request) int

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) {
	status := f(r)
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: http.NoBody, Request: r}, nil
}

// TestSlackIsSlow: who clicks while Slack takes its time to say who they are is told that it does
// not count.
func TestSlackIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixtureAt(t, "https://slack", nil, "slack")
		told := make(chan string, 1)
		f.svc.client.Transport = slow(func(r *http.Request) {
			if strings.Contains(r.URL.Path, "chat.postEphemeral") {
				body, _ := io.ReadAll(r.Body)
				told <- string(body)
			}
		})
		h := f.hold("DELETE 1")
		f.interact(click("U-x", "T1", "approve", h, h.GetDigest()), time.Now(), nil)
		select {
		case text := <-told:
			if !strings.Contains(text, "It does not count") {
				t.Errorf("they are told %s", text)
			}
		default:
			t.Error("they are told nothing")
		}
	})
}

// slow takes five seconds to say who somebody is.
type slow func(*http.Request)

func (f slow) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, "users.info") {
		select {
		case <-time.After(5 * time.Second):
		case <-r.Context().Done():
		}
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	f(r)
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(`{"ok":true}`)), Request: r}, nil
}

// TestSlackMessageIsDeleted: a message that somebody has deleted is posted anew while there is
// something to answer, and is no trouble afterwards.
func TestSlackMessageIsDeleted(t *testing.T) {
	f := newFixture(t, "slack")
	f.start()
	f.hold("DELETE 1")
	wait.For(t, "the message", func() bool { return len(f.out.called("chat.postMessage")) == 1 })
	f.out.delete()
	f.ask("leads", "security")
	wait.For(t, "another message", func() bool { return len(f.out.called("chat.postMessage")) == 2 })
	again := f.out.called("chat.postMessage")[1].body
	if text, _ := json.Marshal(again); again["ts"] != nil || again["channel"] != "C1" || !strings.Contains(string(text), `"action_id":"approve"`) {
		t.Errorf("it is %s", text)
	}
	f.ask("leads")
	wait.For(t, "it is the one that changes", func() bool { return len(f.out.called("chat.update")) == 2 })
}

// TestWhoIsAskedNow: whom a changed rule asks is told, once for each change, in messages that a
// receiver does not take for those of before.
func TestWhoIsAskedNow(t *testing.T) {
	f := newFixture(t, "webhook", "slack")
	f.start()
	h := f.hold("DELETE 1")
	wait.For(t, "the asking is told", func() bool { return len(f.out.told()) == 1 && len(f.out.called("chat.postMessage")) == 1 })
	for i, groups := range [][]string{{"leads", "security"}, {"security", "leads"}, {"security"}, {"leads"}} {
		f.ask(groups...)
		if i == 1 { // the same people
			continue
		}
		n := []int{1, 1, 2, 3}[i]
		wait.For(t, fmt.Sprint(groups, " are told"), func() bool { return len(f.out.told()) > n && len(f.out.called("chat.update")) == n })
		text, _ := json.Marshal(f.out.called("chat.update")[n-1].body)
		if !strings.Contains(string(text), "asks: "+strings.Join(groups, " and ")) || !strings.Contains(string(text), `"action_id":"approve"`) {
			t.Errorf("the message says %s", text)
		}
	}
	var asked []string
	ids := map[string]bool{}
	for _, got := range f.out.told() {
		var m struct {
			Event string
			Hold  struct{ ApproverGroups []string }
		}
		if err := json.Unmarshal(got.body, &m); err != nil || m.Event != "asked" {
			t.Errorf("%s: %v", got.body, err)
		}
		asked = append(asked, strings.Join(m.Hold.ApproverGroups, " "))
		ids[got.id] = true
	}
	if want := []string{"leads", "leads security", "security", "leads"}; !slices.Equal(asked, want) || len(ids) != len(want) {
		t.Errorf("the webhook was told of %q in %v", asked, ids)
	}
	posted := f.out.called("chat.postMessage")
	wait.For(t, "who is asked anew is told", func() bool { posted = f.out.called("chat.postMessage"); return len(posted) >= 3 })
	for i, group := range []string{"security", "leads"} {
		if b := posted[i+1].body; b["text"] != group+": you are asked now, too" || b["thread_ts"] == nil || b["reply_broadcast"] != true {
			t.Errorf("beneath the message: %v", b)
		}
	}
	if w := f.interact(click("U-bob", "T1", "approve", h, h.GetDigest()), time.Now(), nil); w.Code != http.StatusOK || f.state(h.GetId()) != "approved" {
		t.Fatalf("%d, %s", w.Code, f.state(h.GetId()))
	}
	wait.For(t, "the yes is told", func() bool { return len(f.out.told()) == 5 })
	if n := len(f.out.called("chat.postMessage")); n != 3 {
		t.Errorf("%d messages", n)
	}
}

// interact sends what Slack would; change spoils it.
func (f *fixture) interact(payload map[string]any, at time.Time, change func(*http.Request)) *httptest.ResponseRecorder {
	f.t.Helper()
	text, err := json.Marshal(payload)
	if err != nil {
		f.t.Fatal(err)
	}
	body := url.Values{"payload": {string(text)}}.Encode()
	r := httptest.NewRequest(http.MethodPost, Path+"chat", strings.NewReader(body))
	ts := fmt.Sprint(at.Unix())
	m := hmac.New(sha256.New, []byte(signing))
	_, _ = io.WriteString(m, "v0:"+ts+":"+body)
	r.Header.Set("X-Slack-Request-Timestamp", ts)
	r.Header.Set("X-Slack-Signature", "v0="+hex.EncodeToString(m.Sum(nil)))
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	f.svc.ServeHTTP(w, r)
	return w
}

func click(user, team, action string, h *typesv1.Hold, digest []byte) map[string]any {
	value, _ := json.Marshal(choice{h.GetId(), hex.EncodeToString(digest)})
	return map[string]any{
		"type": "block_actions", "team": map[string]any{"id": team}, "user": map[string]any{"id": user, "team_id": team}, "trigger_id": "t-1",
		"actions": []map[string]any{{"action_id": action, "value": string(value)}},
	}
}

// TestSlack: from the message to the yes, and to the no with a reason.
func TestSlack(t *testing.T) {
	f := newFixture(t, "slack")
	f.start()
	h := f.hold("DELETE 1")
	wait.For(t, "the message", func() bool { return len(f.out.called("chat.postMessage")) == 1 })
	posted, _ := json.Marshal(f.out.called("chat.postMessage")[0].body)
	for _, want := range []string{"DELETE 1", `"action_id":"approve"`, `"action_id":"deny"`, "https://control/approvals/" + h.GetId()} {
		if !strings.Contains(string(posted), want) {
			t.Errorf("%q is missing in %s", want, posted)
		}
	}
	if strings.Contains(string(posted), "<!channel>") || strings.Contains(string(posted), "*look*") {
		t.Errorf("the reason is markup: %s", posted)
	}
	if strings.Contains(string(posted), `\nmasked`) {
		t.Errorf("the reason passes for a line of ours: %s", posted)
	}
	if w := f.interact(click("U-bob", "T1", "approve", h, h.GetDigest()), time.Now(), nil); w.Code != http.StatusOK || f.state(h.GetId()) != "approved" {
		t.Fatalf("%d, %s", w.Code, f.state(h.GetId()))
	}
	wait.For(t, "the message changes", func() bool { return len(f.out.called("chat.update")) == 1 })
	if changed, _ := json.Marshal(f.out.called("chat.update")[0].body); strings.Contains(string(changed), "approve\"") || !strings.Contains(string(changed), "bob: yes") {
		t.Errorf("%s", changed)
	}

	h = f.hold("DELETE 2")
	f.out.users["U-x"] = map[string]any{"id": "U-x", "team_id": "T1", "is_email_confirmed": true, "profile": map[string]any{"email": "bob@example.com"}}
	if w := f.interact(click("U-x", "T1", "deny", h, h.GetDigest()), time.Now(), nil); w.Code != http.StatusOK || f.state(h.GetId()) != "pending" {
		t.Fatalf("%d, %s", w.Code, f.state(h.GetId()))
	}
	opened := f.out.called("views.open")
	if len(opened) != 1 {
		t.Fatalf("no form for the reason: %v", opened)
	}
	view := opened[0].body["view"].(map[string]any)
	form := func(reason string) map[string]any {
		return map[string]any{
			"type": "view_submission", "team": map[string]any{"id": "T1"}, "user": map[string]any{"id": "U-x", "team_id": "T1"},
			"view": map[string]any{"callback_id": view["callback_id"], "private_metadata": view["private_metadata"], "state": map[string]any{"values": map[string]any{"reason": map[string]any{"reason": map[string]any{"value": reason}}}}},
		}
	}
	if w := f.interact(form(" "), time.Now(), nil); !strings.Contains(w.Body.String(), "response_action") {
		t.Errorf("a no without a reason: %s", w.Body)
	}
	if w := f.interact(form("not today"), time.Now(), nil); w.Code != http.StatusOK || w.Body.Len() > 0 || f.state(h.GetId()) != "refused" {
		t.Errorf("%d %s, %s", w.Code, w.Body, f.state(h.GetId()))
	}
}

// TestSlackRefuses: what comes from Slack obeys the rules that hold anywhere.
func TestSlackRefuses(t *testing.T) {
	f := newFixture(t, "slack")
	h, other := f.hold("DELETE 1"), f.hold("DELETE 2")
	user := func(id string, change map[string]any) {
		u := map[string]any{"id": id, "team_id": "T1", "is_email_confirmed": true, "profile": map[string]any{"email": "bob@example.com"}}
		for k, v := range change {
			u[k] = v
		}
		f.out.users[id] = u
	}
	user("U-unconfirmed", map[string]any{"is_email_confirmed": false})
	user("U-guest", map[string]any{"is_restricted": true})
	user("U-bot", map[string]any{"is_bot": true})
	user("U-elsewhere", map[string]any{"team_id": "T2"})
	user("U-eve", map[string]any{"profile": map[string]any{"email": "eve@example.com"}})
	user("U-new", map[string]any{"profile": map[string]any{"email": "new@example.com"}})
	now := time.Now()
	good := click("U-bob", "T1", "approve", h, h.GetDigest())
	for name, c := range map[string]struct {
		payload map[string]any
		at      time.Time
		change  func(*http.Request)
		want    int // 200 where the click is heard, and does not count
	}{
		"forged":                {good, now, func(r *http.Request) { r.Header.Set("X-Slack-Signature", "v0=00") }, 401},
		"without a signature":   {good, now, func(r *http.Request) { r.Header.Del("X-Slack-Signature") }, 401},
		"late":                  {good, now.Add(-6 * time.Minute), nil, 401},
		"early":                 {good, now.Add(6 * time.Minute), nil, 401},
		"another channel":       {good, now, func(r *http.Request) { r.URL.Path = Path + "siem" }, 401},
		"the requester":         {click("U-alice", "T1", "approve", h, h.GetDigest()), now, nil, 200},
		"another workspace":     {click("U-bob", "T2", "approve", h, h.GetDigest()), now, nil, 200},
		"no lead":               {click("U-eve", "T1", "approve", h, h.GetDigest()), now, nil, 200},
		"not signed in":         {click("U-new", "T1", "approve", h, h.GetDigest()), now, nil, 200},
		"unconfirmed address":   {click("U-unconfirmed", "T1", "approve", h, h.GetDigest()), now, nil, 200},
		"a guest":               {click("U-guest", "T1", "approve", h, h.GetDigest()), now, nil, 200},
		"a bot":                 {click("U-bot", "T1", "approve", h, h.GetDigest()), now, nil, 200},
		"a shared channel":      {click("U-elsewhere", "T1", "approve", h, h.GetDigest()), now, nil, 200},
		"nobody":                {click("", "T1", "approve", h, h.GetDigest()), now, nil, 200},
		"for another statement": {click("U-bob", "T1", "approve", h, other.GetDigest()), now, nil, 200},
		"for nothing":           {click("U-bob", "T1", "approve", h, nil), now, nil, 200},
		"another hold's id":     {click("U-bob", "T1", "approve", &typesv1.Hold{Id: "h-nothing"}, h.GetDigest()), now, nil, 200},
		"an unknown button":     {click("U-bob", "T1", "everything", h, h.GetDigest()), now, nil, 200},
	} {
		if w := f.interact(c.payload, c.at, c.change); w.Code != c.want || f.state(h.GetId()) != "pending" || f.state(other.GetId()) != "pending" {
			t.Fatalf("%s: %d, %s", name, w.Code, f.state(h.GetId()))
		}
	}
	if n := len(f.out.called("chat.postEphemeral")); n != 13 {
		t.Errorf("%d people were told why it does not count", n)
	}
	if w := f.interact(good, now, nil); w.Code != http.StatusOK || f.state(h.GetId()) != "approved" {
		t.Errorf("bob: %d, %s", w.Code, f.state(h.GetId()))
	}
	if w := f.interact(good, now, nil); w.Code != http.StatusConflict {
		t.Errorf("replayed: %d", w.Code)
	}
}

// TestTooLong: nobody answers in Slack to what is not shown there.
func TestTooLong(t *testing.T) {
	f := newFixture(t, "slack")
	blocks, err := f.svc.blocks(t.Context(), f.hold("DELETE "+strings.Repeat("x", maxShown)))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(blocks)
	if strings.Contains(string(text), `"approve"`) || !strings.Contains(string(text), "too long") {
		t.Errorf("%s", text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`payload={"type":"block_actions","actions":[{"action_id":"approve","value":"{}"}]}`))
	f.Add([]byte(`payload=%7B%7D&payload=x`))
	f.Add([]byte(`%`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if in, err := parse(body); err == nil && in == nil {
			t.Error("nothing, and no error")
		}
	})
}
