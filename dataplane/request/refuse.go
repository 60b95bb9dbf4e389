package request

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/posterngate/postern/pkg/postern"
)

// Status is the status code of a refusal.
func Status(c postern.Code) int {
	switch c {
	case postern.CodeBadToken:
		return http.StatusUnauthorized
	case postern.CodeLimit:
		return http.StatusTooManyRequests
	case postern.CodeProtocol, postern.CodeUndefined:
		return http.StatusBadRequest
	case postern.CodeUnavailable, postern.CodeStale:
		return http.StatusServiceUnavailable
	case postern.CodeDenied, postern.CodeNoGrant, postern.CodeCancelled, postern.CodeKilled:
	}
	return http.StatusForbidden
}

// grpcStatus is the code of gRPC for a refusal.
func grpcStatus(c postern.Code) int {
	switch c {
	case postern.CodeBadToken:
		return 16 // UNAUTHENTICATED
	case postern.CodeLimit:
		return 8 // RESOURCE_EXHAUSTED
	case postern.CodeProtocol, postern.CodeUndefined:
		return 3 // INVALID_ARGUMENT
	case postern.CodeUnavailable, postern.CodeStale:
		return 14 // UNAVAILABLE
	case postern.CodeCancelled:
		return 10 // ABORTED
	case postern.CodeDenied, postern.CodeNoGrant, postern.CodeKilled:
	}
	return 7 // PERMISSION_DENIED
}

// CodeHeader marks an answer that is the gateway's own and not the resource's.
const CodeHeader = "Postern-Code"

// A problem is a refusal as RFC 9457 has it, and once more in a line for npm and others, which
// show their users what is called error and nothing else.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Code   string `json:"code"`
	Rule   string `json:"rule,omitempty"`
	Hint   string `json:"hint,omitempty"`
	Error  string `json:"error"`
}

// registryErrors is a refusal as the OCI distribution specification has it.
type registryErrors struct {
	Errors [1]registryError `json:"errors"`
}

type registryError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Refuse answers a request with a refusal, in a form that its client reads. The parameters are
// those that a challenge to show a token has besides.
func Refuse(w http.ResponseWriter, r *http.Request, no *postern.Refusal, parameters ...string) {
	h := w.Header()
	clear(h)
	h.Set(CodeHeader, no.Code.String())
	h.Set("Cache-Control", "no-store")
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		h.Set("Content-Type", "application/grpc")
		status := grpcStatus(no.Code)
		if errors.Is(no.Cause, context.DeadlineExceeded) {
			status = 4 // DEADLINE_EXCEEDED
		}
		h.Set("Grpc-Status", fmt.Sprint(status))
		h.Set("Grpc-Message", grpcMessage(text(no)))
		if no.After > 0 {
			h.Set("Grpc-Retry-Pushback-Ms", strconv.FormatInt(no.After.Milliseconds()+1, 10))
		}
		w.WriteHeader(http.StatusOK)
		return
	}
	status := Status(no.Code)
	if no.Code == postern.CodeBadToken {
		h["Www-Authenticate"] = challenges(r, parameters)
	}
	if no.After > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(no.After.Seconds()))))
	}
	kind, body := refusalText(r, status, no)
	h.Set("Content-Type", kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// challenges are the ways to sign in that a client without a good token is told of.
func challenges(r *http.Request, parameters []string) []string {
	const basic = `Basic realm="postern"` // without which git and others do not send theirs
	bearer := strings.Join(append([]string{`Bearer realm="postern"`, `error="invalid_token"`}, parameters...), ", ")
	switch {
	case browses(r) || strings.HasPrefix(r.UserAgent(), "Mozilla/"): // would ask people for a password
		return []string{bearer}
	case ofRegistry(r): // docker and its like take the realm for the URL of who gives tokens
		return []string{basic}
	}
	return []string{bearer, basic}
}

// ofRegistry reports whether a request is one of the OCI distribution specification, by which
// container images are pushed and pulled.
func ofRegistry(r *http.Request) bool {
	rest, found := strings.CutPrefix(r.URL.Path, "/v2/")
	if !found || rest == "" || rest == "_catalog" {
		return found
	}
	for _, part := range []string{"/manifests/", "/blobs/", "/tags/list", "/referrers/"} {
		if strings.Contains(rest, part) {
			return true
		}
	}
	return false
}

// registryCode is what the distribution specification calls a status.
func registryCode(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "UNAUTHORIZED"
	case http.StatusTooManyRequests:
		return "TOOMANYREQUESTS"
	case http.StatusServiceUnavailable:
		return "UNAVAILABLE"
	}
	return "DENIED"
}

// refusalText is a refusal as the body of an answer: JSON or HTML for who asks for that, what
// a registry would say for who asks one, and else text, in the words of every other protocol.
func refusalText(r *http.Request, status int, no *postern.Refusal) (contentType string, body []byte) {
	accept := r.Header.Get("Accept")
	said := func(v any) []byte {
		b, _ := json.Marshal(v) // of strings and numbers alone
		return append(b, '\n')
	}
	switch {
	case ofRegistry(r) && !strings.Contains(accept, "text/html"):
		return "application/json", said(registryErrors{[1]registryError{{registryCode(status), line(no)}}})
	case strings.Contains(accept, "json"):
		return "application/problem+json", said(problem{"about:blank", no.Reason, status, no.Detail, no.Code.String(), no.Rule, no.Hint, line(no)})
	case strings.Contains(accept, "text/html"):
		return "text/html; charset=utf-8", page(fmt.Sprintf("%d: %s", status, http.StatusText(status)), no)
	}
	return "text/plain; charset=utf-8", []byte(text(no))
}

// line is text in one line.
func line(no *postern.Refusal) string {
	return strings.ReplaceAll(strings.TrimSpace(text(no)), "\n  ", "; ")
}

func text(no *postern.Refusal) string {
	var b strings.Builder
	b.WriteString("postern: " + no.Reason + "\n")
	for _, l := range [][2]string{{"rule", no.Rule}, {"detail", no.Detail}, {"hint", no.Hint}} {
		if l[1] != "" {
			b.WriteString("  " + l[0] + ": " + l[1] + "\n")
		}
	}
	return b.String()
}

func page(title string, no *postern.Refusal) []byte {
	var b strings.Builder
	b.WriteString("<!doctype html><meta charset=utf-8><title>Postern</title><style>body{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:4em auto;padding:0 1em}dt{color:#666}</style>")
	fmt.Fprintf(&b, "<h1>%s</h1><p>%s</p><dl>", html.EscapeString(title), html.EscapeString(no.Reason))
	for _, l := range [][2]string{{"Rule", no.Rule}, {"Detail", no.Detail}, {"What to do", no.Hint}} {
		if l[1] != "" {
			fmt.Fprintf(&b, "<dt>%s</dt><dd>%s</dd>", l[0], html.EscapeString(l[1]))
		}
	}
	b.WriteString("</dl>\n")
	return []byte(b.String())
}

// grpcMessage encodes a text as the header of gRPC asks for it.
func grpcMessage(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
