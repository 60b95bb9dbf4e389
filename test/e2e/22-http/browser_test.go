package http

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/websocket"

	"github.com/posterngate/postern/test/e2e/house"
)

// deskWorld is a web app for people, with something that others must agree to.
const deskWorld = `
apiVersion: postern/v1
kind: Resource
metadata: {name: desk}
spec: {protocol: http, endpoint: {host: 127.0.0.1, port: %s, tls: {mode: disable}, http: {auth: {scheme: none}}}}
---
apiVersion: postern/v1
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}], timeout: 15m}
---
apiVersion: postern/v1
kind: Task
metadata: {name: desk}
spec:
  purpose: work at the desk
  resources: {names: [desk]}
  permit:
    - {methods: [GET, POST], path: /}
    - {methods: [GET], path: /ws, websocket: true}
    - {methods: [GET], path: /stream}
    - {methods: [GET], path: /danger, approval: {scope: statement, rule: leads}}
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: desk}
spec: {subjects: [{group: analysts}], tasks: [desk]}
`

// newDesk is the app: a page with a cookie of its own, and a WebSocket that says hello.
func newDesk(t *testing.T) string {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "app", Value: "1", Path: "/"})
		w.Header().Add("Set-Cookie", "__Host-postern=of-the-app; Secure; Path=/")
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<!doctype html><title>desk</title><p id="cookies">%s</p><p id="ws"></p>
<script>new WebSocket("wss://"+location.host+"/ws").onmessage = (e) => { document.getElementById("ws").textContent = e.data }</script>`, r.Header.Get("Cookie"))
	})
	mux.HandleFunc("/danger", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, `<!doctype html><p id="done">done</p>`)
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begun\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.Handle("/ws", websocket.Server{
		Handler: func(c *websocket.Conn) { _, _ = io.WriteString(c, "hello over the socket") },
		Handshake: func(_ *websocket.Config, r *http.Request) error { // as most servers do
			if from := r.Header.Get("Origin"); from != "http://"+r.Host {
				return fmt.Errorf("a page of %q asks %q", from, r.Host)
			}
			return nil
		},
	})
	return plain(t, mux.ServeHTTP)
}

// TestBrowser: people with nothing but a browser sign in, work, wait for others and sign
// out, in a real Chromium.
func TestBrowser(t *testing.T) {
	s := &service{House: house.Start(t, house.Options{
		Bare: true, Extra: fmt.Sprintf(deskWorld, newDesk(t)), Nodes: []house.NodeSpec{{Name: "node-1", Region: "local"}, {Name: "node-2", Region: "local"}},
	})}
	s.Serves(t, "desk")
	home := "https://desk--desk." + s.Nodes[0].HTTPDomain
	host := strings.Split(strings.TrimPrefix(home, "https://"), ":")[0]

	t.Run("page, socket, and out", func(t *testing.T) {
		b := house.Browse(t,
			house.Step{Open: home + "/", SignIn: "alice", Then: home + "/"},
			house.Step{Wait: "#ws", Text: "hello over the socket"},
			house.Step{Open: home + "/", See: "#cookies"},
			house.Step{Open: home + "/.postern/", See: "#who"},
			house.Step{Click: "button", Wait: "h1", Text: "Signed out"},
		)
		if b.Texts[0] != "app=1" || b.Texts[1] != "alice" {
			t.Errorf("the app got the cookies %q of %s", b.Texts[0], b.Texts[1])
		}
		left := slices.DeleteFunc(b.Cookies, func(c house.Crumb) bool { return c.Domain != host })
		if len(left) > 0 {
			t.Errorf("after signing out there are %+v", left)
		}
	})
	t.Run("waiting", func(t *testing.T) {
		done := make(chan house.Browsed, 1)
		t.Run("browser", func(t *testing.T) {
			t.Parallel()
			done <- house.Browse(t, house.Step{Open: home + "/danger", SignIn: "alice", Then: home + "/danger"}, house.Step{See: "#approval"}, house.Step{Wait: "#done", Text: "done"})
		})
		t.Run("lead", func(t *testing.T) {
			t.Parallel()
			if r := s.CLI(t, "bob", "approve", s.pending(t, "GET /danger")); r.Code != 0 {
				t.Errorf("%+v", r)
			}
		})
	})
	t.Run("who may not", func(t *testing.T) {
		b := house.Browse(t, house.Step{Open: home + "/", SignIn: "carol", Then: home + "/"}, house.Step{See: "body"})
		house.Has(t, b.Texts[0], "403", "desk")
	})
	t.Run("without a browser", func(t *testing.T) { s.attacks(t, home) })
}

// attacks are what a page of somebody else's, or a thief of a link, would try.
func (s *service) attacks(t *testing.T, home string) {
	c := s.client(t)
	ask := func(method, target string, cookie string, headers ...string) *http.Response {
		t.Helper()
		req := house.Must(http.NewRequestWithContext(t.Context(), method, target, nil))(t)
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		if cookie != "" {
			req.Header.Set("Cookie", cookie)
		}
		resp := house.Must(c.Do(req))(t)
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp
	}
	if r := ask("GET", home+"/", "", "Accept", "application/json"); r.StatusCode != http.StatusUnauthorized || r.Header.Get("Location") != "" {
		t.Errorf("a program was sent to sign in: %d", r.StatusCode)
	}
	page := []string{"Accept", "text/html", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	begun := ask("GET", home+"/", "", page...)
	link := begun.Header.Get("Location")
	if begun.StatusCode != http.StatusSeeOther || !strings.HasPrefix(link, s.Addr+"/web/enter/") || len(begun.Cookies()) != 2 {
		t.Fatalf("%d to %s with %v", begun.StatusCode, link, begun.Cookies())
	}
	login := begun.Cookies()[0]
	if login.Name != "__Host-postern-login" || !login.HttpOnly || !login.Secure || login.SameSite != http.SameSiteLaxMode {
		t.Errorf("%+v", login)
	}
	// Somebody signs in by the link; a browser that did not begin has nothing of the code.
	back := s.signedIn(t, "alice", link)
	if u := house.Must(url.Parse(back))(t); "https://"+u.Host != home || u.Path != "/.postern/callback" {
		t.Fatalf("sent back to %s", back)
	}
	victim := ask("GET", home+"/", "", page...).Cookies()[0] // of somebody who has begun too
	for name, cookie := range map[string]string{"no cookie": "", "another's": "__Host-postern-login=" + strings.Repeat("A", 26) + ".Lw", "a victim's": victim.Name + "=" + victim.Value} {
		t.Run("CVE-2026-33757 a sign-in that somebody else began: "+name, func(t *testing.T) {
			if r := ask("GET", back, cookie, page...); r.StatusCode != http.StatusUnauthorized || slices.ContainsFunc(r.Cookies(), func(c *http.Cookie) bool { return strings.Contains(c.Value, "psb_") }) {
				t.Errorf("%d %v", r.StatusCode, r.Cookies())
			}
		})
	}
	t.Run("CVE-2026-33758 an error with a script in it", func(t *testing.T) {
		const script = "?error=access_denied&state=%3Cscript%3Ealert(1)%3C/script%3E&code=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&error_description=%3Cscript%3Ealert(1)%3C/script%3E"
		for client, url := range map[*http.Client]string{c: home + "/.postern/callback" + script, s.HTTP(): s.Addr + "/web/callback" + script} {
			req := house.Must(http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil))(t)
			req.Header.Set("Accept", "text/html")
			req.Header.Set("Cookie", victim.Name+"="+victim.Value)
			resp := house.Must(client.Do(req))(t)
			body := string(house.Must(io.ReadAll(resp.Body))(t))
			_ = resp.Body.Close()
			if resp.StatusCode < 400 || strings.Contains(body, "<script") || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("%s: %s %v\n%s", url, resp.Status, resp.Header, body)
			}
		}
	})
	let := ask("GET", back, login.Name+"="+login.Value, page...)
	if let.StatusCode != http.StatusSeeOther || let.Header.Get("Location") != "/" || len(let.Cookies()) != 2 {
		t.Fatalf("%d %v", let.StatusCode, let.Header)
	}
	if r := ask("GET", back, login.Name+"="+login.Value, page...); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("a code worked twice: %d", r.StatusCode)
	}
	if c := let.Cookies()[1]; c.Name != "__Host-postern" || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || !strings.HasPrefix(c.Value, "psb_") {
		t.Errorf("%+v", c)
	}
	session := let.Cookies()[1].Name + "=" + let.Cookies()[1].Value
	for name, r := range map[string]struct {
		method, path string
		headers      []string
		want         int
	}{
		"its own page":              {"POST", "/", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		"its own origin":            {"POST", "/", []string{"Origin", home}, 200},
		"typed in":                  {"GET", "/", []string{"Sec-Fetch-Site", "none"}, 200},
		"a link elsewhere":          {"GET", "/", append([]string{"Sec-Fetch-Site", "cross-site"}, page...), 200},
		"a form elsewhere":          {"POST", "/", append([]string{"Sec-Fetch-Site", "cross-site"}, page...), 403},
		"a form of another task":    {"POST", "/", append([]string{"Sec-Fetch-Site", "same-site"}, page...), 403},
		"an old browser's form":     {"POST", "/", []string{"Origin", "https://evil.example"}, 403},
		"no word of where":          {"POST", "/", nil, 403},
		"an image elsewhere":        {"GET", "/", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, 403},
		"a frame elsewhere":         {"GET", "/", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 403},
		"a socket of another's":     {"GET", "/ws", []string{"Origin", "https://evil.example", "Connection", "Upgrade", "Upgrade", "websocket"}, 403},
		"signed out from elsewhere": {"POST", "/.postern/logout", []string{"Sec-Fetch-Site", "cross-site"}, 403},
	} {
		if got := ask(r.method, home+r.path, session, r.headers...); got.StatusCode != r.want {
			t.Errorf("%s: %d, want %d", name, got.StatusCode, r.want)
		}
	}
	token := let.Cookies()[1].Value
	if r := ask("GET", home+"/", "", "Authorization", "Bearer "+token); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("a browser's token as a bearer: %d", r.StatusCode)
	}
	// Whoever signs out at one node is signed out at the other, where something runs still.
	there := "https://desk--desk." + s.Nodes[1].HTTPDomain
	req := house.Must(http.NewRequestWithContext(t.Context(), http.MethodGet, there+"/stream", nil))(t)
	req.Header.Set("Cookie", session)
	req.Header.Set("Sec-Fetch-Site", "none")
	stream := house.Must(c.Do(req))(t)
	defer stream.Body.Close()
	first := make([]byte, len("begun"))
	if _, err := io.ReadFull(stream.Body, first); err != nil || stream.StatusCode != http.StatusOK {
		t.Fatalf("at the other node: %s %q %v", stream.Status, first, err)
	}
	if r := ask("POST", home+"/.postern/logout", session, "Sec-Fetch-Site", "same-origin"); r.StatusCode != http.StatusOK {
		t.Errorf("sign out: %d", r.StatusCode)
	}
	if r := ask("GET", home+"/", session, "Sec-Fetch-Site", "none"); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("after signing out: %d", r.StatusCode)
	}
	if rest, err := io.ReadAll(stream.Body); err == nil { // it ends, and not as if it were whole
		t.Errorf("what ran at the other node ended well: %q", rest)
	}
	house.Eventually(t, func() string { return "the other node refuses the cookie" }, func() bool {
		return ask("GET", there+"/", session, "Sec-Fetch-Site", "none").StatusCode == http.StatusUnauthorized
	})
	if strings.Contains(s.Log(), token) {
		t.Error("the token is in the log")
	}
}

// hold is one of what waits for bob.
type hold struct{ ID, Statement string }

func (s *service) holds(t *testing.T) (holds []hold) {
	t.Helper()
	_ = json.Unmarshal([]byte(s.CLI(t, "bob", "approvals", "--format", "json").Out), &holds)
	return holds
}

// pending is the id of the hold that shows text.
func (s *service) pending(t *testing.T, text string) string {
	t.Helper()
	return house.Poll(t, "a hold", func() (string, bool) {
		for _, h := range s.holds(t) {
			if strings.Contains(h.Statement, text) {
				return h.ID, true
			}
		}
		return "", false
	})
}

// signedIn signs somebody in by a link, as a browser would, and says where it is sent then.
func (s *service) signedIn(t *testing.T, who, link string) string {
	t.Helper()
	jar := house.Must(cookiejar.New(nil))(t)
	c := &http.Client{Jar: jar, Timeout: house.Patience, Transport: s.HTTP().Transport, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Path == "/.postern/callback" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	form := house.Must(c.Get(link))(t)
	_ = form.Body.Close()
	resp := house.Must(c.PostForm(form.Request.URL.String(), url.Values{"request": {form.Request.URL.Query().Get("request")}, "name": {who}, "password": {who}}))(t)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("%s at %s", resp.Status, resp.Request.URL)
	}
	return resp.Header.Get("Location")
}
