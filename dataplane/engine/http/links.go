package http

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/posterngate/postern/dataplane/request"
	pkghttp "github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
)

// redirect keeps a client that is sent on within the resource at the gateway, and cookies
// at the host of its task.
func (x *exchange) redirect(h http.Header) error {
	for _, name := range []string{"Location", "Content-Location"} {
		v := h.Get(name)
		if v == "" {
			continue
		}
		u, err := url.Parse(v)
		if err != nil {
			return &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the resource sends the client to a place that cannot be read", Cause: err}
		}
		h.Set(name, x.here(u))
	}
	if links := slices.Clone(h["Link"]); links != nil {
		for i, v := range links {
			links[i] = relink(v, x.linked)
		}
		h["Link"] = links
	}
	clearsOwn(h)
	cookies := h["Set-Cookie"] // a copy (request.Return)
	for i, c := range cookies {
		parts := strings.Split(c, ";")
		kept := parts[:1]
		for _, p := range parts[1:] {
			if name, _, _ := strings.Cut(strings.TrimSpace(p), "="); !strings.EqualFold(name, "domain") {
				kept = append(kept, p)
			}
		}
		cookies[i] = strings.Join(kept, ";")
	}
	return nil
}

// clearsOwn leaves to a service to clear what is its own in a browser: cookies would go, with the
// gateway's, at all hosts of the domain.
func clearsOwn(h http.Header) {
	var kept []string
	for _, v := range h["Clear-Site-Data"] {
		for d := range strings.SplitSeq(v, ",") {
			switch d = strings.TrimSpace(d); d {
			case `"cookies"`:
			case `"*"`:
				kept = append(kept, `"cache"`, `"storage"`)
			default:
				kept = append(kept, d)
			}
		}
	}
	delete(h, "Clear-Site-Data")
	if len(kept) > 0 {
		h["Clear-Site-Data"] = []string{strings.Join(kept, ", ")}
	}
}

// here is where u leads a client of the gateway: to a path there, where it is within the
// resource.
func (x *exchange) here(u *url.URL) string {
	u.User = nil
	if !x.within(u) {
		return u.String()
	}
	u.Scheme, u.Host = "", ""
	u.Path = cmp.Or(u.Path, "/") // or it is where the client is
	to := u.String()
	if strings.HasPrefix(to, "//") {
		to = "/." + to // or a host begins there
	}
	return to
}

// within reports whether u names the resource as the gateway does, with the port or without
// where it is its scheme's own.
func (x *exchange) within(u *url.URL) bool {
	if u.Host == "" {
		return false
	}
	scheme := request.Scheme(x.terms)
	return strings.EqualFold(bare(u.Host, cmp.Or(u.Scheme, scheme)), bare(x.terms.HTTP.Authority, scheme))
}

// bare is an authority without its scheme's own port.
func bare(authority, scheme string) string {
	port := ":443"
	if strings.EqualFold(scheme, "http") {
		port = ":80"
	}
	return strings.TrimSuffix(authority, port)
}

// linked is a target of a Link as a client of the gateway finds it: whole where it was, since
// few clients know that it may be a path.
func (x *exchange) linked(target string) string {
	u, err := url.Parse(target)
	if err != nil || !x.within(u) {
		return target // where it leads is for the client, who has no credential to lose there
	}
	to := x.here(u)
	if strings.HasPrefix(to, "/.//") {
		to = to[len("/."):]
	}
	return x.origin() + to
}

// origin is the gateway's, as its client names it.
func (x *exchange) origin() string { return origin(x.r) }

func origin(r *http.Request) string {
	if r.TLS == nil {
		return "http://" + r.Host
	}
	return "https://" + r.Host
}

// there has pages of the resource, which a browser knows by the gateway's address, be asked from
// as the resource's own: services refuse forms and sockets of pages of others.
func (x *exchange) there(h http.Header) {
	for _, name := range []string{"Origin", "Referer"} {
		if h[name] == nil {
			continue
		}
		if rest, ours := x.ours(h.Get(name)); ours && len(h[name]) == 1 {
			h[name] = []string{request.Scheme(x.terms) + "://" + x.terms.HTTP.Authority + rest}
		}
	}
	if to := x.facts.Destination; to != "" {
		h.Set(destinationHeader, request.Scheme(x.terms)+"://"+x.terms.HTTP.Authority+pkghttp.Target{Path: to}.String())
	}
}

// ours is what stands in a URL behind the gateway's origin, where it has that.
func (x *exchange) ours(v string) (rest string, ours bool) {
	here := x.origin()
	n := len(here)
	if len(v) < n || !strings.EqualFold(v[:n], here) || len(v) > n && v[n] != '/' {
		return "", false
	}
	return v[n:], true
}

const destinationHeader = "Destination"

// destination is the path that WebDAV copies or moves to (RFC 4918, 10.3), which is one of the
// resource; empty where the request names none.
func (x *exchange) destination() (string, error) {
	values := x.r.Header[destinationHeader]
	if len(values) == 0 || x.r.Method != "COPY" && x.r.Method != "MOVE" {
		return "", nil
	}
	raw := values[0]
	if rest, ours := x.ours(raw); ours {
		raw = cmp.Or(rest, "/")
	}
	to, err := pkghttp.ParseTarget(raw)
	switch {
	case len(values) > 1:
		return "", request.Bad("the header Destination is there more than once")
	case strings.Contains(raw, "://") && !strings.HasPrefix(raw, "/"):
		return "", request.Bad("the header Destination names another server than " + x.origin())
	case err != nil:
		return "", request.Bad("the header Destination cannot be read: " + err.Error())
	case len(to.Query) > 0:
		return "", request.Bad("the header Destination has a query")
	case strings.HasPrefix(to.Path, ownPath):
		return "", request.Bad("the header Destination names a path that is the gateway's own")
	}
	return to.Path, nil
}

// relink makes other targets of those in a Link (RFC 8288, 3), which stand in angle brackets
// outside of quotes. What is not of that form stays as it is.
func relink(v string, other func(string) string) string {
	var out strings.Builder
	for v != "" {
		i := strings.IndexAny(v, `<"`)
		if i < 0 {
			break
		}
		out.WriteString(v[:i])
		v = v[i:]
		end := strings.IndexByte(v, '>')
		if v[0] == '"' {
			end = quoted(v)
		}
		if end < 0 {
			break
		}
		if v[0] == '<' {
			out.WriteString("<" + other(v[1:end]) + ">")
		} else {
			out.WriteString(v[:end+1])
		}
		v = v[end+1:]
	}
	out.WriteString(v)
	return out.String()
}

// quoted is where the quoted string ends that v begins with; -1 where it does not.
func quoted(v string) int {
	for i := 1; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}
