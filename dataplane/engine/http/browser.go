package http

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"html"
	"net/http"
	"strings"
	"time"

	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	callbackPath = ownPath + "callback"
	logoutPath   = ownPath + "logout"

	// loginTime is how long a sign-in may take.
	loginTime = 10 * time.Minute
	// maxTo is how long a target may be that a browser comes back to, in bytes.
	maxTo = 2 << 10
)

// signIn sends a browser that has nothing to show, or nothing good any more, to sign in;
// why is what everybody else is told.
func (e *Engine) signIn(w http.ResponseWriter, r *http.Request, c *request.Conn, why error) {
	door, ok := c.Entrance()
	permission, named := request.HostPermission(r)
	if !ok || !named {
		e.refuse(w, r, why)
		return
	}
	verifier, _, _ := strings.Cut(request.CookieOf(r, request.LoginCookie), ".")
	if len(verifier) != len(rand.Text()) { // else another tab signs in at this moment, and both may come back
		verifier = rand.Text()
	}
	url, err := door.BeginSignIn(r.Context(), permission, strings.ToLower(r.Host), verifier)
	if err != nil {
		e.refuse(w, r, err)
		return
	}
	to := r.RequestURI
	if len(to) > maxTo {
		to = "/"
	}
	http.SetCookie(w, request.Cookie(request.LoginCookie, verifier+"."+base64.RawURLEncoding.EncodeToString([]byte(to)), loginTime))
	http.SetCookie(w, request.Cookie(request.SessionCookie, "", 0))
	sendOn(w, url)
}

// callback is where a browser comes back to that has signed in. Only the one in which the
// sign-in began has its verifier.
func (e *Engine) callback(w http.ResponseWriter, r *http.Request, c *request.Conn) {
	door, ok := c.Entrance()
	verifier, to, whole := strings.Cut(request.CookieOf(r, request.LoginCookie), ".")
	var err error = &postern.Refusal{Code: postern.CodeBadToken, Reason: "this sign-in did not begin in this browser, or took too long", Hint: "open the app's page again"}
	var token string
	var end time.Time
	if ok && whole && r.Method == http.MethodGet {
		token, end, err = door.FinishSignIn(r.Context(), strings.ToLower(r.Host), r.URL.Query().Get("code"), verifier)
	}
	switch {
	case err == nil:
	case postern.AsRefusal(err).Code == postern.CodeBadToken && r.Method == http.MethodGet && request.CookieOf(r, request.SessionCookie) != "":
		sendOn(w, "/") // another tab has signed in before, if anybody has
		return
	default:
		e.refuse(w, r, err)
		return
	}
	http.SetCookie(w, request.Cookie(request.LoginCookie, "", 0))
	http.SetCookie(w, request.Cookie(request.SessionCookie, token, time.Until(end)))
	sendOn(w, within(to))
}

// within is the target that a browser began with, where it is on this host.
func within(encoded string) string {
	b, err := base64.RawURLEncoding.DecodeString(encoded)
	to := string(b)
	if err != nil || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n\t ") || strings.HasPrefix(to, ownPath) {
		return "/"
	}
	return to
}

// sendOn sends a browser on without a trace of what brought it here.
func sendOn(w http.ResponseWriter, to string) {
	h := w.Header()
	h.Set("Location", to)
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(http.StatusSeeOther)
}

// logout ends the browser's session: the token is dead everywhere, and what it had begun
// here ends.
func (e *Engine) logout(w http.ResponseWriter, r *http.Request, c *request.Conn, v *request.Visit) {
	door, ok := c.Entrance()
	if !ok {
		e.refuse(w, r, &postern.Refusal{Reason: "nobody signs in here"})
		return
	}
	if err := door.SignOut(r.Context(), request.CookieOf(r, request.SessionCookie)); err != nil {
		e.refuse(w, r, err)
		return
	}
	c.End(v, &postern.Refusal{Code: postern.CodeKilled, Reason: "signed out"})
	// Who signs in here next has nothing either of what the app has left in the browser. Cookies,
	// with ours, are taken back one by one: the header would take those of the whole domain.
	w.Header().Set("Clear-Site-Data", `"cache", "storage"`)
	for _, c := range r.Cookies() {
		http.SetCookie(w, request.Cookie(c.Name, "", 0))
	}
	page(w, "Signed out", `<p>You are signed out here. At your issuer you may be signed in still.</p><p><a href="/">Sign in again</a></p>`)
}

// who is the page that says as whom a browser is here.
func who(w http.ResponseWriter, v *request.Visit) {
	t := v.Terms()
	page(w, "Postern", fmt.Sprintf(
		`<p>You are <b id="who">%s</b>, at <b>%s</b> under the task <b>%s</b>. What is asked and answered is recorded: %s.</p><form method="post" action="%s"><button>Sign out</button></form>`,
		html.EscapeString(t.Subject), html.EscapeString(string(t.Resource)), html.EscapeString(string(t.Task)), html.EscapeString(string(v.ID())), logoutPath))
}

// page is a page of the gateway's own; body is HTML.
func page(w http.ResponseWriter, title, body string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = fmt.Fprintf(w, "<!doctype html><meta charset=utf-8><title>%s</title><style>body{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:4em auto;padding:0 1em}</style><h1>%s</h1>%s\n", title, title, body)
}
