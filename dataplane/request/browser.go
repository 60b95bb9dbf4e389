package request

import (
	"net/http"
	"strings"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
)

// Cookies of the gateway's own at the host of a task. They are for it alone: resources
// neither get nor set them.
const (
	SessionCookie = "__Host-postern"
	LoginCookie   = "__Host-postern-login"

	maxCookie = 4 << 10
)

// browserToken begins the tokens that browsers have, and nobody else.
const browserToken = "psb_"

// Cookie makes a cookie of the gateway's own; without a value it takes it back.
func Cookie(name, value string, age time.Duration) *http.Cookie {
	c := &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: int(age.Seconds()), Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if value == "" || c.MaxAge <= 0 {
		c.MaxAge = -1
	}
	return c
}

// CookieOf is the value of a cookie that stands once; else it is empty.
func CookieOf(r *http.Request, name string) string {
	all := r.CookiesNamed(name)
	if r.TLS == nil || len(all) != 1 || len(all[0].Value) > maxCookie {
		return ""
	}
	return all[0].Value
}

// Navigates reports whether a browser opens a page with the request, and so can be sent
// elsewhere to sign in.
func Navigates(r *http.Request) bool {
	return r.TLS != nil && r.Method == http.MethodGet && r.Header.Get("Upgrade") == "" && strings.Contains(r.Header.Get("Accept"), "text/html") &&
		either(r.Header.Get("Sec-Fetch-Mode"), "", "navigate") && either(r.Header.Get("Sec-Fetch-Dest"), "", "document")
}

// browses reports whether a browser asks, which sends a password along whatever page has it ask.
func browses(r *http.Request) bool {
	return r.Header["Sec-Fetch-Site"] != nil || r.Header["Origin"] != nil
}

func either(v string, of ...string) bool {
	for _, o := range of {
		if v == o {
			return true
		}
	}
	return false
}

// foreign refuses what a page of another host has a browser ask with the cookie of this one,
// but for opening a page. Hosts of other tasks are other hosts too.
func foreign(r *http.Request) *postern.Refusal {
	no := &postern.Refusal{Reason: "a page of another site asked for this with your sign-in", Rule: string(postern.HTTP) + "/origin", Hint: "ask from the app's own pages, or with a token of your own"}
	opens := r.Method == http.MethodGet && r.Header.Get("Upgrade") == "" && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	origin := r.Header.Get("Origin")
	switch site := r.Header.Get("Sec-Fetch-Site"); {
	case either(site, "same-origin", "none"):
		return nil
	case site != "":
		if opens {
			return nil
		}
	case origin == "" && either(r.Method, http.MethodGet, http.MethodHead, http.MethodOptions) && r.Header.Get("Upgrade") == "":
		return nil
	case origin != "" && origin == "https://"+strings.ToLower(r.Host):
		return nil
	}
	return no
}

// ownCookie reports whether a cookie is the gateway's, whoever names it: one without a name
// comes back as its value, which may begin with one.
func ownCookie(pair string) bool {
	name := strings.TrimLeft(strings.TrimSpace(pair), "= \t")
	return len(name) >= len(SessionCookie) && strings.EqualFold(name[:len(SessionCookie)], SessionCookie)
}

// others are the cookies of a request without the gateway's own.
func others(values []string) []string {
	var out []string
	for _, v := range values {
		var kept []string
		for pair := range strings.SplitSeq(v, ";") {
			if pair = strings.Trim(pair, " \t"); pair != "" && !ownCookie(pair) {
				kept = append(kept, pair)
			}
		}
		if len(kept) > 0 {
			out = append(out, strings.Join(kept, "; "))
		}
	}
	return out
}

// Entrance is where browsers sign in, where there is one.
func (c *Conn) Entrance() (engine.Entrance, bool) {
	e, ok := c.door.(engine.Entrance)
	return e, ok
}

// End ends a session before its time: no request joins it any more.
func (c *Conn) End(v *Visit, why *postern.Refusal) {
	c.s.book.hold(v)
	c.s.book.end(v)
	v.Close(why)
	c.s.book.leave(v)
}
