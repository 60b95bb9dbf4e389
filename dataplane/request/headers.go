package request

import (
	"net/http"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/postern"
)

// hop are the headers of one connection, and what frames messages: each side makes its own.
var hop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding",
	"Upgrade", "Content-Length", "Http2-Settings", "Expect", "Host",
}

// claims are headers by which proxies tell servers who a client is or where it meant to
// go. What a client says in them is not passed on. Those of Postern itself are beside.
var claims = []string{
	"Authorization", "Forwarded", "Via", "Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Cdn-Loop", "Fastly-Client-Ip", "Fly-Client-Ip", "X-Real-Ip",
	"X-Client-Ip", "X-Cluster-Client-Ip", "X-Azure-Clientip", "X-User", "X-Username", "X-Groups", "X-Email", "X-Original-Url", "X-Rewrite-Url", "X-Original-Uri",
	"X-Original-Host", "X-Original-Method", "X-Host", "X-Envoy-External-Address", "X-Envoy-Original-Path", "X-Client-Cert", "X-Client-Dn", "X-Client-Verify",
	"X-Ssl-Cert", "X-Arr-Clientcert", "X-Goog-Iap-Jwt-Assertion", "X-Endpoint-Api-Userinfo", "X-Apigateway-Api-Userinfo", "X-Credential-Identifier",
	"X-Auth-Username", "X-Auth-Userid", "X-Auth-User", "X-Auth-Subject", "X-Auth-Email", "X-Auth-Groups", "X-Auth-Roles", "Cf-Access-Jwt-Assertion",
	"Proxy", // servers of CGI make it the proxy of the program that they start
}

var claimPrefixes = []string{
	"X-Forwarded-", "X-Auth-Request-", "Remote-", "X-Remote-", "X-Token-", "X-Postern-", "Postern-", "Impersonate-", "X-Ssl-Client-", "Ssl-Client-", "X-Client-Cert-",
	"Proxy-", "X-Authenticated-", "X-Webauth-", "X-Authentik-", "X-Pomerium-", "X-Vouch-", "X-Consumer-", "X-Amzn-Oidc-", "X-Amzn-Mtls-", "X-Ms-Client-Principal",
	"X-Goog-Authenticated-User-", "Cf-Access-Authenticated-", "Tailscale-User-",
}

// overrides name another method than the one that was judged.
var overrides = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}

// withheld reports whether a header of a client is not passed on, by its canonical name. A
// name with an underscore is not either: some servers read it as one with a dash.
func withheld(name string) bool {
	return slices.Contains(claims, name) || strings.ContainsAny(name, "_. ") ||
		slices.ContainsFunc(claimPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// single are headers that are judged as they come, and stand once.
var single = []string{"Content-Type", "Content-Encoding", "Upgrade", "Range", "Host", "Mcp-Session-Id"}

// check refuses what would have a server do something else than what is judged.
func check(r *http.Request) *postern.Refusal {
	for name := range r.Header {
		plain := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
		if slices.Contains(overrides, plain) {
			return Bad("the header " + plain + " names another method than the request has")
		}
	}
	listed := options(r.Header)
	for _, name := range single {
		switch n := len(r.Header.Values(name)); {
		case n > 1:
			return Bad("the header " + name + " stands twice")
		case n > 0 && listed[name] && !slices.Contains(hop, name):
			return Bad("the header Connection takes " + name + " away, by which the request is judged")
		}
	}
	return nil
}

// Forward copies what of a client's headers goes on to the resource.
func Forward(dst, src http.Header) {
	listed := options(src)
	for name, values := range src {
		if name == "Cookie" {
			if values = others(values); len(values) == 0 {
				continue
			}
		}
		if !slices.Contains(hop, name) && !listed[name] && !withheld(name) {
			dst[name] = values
		}
	}
}

// Return copies what of a resource's headers goes back to the client: nothing that is
// said to be Postern's own, and none of its challenges, for it gets no credential of the client's,
// who would show it to the gateway.
func Return(dst, src http.Header) {
	listed := options(src)
	for name, values := range src {
		if name == "Set-Cookie" {
			if values = slices.DeleteFunc(slices.Clone(values), ownCookie); len(values) == 0 {
				continue
			}
		}
		if !slices.Contains(hop, name) && !listed[name] && !strings.HasPrefix(name, "Postern-") && name != "Alt-Svc" && name != "Www-Authenticate" {
			dst[name] = values
		}
	}
}

// shared are headers that say to caches which many clients share what Cache-Control says to all.
var shared = []string{"Surrogate-Control", "Cdn-Cache-Control", "X-Accel-Expires"}

// Private keeps an answer out of caches that others have too: it is for one subject, under one
// task, whatever the resource takes it for.
func Private(h http.Header) {
	for name := range h {
		if slices.Contains(shared, name) || strings.HasSuffix(name, "-Cdn-Cache-Control") {
			delete(h, name)
		}
	}
	private, kept := false, []string{"private"}
	for _, v := range h["Cache-Control"] {
		for d := range strings.SplitSeq(v, ",") {
			d = strings.TrimSpace(d)
			switch name, _, _ := strings.Cut(strings.ToLower(d), "="); name {
			case "", "public", "s-maxage":
				continue
			case "private", "no-store":
				private = private || len(d) == len(name) // or it is of some headers alone
			}
			kept = append(kept, d)
		}
	}
	if private {
		kept = kept[1:]
	}
	h["Cache-Control"] = []string{strings.Join(kept, ", ")}
}

// options are the headers that Connection names.
func options(h http.Header) map[string]bool {
	if len(h["Connection"]) == 0 {
		return nil
	}
	listed := map[string]bool{}
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			listed[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	return listed
}

// secrets are headers whose values are not recorded.
var secrets = []string{"Cookie", "Set-Cookie", "Authorization", "Proxy-Authorization", "Www-Authenticate", "X-Api-Key", "X-Auth-Token", "X-Csrf-Token", "X-Xsrf-Token", "Postern-Identity"}

// shownHeaders lists headers as "name: value", by name, as they may be recorded.
func shownHeaders(h http.Header) []string {
	text := shownText(h)
	out := make([]string, 0, strings.Count(text, "\n"))
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		out = append(out, line)
	}
	return out
}

// shownText is what shownHeaders lists, each with a line's end. It is made for each request.
func shownText(h http.Header) string { return string(AppendShown(nil, h)) }

// AppendShown appends shownText.
func AppendShown(b []byte, h http.Header) []byte {
	var room [32]string
	names, size := room[:0], 0
	for name, values := range h {
		names = append(names, name)
		for _, v := range values {
			size += len(name) + len(v) + len(": \n")
		}
	}
	slices.Sort(names)
	b = slices.Grow(b, size+len(redacted))
	for _, name := range names {
		lower, secret := spelled(name)
		for _, v := range h[name] {
			if secret {
				v = redacted
			}
			b = append(append(append(append(b, lower...), ": "...), oneLine(v)...), '\n')
		}
	}
	return b
}

const redacted = "(redacted)"

// oneLine is a value without what would end its line; parsers let none in.
func oneLine(v string) string {
	if strings.ContainsAny(v, "\r\n") {
		return strings.NewReplacer("\r", " ", "\n", " ").Replace(v)
	}
	return v
}

// spelled is a header's name in small letters, and whether its value is secret.
func spelled(name string) (lower string, secret bool) {
	if lower, plain := plainNames[name]; plain {
		return lower, false
	}
	lower = strings.ToLower(name)
	return lower, slices.Contains(secrets, name) || sensitive(lower)
}

// plainNames are headers that most messages have and that are not secret.
var plainNames = func() map[string]string {
	m := map[string]string{}
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Accept-Ranges", "Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Type",
		"Date", "Etag", "Expires", "Host", "Last-Modified", "Origin", "Referer", "Server", "Te", "Transfer-Encoding", "User-Agent", "Vary", "X-Request-Id",
	} {
		m[name] = strings.ToLower(name)
	}
	return m
}()

// sensitive reports whether a header's very name, in small letters, says that it is secret.
func sensitive(lower string) bool {
	return slices.ContainsFunc([]string{"secret", "token", "password", "api-key", "apikey", "credential", "session", "signature"}, func(w string) bool { return strings.Contains(lower, w) })
}
