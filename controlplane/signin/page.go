package signin

import (
	"html/template"
	"net/http"
)

// Path is where the page is served; the code follows.
const Path = "/sign-in/"

// page is what people see before they go to their issuer. Somebody who was sent the link
// by a stranger is told what they would let in.
var page = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Postern: sign in</title><meta name="viewport" content="width=device-width">
<style>body{font:16px system-ui;max-width:34rem;margin:3rem auto;padding:0 1rem}code{font-size:1.6rem;letter-spacing:.1em}dt{color:#555}dd{margin:0 0 .8rem;font-weight:600}a{display:inline-block;padding:.6rem 1rem;background:#124;color:#fff;text-decoration:none;border-radius:.3rem}</style></head><body>
{{with .}}<h1>Let a terminal in?</h1>
<p>Your terminal must show this code: <br><code>{{.Code}}</code></p>
<dl><dt>from the address</dt><dd>{{.Address}}</dd>
<dt>for the task</dt><dd>{{.Task}}{{with .Resource}} on {{.}}{{end}}</dd>
<dt>through the node</dt><dd>{{.Node}}</dd>{{with .Program}}
<dt>with</dt><dd>{{.}}</dd>{{end}}
<dt>until</dt><dd>{{.Expires.UTC.Format "15:04:05 UTC"}}</dd></dl>
<p>Go on only if you have just connected from there yourself. Whoever sent you this link otherwise would work as you.</p>
<p><a rel="noreferrer" href="{{.Link}}">It is me: sign in</a></p>
{{else}}<h1>Nothing to sign in for</h1><p>There is no such code, or it is over. Connect again for a new one.</p>{{end}}
</body></html>
`))

// Handler serves the page. It needs no login: it says what the holder of a code knows,
// and changes nothing.
func (s *Service) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "only to be looked at", http.StatusMethodNotAllowed)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		sh, err := s.find(r.Context(), r.URL.Path[len(Path):])
		switch {
		case err != nil:
			s.cfg.Logger.WarnContext(r.Context(), "a sign-in could not be looked up", "error", err)
			w.WriteHeader(http.StatusServiceUnavailable)
		case sh == nil:
			w.WriteHeader(http.StatusNotFound)
		}
		if r.Method == http.MethodGet {
			_ = page.Execute(w, sh)
		}
	})
}
