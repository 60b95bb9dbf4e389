package http

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/request"
	pkghttp "github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
)

// ask sends a request with headers, each "Name: value".
func (h *house) ask(t *testing.T, text, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	c := newClient(h.addr, "t.target", enginetest.Token)
	t.Cleanup(c.Close)
	method, target, _ := strings.Cut(text, " ")
	req, err := http.NewRequestWithContext(t.Context(), method, c.base+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+enginetest.Token)
	req.Header.Set("Postern-Task", "t.target")
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header[name] = append(req.Header[name], value)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// TestWhatGoesOn: the resource sees the canonical request, its own credential, and nothing
// that the client says of who it is.
func TestWhatGoesOn(t *testing.T) {
	h := newHouse(t)
	resp, seen := h.ask(t, "POST /%65cho?a=b+c", "hello",
		"Accept: text/plain", "X-Trace: 1", "Connection: X-Hop", "X-Hop: 1", "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Host: evil", "Forwarded: for=10.0.0.1",
		"X_Forwarded_For: 10.0.0.1", "X-Real-Ip: 10.0.0.1", "X-Remote-User: root", "X-Original-Url: /admin", "X-Rewrite-Url: /admin", "Proxy-Authorization: x",
		"X-Auth-Request-User: root", "Impersonate-User: root", "Cookie: mine=1", "Te: trailers", "Keep-Alive: 1", "X-Postern-User: root", "Postern-Subject: root",
		"Remote-User: root", "X-Ms-Client-Principal-Name: root", "X-Amzn-Mtls-Clientcert-Subject: CN=root", "X-Amzn-Oidc-Identity: root", "Cf-Access-Authenticated-User-Email: root",
		"X-Authentik-Username: root", "X-Pomerium-Claim-Email: root", "X-Consumer-Username: root", "X-Webauth-Role: root", "X-Auth-Roles: root", "Proxy: http://evil")
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, seen)
	}
	for _, want := range []string{"POST /echo?a=b%20c HTTP/1.1\r\n", "Host: orders.internal\r\n", "\r\nX-Trace: 1\r\n", "\r\nCookie: mine=1\r\n", "hello", "Authorization: Bearer " + strings.Repeat("*", len(theSecret))} {
		if !strings.Contains(seen, want) {
			t.Errorf("%q is missing in\n%s", want, seen)
		}
	}
	for _, never := range []string{"10.0.0.1", "evil", "root", "/admin", "X-Hop", "Proxy-Auth", "Keep-Alive", enginetest.Token, theSecret, "Postern"} {
		if strings.Contains(seen, never) {
			t.Errorf("%q is in\n%s", never, seen)
		}
	}
}

// TestBadInput: what servers read in different ways is refused, and nothing is forwarded.
func TestBadInput(t *testing.T) {
	h := newHouse(t)
	for _, target := range []string{
		"/api/orders/%2e%2e/admin/users", "/api/orders/%252e%252e/admin/users", "/api/orders/..;/admin/users", "/api//orders/1", "/api/orders/1%00.json",
		"/api/orders/%E2%80%A5/admin", "/a%2f..%2fb", "/a%5cb", "/.postern/x", "/echo?_method=DELETE",
	} {
		if resp, said := h.ask(t, "GET "+target, ""); resp.StatusCode < 400 || resp.Header.Get("Postern-Code") == "" {
			t.Errorf("%s: %s %s", target, resp.Status, said)
		}
	}
	for _, headers := range [][]string{
		{"X-HTTP-Method-Override: DELETE"}, {"X-Http-Method: DELETE"}, {"X-Method-Override: DELETE"}, {"X_HTTP_Method_Override: DELETE"},
		{"Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "Http2-Settings: AAMAAABkAAQAAP__"}, {"Upgrade: websocket, h2c", "Connection: Upgrade"},
		{"Content-Type: a/b", "Content-Type: c/d"}, {"Mcp-Session-Id: mine", "Mcp-Session-Id: another's"}, {"Content-Type: application/json; charset=utf-16"}, {"Postern-Task: other.target"},
		{"Content-Type: application/json", "Connection: Content-Type"}, {"Mcp-Session-Id: mine", "Connection: close, mcp-session-id"},
	} {
		if resp, said := h.ask(t, "POST /echo", "x", headers...); resp.StatusCode < 400 || resp.Header.Get("Postern-Code") == "" {
			t.Errorf("%q: %s %s", headers, resp.Status, said)
		}
	}
	if n := h.door.Opened(); n > 0 {
		for _, e := range h.door.Last().Executions() {
			t.Errorf("%s was admitted", e.Text)
		}
	}
	for _, raw := range []string{
		"GET http://admin.internal/api/orders/1 HTTP/1.1\r\nHost: orders.internal\r\n", "CONNECT admin:443 HTTP/1.1\r\nHost: admin:443\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n",
		"GET /a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nPostern-Task: t.target\r\n",
	} {
		if got := h.raw(t, raw+"Postern-Task: t.target\r\nAuthorization: Bearer "+enginetest.Token+"\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 4") {
			t.Errorf("%q: %.100s", raw, got)
		}
	}
}

// TestSlashes: a slash that is encoded reaches the resource as that, and is judged as that.
func TestSlashes(t *testing.T) {
	says := func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) }
	two := newHouse(t)
	two.mux.HandleFunc("/", says)
	for name, h := range map[string]*house{"HTTP/2": two, "HTTP/1.1": newPlain(t, engine.HTTPTerms{Authority: "packages.internal", Auth: "none"}, func() string { return "" }, says)} {
		for range 2 { // the second time it is known
			if resp, told := h.ask(t, "GET /@babel%2fcore/-/%2F?a=%2f", ""); told != "/@babel%2Fcore/-/%2F?a=/" {
				t.Errorf("%s: %s %s", name, resp.Status, told)
			}
		}
		for _, text := range h.door.Last().Prepared() {
			if text != "GET /@babel%2Fcore/-/%2F?a=/" {
				t.Errorf("%s: judged as %s", name, text)
			}
		}
	}
	x := &exchange{judged: judged{target: pkghttp.Target{Path: "/bucket/a" + pkghttp.Slash + "b"}}, terms: &engine.Terms{HTTP: engine.HTTPTerms{Auth: "sigv4"}}}
	c := credential("")
	if _, err := x.inject(nil, &c); err == nil {
		t.Error("a path is signed in another form than it was judged in")
	}
}

// TestCharsets: UTF-8 is that by whatever name clients call it.
func TestCharsets(t *testing.T) {
	h := newHouse(t)
	for charset, want := range map[string]int{"UTF-8": 200, "utf8": 200, `"utf-8"`: 200, "us-ascii": 400, "utf-16": 400, "latin1": 400, "utf-7": 400} {
		for _, kind := range []string{"application/json", "application/vnd.api+json", "application/x-www-form-urlencoded"} {
			if resp, said := h.ask(t, "POST /echo", `{}`, "Content-Type: "+kind+"; charset="+charset); resp.StatusCode != want {
				t.Errorf("%s in %s: %s %s", kind, charset, resp.Status, said)
			}
		}
	}
}

// raw speaks by hand.
func (h *house) raw(t *testing.T, text string) string {
	t.Helper()
	c := dialRaw(t, h.addr)
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(c)
	return string(b)
}

// TestStreams: what comes in parts goes on in parts, both ways, and an answer that cannot
// be finished does not look as if it were.
func TestStreams(t *testing.T) {
	h := newHouse(t)
	next := make(chan struct{})
	h.mux.HandleFunc("/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	h.mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	c := newClient(h.addr, "t.target", enginetest.Token)
	t.Cleanup(c.Close)
	resp, err := c.request(t.Context(), "GET /events", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 {
		for lines.Scan() && lines.Text() == "" {
		}
		if got := lines.Text(); got != fmt.Sprintf("data: %d", i) {
			t.Fatalf("%q", got)
		}
		next <- struct{}{}
	}
	if broken, err := c.request(t.Context(), "GET /broken", nil); err == nil {
		defer broken.Body.Close()
		if b, err := io.ReadAll(broken.Body); err == nil {
			t.Errorf("half an answer passes for one: %q", b)
		}
	}
	large := bytes.Repeat([]byte("0123456789"), 1<<20)
	h.mux.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n)
	})
	counted, err := c.request(t.Context(), "POST /count", io.MultiReader(bytes.NewReader(large)))
	if err != nil {
		t.Fatal(err)
	}
	defer counted.Body.Close()
	if b, err := io.ReadAll(counted.Body); err != nil || string(b) != fmt.Sprint(len(large)) {
		t.Errorf("%s %v", b, err)
	}
}

// TestFirstPart: what the resource has sent of an answer that has a length is not kept back until
// the rest is there.
func TestFirstPart(t *testing.T) {
	h := newHouse(t)
	next := make(chan struct{}, 1)
	h.mux.HandleFunc("/parts", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "8")
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-next:
			_, _ = io.WriteString(w, "rest")
		case <-r.Context().Done():
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c := newClient(h.addr, "t.target", enginetest.Token)
	t.Cleanup(c.Close)
	for range 2 { // the second time the head is known
		resp, err := c.request(ctx, "GET /parts", nil)
		if err != nil {
			t.Fatal(err)
		}
		half := make([]byte, 4)
		if _, err := io.ReadFull(resp.Body, half); err != nil || string(half) != "half" || resp.ContentLength != 8 {
			t.Fatalf("%q %v %v", half, err, resp.Header)
		}
		next <- struct{}{}
		rest, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(rest) != "rest" {
			t.Errorf("%q %v", rest, err)
		}
	}
}

// TestIdentity: the resource is told who asks, in the gateway's words alone, and the client
// does not get to see them.
func TestIdentity(t *testing.T) {
	h := newHouse(t)
	terms := h.terms()
	terms.HTTP.Identity = true
	h.door = enginetest.NewDoor(t, terms, credential)
	h.addr = enginetest.Serve(t, New(Config{AllowPlaintext: true}), h.door)
	var got http.Header
	h.mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		_, _ = io.WriteString(w, "you are "+r.Header.Get(identityHeader))
	})
	h.mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://elsewhere.example/?as="+r.Header.Get(identityHeader), http.StatusFound)
	})
	h.mux.HandleFunc("/trailer", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "once")
		w.Header().Set(http.TrailerPrefix+"X-As", r.Header.Get(identityHeader))
	})
	ask := func(path string) (int, string, error) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+h.addr+path, nil)
		req.Header.Set("Authorization", "Bearer "+enginetest.Token)
		req.Header.Set(request.TaskHeader, "t")
		for _, name := range []string{"Postern-Identity", "postern_identity", "X-Postern-Identity"} {
			req.Header[name] = []string{"root"}
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, fmt.Sprint(string(b), resp.Header, resp.Trailer), err
	}
	status, text, err := ask("/who")
	if err != nil || status != http.StatusOK || strings.Contains(text, "vouched") || !strings.Contains(text, "you are *****************") {
		t.Errorf("%d %s %v", status, text, err)
	}
	if fmt.Sprint(got[identityHeader]) != "[vouched-for-alice]" || strings.Contains(fmt.Sprint(got), "root") {
		t.Errorf("the resource got %v", got)
	}
	if status, text, _ := ask("/redirect"); status != http.StatusServiceUnavailable || strings.Contains(text, "vouched") {
		t.Errorf("%d %s", status, text)
	}
	if _, text, err := ask("/trailer"); err == nil || strings.Contains(text, "vouched") {
		t.Errorf("a trailer went through: %s", text)
	}
}

// TestSameConnection: who asks is known by what each request says, however often the ones
// before it said something else.
func TestSameConnection(t *testing.T) {
	h := newHouse(t)
	c := dialRaw(t, h.addr)
	r := bufio.NewReader(c)
	ask := func(token string) (status int, session postern.SessionID) {
		t.Helper()
		if _, err := io.WriteString(c, "GET "+ownPath+"session HTTP/1.1\r\nHost: x\r\nPostern-Task: t.target\r\nAuthorization: Bearer "+token+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var who whoami
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == http.StatusOK {
			if err := json.Unmarshal(b, &who); err != nil {
				t.Fatal(err)
			}
		}
		return resp.StatusCode, who.Session
	}
	_, first := ask(enginetest.Token)
	if status, again := ask(enginetest.Token); status != http.StatusOK || again != first {
		t.Errorf("%d, session %s and not %s", status, again, first)
	}
	if status, _ := ask("another"); status != http.StatusUnauthorized {
		t.Errorf("another token: %d", status)
	}
	if status, again := ask(enginetest.Token); status != http.StatusOK || again != first {
		t.Errorf("%d, session %s and not %s", status, again, first)
	}
	h.door.Last().Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "over"})
	for until := time.Now().Add(time.Minute); ; {
		if status, next := ask(enginetest.Token); status == http.StatusOK && next != first {
			break // opened with the token, which nobody has kept
		}
		if time.Now().After(until) {
			t.Fatal("no new session")
		}
	}
}

// TestStatementTimeout: a request that runs for longer than its task allows is ended, and
// others are not.
func TestStatementTimeout(t *testing.T) {
	h := newHouse(t)
	h.door.Terms(func(terms *engine.Terms) { terms.StatementTimeout = time.Second })
	if resp, b := h.ask(t, "GET /lines?n=1", ""); resp.StatusCode != http.StatusOK || b != "1\n" {
		t.Errorf("%s %q", resp.Status, b)
	}
	if resp, b := h.ask(t, "GET /slow", ""); resp.StatusCode != http.StatusForbidden || !strings.Contains(b, "longer than the task allows") {
		t.Errorf("%s %q", resp.Status, b)
	}
}

// TestHeadersThatRulesRead: they are told of those that stand twice, and of no cookie.
func TestHeadersThatRulesRead(t *testing.T) {
	h := newHouse(t)
	var got *pkghttp.Facts
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(_ string, facts any) postern.Decision {
			got = facts.(*pkghttp.Facts)
			return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
		}
	})
	h.ask(t, "GET /lines?n=1", "", "X-Tenant: acme-1", "X-Tenant: evil", "X-One: 1", "Cookie: a=b", "Cookie: c=d")
	if got.Header["x-tenant"] != "acme-1, evil" || got.Header["x-one"] != "1" || got.Header["cookie"] != "" || len(got.Twice) != 1 || !got.Twice["x-tenant"] {
		t.Errorf("%v, twice %v", got.Header, got.Twice)
	}
}
