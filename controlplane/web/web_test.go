package web

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/identity"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
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

const lock = `
---
kind: Lock
metadata: {name: out}
spec: {subject: bob, reason: gone}
`

// issuer lets in whom the code names.
type issuer struct{ names []string }

func (i issuer) WebIssuers() []string { return i.names }

func (issuer) BeginWeb(_ context.Context, name, redirect string) (*identity.WebLogin, string, error) {
	return &identity.WebLogin{Issuer: name, State: "state"}, "https://issuer.example/?redirect=" + url.QueryEscape(redirect), nil
}

func (issuer) FinishWeb(_ context.Context, l *identity.WebLogin, _ string, answer url.Values) (postern.Subject, time.Time, error) {
	if answer.Get("state") != l.State {
		return postern.Subject{}, time.Time{}, fault.New(codes.Unauthenticated, "not of this sign-in")
	}
	return postern.Subject{Name: answer.Get("code"), Groups: []string{"leads"}}, time.Now().Add(24 * time.Hour), nil
}

type fixture struct {
	t      *testing.T
	srv    *httptest.Server
	pages  *Pages
	holds  *approve.Service
	policy atomic.Pointer[policy.Snapshot]
	now    atomic.Int64 // ahead of the clock
	store  *storetest.Memory
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, store: storetest.NewMemory()}
	f.apply(world)
	log := audit.New(f.store, time.Now)
	logger := slog.New(slog.DiscardHandler)
	f.holds = approve.New(approve.Config{Store: f.store, Snapshot: f.policy.Load, Audit: log, URL: func(id string) string { return id }, Logger: logger})
	mux := http.NewServeMux()
	f.srv = httptest.NewTLSServer(http.NewCrossOriginProtection().Handler(mux))
	t.Cleanup(f.srv.Close)
	p := New(Config{
		URL: f.srv.URL, Login: issuer{[]string{"corp"}}, Holds: f.holds, Store: f.store, Audit: log, Policy: f.policy.Load, Logger: logger,
		Now: func() time.Time { return time.Now().Add(time.Duration(f.now.Load())) },
	})
	f.pages = p
	for _, path := range Paths() {
		mux.Handle(path, p)
	}
	grant, err := proto.Marshal(&typesv1.Grant{
		Id: "g-1", Subject: &typesv1.Subject{Name: "alice"}, Task: "purge-order", State: typesv1.GrantState_GRANT_STATE_ACTIVE,
		EndTime: timestamppb.New(time.Now().Add(time.Hour)), Reason: "<script>alert(1)</script>",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.store.Commit(t.Context(), store.Op{Key: store.Key{Kind: "grant", Name: "g-1"}, Value: grant}); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) apply(yaml string) {
	s := policytest.Compile(f.t, yaml)
	f.policy.Store(s)
}

func (f *fixture) hold(statement string) *typesv1.Hold {
	f.t.Helper()
	h, err := f.holds.OpenHold(f.t.Context(), "n1", &nodev1.OpenHoldRequest{Scope: "statement", Grant: "g-1", Resource: "warehouse", Session: "s", Statement: statement, Rule: "leads"})
	if err != nil {
		f.t.Fatal(err)
	}
	return h
}

// browser keeps cookies, and follows no redirect.
func (f *fixture) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		f.t.Fatal(err)
	}
	c := *f.srv.Client()
	c.Jar = jar
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

func (f *fixture) do(c *http.Client, method, path string, form url.Values, change func(*http.Request)) (int, string, string) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.srv.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		f.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if change != nil {
		change(req)
	}
	resp, err := c.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header.Get("Location")
}

func (f *fixture) signIn(c *http.Client, who, to string) (status int, location string) {
	f.t.Helper()
	if status, _, where := f.do(c, "GET", loginPath+"?"+url.Values{"to": {to}}.Encode(), nil, nil); status != http.StatusSeeOther || !strings.HasPrefix(where, "https://issuer.example/") {
		f.t.Fatalf("login: %d to %s", status, where)
	}
	status, _, location = f.do(c, "GET", callbackPath+"?state=state&code="+who, nil, nil)
	return status, location
}

var formToken = regexp.MustCompile(`name="form" value="([^"]+)"`)

func TestAnswer(t *testing.T) {
	f := newFixture(t)
	h := f.hold("DELETE \u202e 1")
	page := Path + "/" + h.GetId()
	c := f.browser()
	if status, _, where := f.do(c, "GET", page, nil, nil); status != http.StatusSeeOther || where != loginPath+"?to="+url.QueryEscape(page) {
		t.Fatalf("a stranger: %d to %s", status, where)
	}
	if status, where := f.signIn(c, "bob", page); status != http.StatusSeeOther || where != page {
		t.Fatalf("signed in: %d to %s", status, where)
	}
	status, body, _ := f.do(c, "GET", page, nil, nil)
	if status != http.StatusOK || strings.Contains(body, "<script>") || !strings.Contains(body, "&lt;script&gt;") || !strings.Contains(body, `DELETE \u202e 1`) {
		t.Fatalf("%d:\n%s", status, body)
	}
	token := formToken.FindStringSubmatch(body)[1]
	digest := hex.EncodeToString(h.GetDigest())
	other := f.hold("DELETE 2")
	for name, no := range map[string]struct {
		form   url.Values
		change func(*http.Request)
		want   int
	}{
		"without the token":      {form: url.Values{"answer": {"yes"}, "digest": {digest}}, want: http.StatusForbidden},
		"with another token":     {form: url.Values{"answer": {"yes"}, "digest": {digest}, "form": {token + "x"}}, want: http.StatusForbidden},
		"without what was shown": {form: url.Values{"answer": {"yes"}, "form": {token}}, want: http.StatusBadRequest},
		"to something else":      {form: url.Values{"answer": {"yes"}, "form": {token}, "digest": {hex.EncodeToString(other.GetDigest())}}, want: http.StatusConflict},
		"neither yes nor no":     {form: url.Values{"form": {token}, "digest": {digest}}, want: http.StatusBadRequest},
		"a no without a reason":  {form: url.Values{"answer": {"no"}, "form": {token}, "digest": {digest}}, want: http.StatusBadRequest},
		"from another site": {form: url.Values{"answer": {"yes"}, "form": {token}, "digest": {digest}}, want: http.StatusForbidden, change: func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Origin", "https://evil.example")
		}},
		"without a cookie": {form: url.Values{"answer": {"yes"}, "form": {token}, "digest": {digest}}, want: http.StatusUnauthorized, change: func(r *http.Request) { r.Header.Set("Cookie", "") }},
	} {
		client := c
		if name == "without a cookie" {
			client = f.browser()
		}
		if status, _, _ := f.do(client, "POST", page, no.form, no.change); status != no.want {
			t.Errorf("%s: %d, want %d", name, status, no.want)
		}
	}
	if now, err := f.holds.Get(t.Context(), approve.Caller{Subject: postern.Subject{Name: "alice"}}, h.GetId()); err != nil || !approve.Waiting(now) || len(now.GetApprovals()) > 0 {
		t.Fatalf("after what does not count: %v, %v", now, err)
	}
	if status, _, where := f.do(c, "POST", page, url.Values{"answer": {"yes"}, "form": {token}, "digest": {digest}}, nil); status != http.StatusSeeOther || where != page {
		t.Errorf("the yes: %d to %s", status, where)
	}
	if status, _, _ := f.do(c, "POST", page, url.Values{"answer": {"yes"}, "form": {token}, "digest": {digest}}, nil); status != http.StatusConflict {
		t.Errorf("again: %d", status)
	}
}

// TestTheListIsCalm: pages look for news by themselves, but hardly so while somebody chooses in
// one, and never while they fill in a form.
func TestTheListIsCalm(t *testing.T) {
	f := newFixture(t)
	c := f.browser()
	if status, _ := f.signIn(c, "bob", Path); status != http.StatusSeeOther {
		t.Fatal(status)
	}
	looks := func(path string) string {
		t.Helper()
		_, body, _ := f.do(c, "GET", path, nil, nil)
		_, after, found := strings.Cut(body, `http-equiv="refresh" content="`)
		if !found {
			return "never"
		}
		seconds, _, _ := strings.Cut(after, `"`)
		return seconds
	}
	if got := looks(Path); got != "5" {
		t.Errorf("with nothing to choose: %s", got)
	}
	h := f.hold("DELETE 1")
	if got := looks(Path); got != "30" {
		t.Errorf("with something to choose: %s", got)
	}
	if got := looks(Path + "/" + h.GetId()); got != "never" {
		t.Errorf("a form: %s", got)
	}
}

// TestOwn: who asks sees their question, and cannot answer it.
func TestOwn(t *testing.T) {
	f := newFixture(t)
	h := f.hold("DELETE 1")
	c := f.browser()
	f.signIn(c, "alice", Path)
	_, body, _ := f.do(c, "GET", Path+"/"+h.GetId(), nil, nil)
	if strings.Contains(body, "Approve") || !strings.Contains(body, "Withdraw") {
		t.Errorf("she sees\n%s", body)
	}
	form := url.Values{"answer": {"yes"}, "form": {formToken.FindStringSubmatch(body)[1]}, "digest": {hex.EncodeToString(h.GetDigest())}}
	if status, _, _ := f.do(c, "POST", Path+"/"+h.GetId(), form, nil); status != http.StatusForbidden {
		t.Errorf("her own yes: %d", status)
	}
}

// TestSessionEnds: by a lock, by time, and by signing out.
func TestSessionEnds(t *testing.T) {
	f := newFixture(t)
	c := f.browser()
	f.signIn(c, "bob", Path)
	f.apply(world + lock)
	if status, body, _ := f.do(c, "GET", Path, nil, nil); status != http.StatusForbidden || !strings.Contains(body, "gone") {
		t.Errorf("locked: %d", status)
	}
	if status, _ := f.signIn(f.browser(), "bob", Path); status != http.StatusForbidden {
		t.Errorf("a locked one signs in: %d", status)
	}
	f.apply(world)
	_, body, _ := f.do(c, "GET", Path, nil, nil)
	token := formToken.FindStringSubmatch(body)[1]
	base, err := url.Parse(f.srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	kept := c.Jar.Cookies(base)
	if _, err := f.pages.Person(t.Context(), "bob", ""); err != nil {
		t.Errorf("who has signed in is not known in a chat: %v", err)
	}
	if status, _, _ := f.do(c, "POST", logoutPath, url.Values{"form": {token}}, nil); status != http.StatusOK {
		t.Errorf("sign out: %d", status)
	}
	entries, _, err := audit.New(f.store, time.Now).List(t.Context(), audit.Query{Actor: "bob"})
	if err != nil || len(entries) == 0 || entries[0].GetAction() != "web.signout" {
		t.Errorf("the audit log tells of it as %v, %v", entries, err)
	}
	if who, err := f.pages.Person(t.Context(), "bob", ""); err == nil {
		t.Errorf("who has signed out answers in a chat as %v", who)
	}
	c.Jar.SetCookies(base, kept)
	if status, _, _ := f.do(c, "GET", Path, nil, nil); status != http.StatusSeeOther {
		t.Errorf("a cookie that was signed out: %d", status)
	}
	f.signIn(c, "bob", Path)
	f.now.Store(int64(sessionTime))
	if status, _, _ := f.do(c, "GET", Path, nil, nil); status != http.StatusSeeOther {
		t.Errorf("after an hour: %d", status)
	}
	f.signIn(f.browser(), "bob", Path)
	if all, _, err := f.store.List(t.Context(), kind, "", 0); err != nil || len(all) != 1 {
		t.Errorf("%d sessions are kept, %v", len(all), err)
	}
}

// asked counts how often it is asked about an answer.
type asked struct {
	issuer
	n int
}

func (a *asked) FinishWeb(ctx context.Context, l *identity.WebLogin, redirect string, answer url.Values) (postern.Subject, time.Time, error) {
	a.n++
	return a.issuer.FinishWeb(ctx, l, redirect, answer)
}

// Who brings answers to sign-ins that never began must not make us flood the issuer, nor keep
// those out who have signed in before.
func TestStrangersAnswers(t *testing.T) {
	login, now := &asked{issuer: issuer{[]string{"corp"}}}, time.Now()
	f := newFixture(t)
	p := New(Config{Login: login, Store: f.store, Policy: f.policy.Load, Audit: audit.New(f.store, time.Now), Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler)})
	answer := func(from, code string) int {
		r := httptest.NewRequestWithContext(t.Context(), "GET", callbackPath+"?state=s&code="+code, nil)
		r.RemoteAddr = from + ":1"
		state := "s"
		if code == "" {
			state = "other"
		}
		r.AddCookie(cookie(loginName("s"), base64.RawURLEncoding.EncodeToString([]byte(`{"issuer":"corp","state":"`+state+`"}`)), time.Minute))
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		return w.Code
	}
	if status := answer("192.0.2.1", "bob"); status != http.StatusSeeOther {
		t.Fatalf("bob signs in: %d", status)
	}
	login.n = 0
	status := 0
	for i := range 1000 {
		status = answer(fmt.Sprintf("198.51.100.%d", i%50), "")
	}
	if login.n == 0 || login.n > 4*strangersRate || status != http.StatusTooManyRequests {
		t.Errorf("the issuer was asked %d times at once, then %d", login.n, status)
	}
	if status := answer("192.0.2.1", "bob"); status != http.StatusSeeOther {
		t.Errorf("where bob has signed in before, in the flood: %d", status)
	}
}

// counting begins each sign-in with another state.
type counting struct {
	issuer
	n int
}

func (c *counting) BeginWeb(context.Context, string, string) (*identity.WebLogin, string, error) {
	c.n++
	return &identity.WebLogin{Issuer: "corp", State: fmt.Sprint(c.n)}, "https://issuer.example/", nil
}

// TestTabs: each tab of a browser signs in by itself, and comes to where it wanted to; of very
// many that never come back not all are kept.
func TestTabs(t *testing.T) {
	f := newFixture(t)
	p := New(Config{Login: &counting{issuer: issuer{[]string{"corp"}}}, Store: f.store, Policy: f.policy.Load, Audit: audit.New(f.store, time.Now), Logger: slog.New(slog.DiscardHandler)})
	crumbs := map[string]*http.Cookie{}
	ask := func(target string) (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), "GET", target, nil)
		for _, c := range crumbs {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		for _, c := range w.Result().Cookies() {
			if crumbs[c.Name] = c; c.MaxAge < 0 {
				delete(crumbs, c.Name)
			}
		}
		return w.Code, w.Header().Get("Location")
	}
	ask(loginPath + "?to=" + Path + "/h-1")
	ask(loginPath + "?to=" + Path + "/h-2")
	for _, n := range []string{"1", "2"} {
		if status, to := ask(callbackPath + "?code=bob&state=" + n); status != http.StatusSeeOther || to != Path+"/h-"+n {
			t.Errorf("tab %s: %d to %q", n, status, to)
		}
	}
	for range 10 * maxLogins {
		if ask(loginPath); len(crumbs) > maxLogins+1 {
			t.Fatalf("%d cookies are kept", len(crumbs))
		}
	}
}

// TestSignIn: what must not lead to a session.
func TestSignIn(t *testing.T) {
	f := newFixture(t)
	c := f.browser()
	if status, _, _ := f.do(c, "GET", callbackPath+"?state=state&code=bob", nil, nil); status != http.StatusUnauthorized {
		t.Errorf("a sign-in that did not begin here: %d", status)
	}
	f.do(c, "GET", loginPath, nil, nil)
	if status, _, _ := f.do(c, "GET", callbackPath+"?state=other&code=bob", nil, nil); status != http.StatusUnauthorized {
		t.Errorf("another state: %d", status)
	}
	for _, want := range []int{http.StatusSeeOther, http.StatusUnauthorized} {
		if status, _, _ := f.do(c, "GET", callbackPath+"?state=state&code=bob", nil, nil); status != want {
			t.Errorf("a sign-in, used once and twice: %d", status)
		}
	}
	for _, to := range []string{"https://evil.example", "//evil.example", Path + "/../x", Path + "/h-1?x", Path + "/h-1/../..", "\\\\evil", Path + "/"} {
		if _, where := f.signIn(f.browser(), "bob", to); where != Path {
			t.Errorf("after a sign-in for %q: %s", to, where)
		}
	}
	for _, path := range []string{Path + "/h-nothing", "/web/nothing"} {
		c := f.browser()
		f.signIn(c, "bob", Path)
		if status, _, _ := f.do(c, "GET", path, nil, nil); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
	f.policy.Store(nil)
	if status, _ := f.signIn(f.browser(), "bob", Path); status != http.StatusServiceUnavailable {
		t.Errorf("without policy: %d", status)
	}
}
