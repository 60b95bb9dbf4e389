package request

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"strings"
)

// Pending tells a client that people have been asked about its request, and that the same
// request goes through once they have said yes. A browser asks again by itself.
func Pending(w http.ResponseWriter, r *http.Request, notice string) {
	const hint = "send the same request again once it is approved"
	if notice == "" {
		notice = "waiting for approval"
	}
	link := ""
	if i := strings.Index(notice, "https://"); i >= 0 {
		link, _, _ = strings.Cut(notice[i:], " ")
	}
	h := w.Header()
	clear(h)
	h.Set(CodeHeader, "held")
	h.Set("Cache-Control", "no-store")
	h.Set("Retry-After", "3")
	h.Set("Preference-Applied", "respond-async")
	h.Set("X-Content-Type-Options", "nosniff")
	kind, body := "text/plain; charset=utf-8", fmt.Sprintf("postern: %s\n  hint: %s\n", notice, hint)
	switch accept := r.Header.Get("Accept"); {
	case strings.Contains(accept, "json"):
		if b, err := json.Marshal(map[string]string{"code": "held", "notice": notice, "url": link, "hint": hint}); err == nil {
			kind, body = "application/json", string(b)+"\n"
		}
	case strings.Contains(accept, "text/html"):
		kind = "text/html; charset=utf-8"
		again := ""
		if r.Method == http.MethodGet {
			again = "<meta http-equiv=refresh content=3>"
		}
		body = "<!doctype html><meta charset=utf-8>" + again + "<title>Postern</title><h1>Waiting for approval</h1><p>" + html.EscapeString(notice) + "</p>" + anchor(link) + "<p>" + hint + "</p>\n"
	}
	h.Set("Content-Type", kind)
	w.WriteHeader(http.StatusAccepted)
	_, _ = fmt.Fprint(w, body)
}

// anchor leads to where the request is approved.
func anchor(link string) string {
	if link == "" {
		return ""
	}
	return "<p><a id=approval href=\"" + html.EscapeString(link) + "\" target=_blank rel=noreferrer>" + html.EscapeString(link) + "</a></p>"
}
