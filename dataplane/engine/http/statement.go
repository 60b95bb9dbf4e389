package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/pkg/content"
	pkghttp "github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
)

// analysis is one understood request, or message that one carries.
type analysis struct {
	facts    any // *pkghttp.Facts or *mcp.Facts
	text     string
	masks    *content.Rule    // nil masks nothing
	messages *postern.MCPRule // nil where it carries none that are judged by themselves
}

var _ engine.Analysis = (*analysis)(nil)

func (a *analysis) Facts() any { return a.facts }

// Plain is true: the text is the canonical form already.
func (a *analysis) Plain() bool       { return true }
func (a *analysis) Canonical() string { return a.text }

func (a *analysis) Rewrite([]postern.Obligation) (string, error) {
	return "", errors.New("a request is not rewritten")
}

// understand reads what the request is for. An error is a *postern.Refusal.
func (x *exchange) understand() error {
	r := x.r
	if r.RequestURI == "" || r.RequestURI[0] != '/' {
		return request.Bad("the target is not a path: neither proxies nor tunnels are served here")
	}
	var err error
	if x.target, err = pkghttp.ParseTarget(r.RequestURI); err != nil {
		return request.Bad(err.Error())
	}
	f := &pkghttp.Facts{Method: r.Method, Path: x.target.Path, Query: x.target.Query}
	if f.ContentType, err = contentType(r); err != nil {
		return err
	}
	if f.Upgrade, err = upgrade(r); err != nil {
		return err
	}
	if strings.HasPrefix(f.Path, ownPath) {
		return request.Bad("the path is the gateway's own")
	}
	if f.Destination, err = x.destination(); err != nil {
		return err
	}
	x.facts, x.to = f, x.target.String()
	return nil
}

// contentType is the media type of a body.
func contentType(r *http.Request) (string, error) {
	v := r.Header.Get("Content-Type")
	if v == "" {
		return "", nil
	}
	kind, params, err := mime.ParseMediaType(v)
	if err != nil {
		return "", request.Bad("the header Content-Type cannot be read")
	}
	switch strings.ToLower(params["charset"]) {
	case "", "utf-8", "utf8": // the latter by many, and taken for it
	default:
		if strings.HasSuffix(kind, "json") || kind == "application/x-www-form-urlencoded" {
			return "", request.Bad("the body is not in UTF-8")
		}
	}
	return kind, nil
}

// upgrade is the protocol that the connection is to become.
func upgrade(r *http.Request) (string, error) {
	if r.Method == http.MethodConnect {
		return "", request.Bad("tunnels are not served here")
	}
	v := r.Header.Get("Upgrade")
	if v == "" {
		return "", nil
	}
	if !strings.EqualFold(v, "websocket") || r.Method != http.MethodGet || r.ProtoMajor != 1 {
		return "", &postern.Refusal{Reason: fmt.Sprintf("the connection cannot become %q here", v), Rule: string(postern.HTTP) + "/upgrade", Hint: "only WebSockets are taken, where a task allows them"}
	}
	return "websocket", nil
}

// statement makes the Statement of the request. What the text does not say of it is in
// the context.
func (x *exchange) statement() *engine.Statement {
	f := x.facts
	text := f.Method + " " + x.to
	st := &engine.Statement{
		Text: text, Context: f.Upgrade + " " + x.beside(),
		Analyse: func(context.Context) (engine.Analysis, error) {
			x.headers()
			return &analysis{facts: f, text: text}, nil
		},
		Meets: meets, Body: x.parse,
	}
	return st
}

// beside is what tells requests of one text apart that are judged by more: what their body
// is, and which headers name something else.
func (x *exchange) beside() string {
	names := pkghttp.Elsewhere(func(name string) bool { return x.r.Header.Values(name) != nil })
	return strings.Join(append(names, x.facts.ContentType, x.facts.Destination), " ")
}

// parse reads the body into the facts, because a rule reads it.
func (x *exchange) parse(ctx context.Context) error {
	b, err := x.plain(ctx)
	if err != nil {
		return err
	}
	if x.facts.Body, err = pkghttp.ParseBody(x.facts.ContentType, b); err != nil {
		return request.Bad(err.Error())
	}
	return nil
}

// plain is the whole body, which must not be packed.
func (x *exchange) plain(ctx context.Context) ([]byte, error) {
	b, err := x.buffer(ctx)
	if err == nil && x.r.Header.Get("Content-Encoding") != "" {
		err = request.Bad("a rule reads the body, and it is encoded")
	}
	return b, err
}

// headers adds to the facts the headers that rules read.
func (x *exchange) headers() {
	clean := http.Header{}
	request.Forward(clean, x.r.Header)
	delete(clean, "Cookie")
	by, twice := make(map[string]string, len(clean)), map[string]bool{}
	for name, values := range clean {
		lower := strings.ToLower(name)
		by[lower] = strings.Join(values, ", ")
		if len(values) > 1 {
			twice[lower] = true
		}
	}
	x.facts.Header, x.facts.Twice = by, twice
}

// buffer reads the whole body, once, because people or rules read it.
func (x *exchange) buffer(ctx context.Context) ([]byte, error) {
	if x.buffered {
		return x.body, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(x.r.Body, pkghttp.MaxBody+1))
	switch {
	case err != nil:
		return nil, unread(err)
	case len(b) > pkghttp.MaxBody:
		return nil, &postern.Refusal{Code: postern.CodeProtocol, Reason: fmt.Sprintf("the body is longer than the %d bytes that people and rules read", pkghttp.MaxBody), Hint: "send less at once"}
	}
	x.body, x.buffered = b, true
	return b, nil
}

// unread words that the client has not sent all of a body.
func unread(err error) error {
	if late := (net.Error)(nil); errors.As(err, &late) && late.Timeout() {
		return &postern.Refusal{Code: postern.CodeProtocol, Reason: "nothing more of the body came, and it has not ended", Hint: "send it without such pauses", Cause: err}
	}
	return &postern.Refusal{Code: postern.CodeProtocol, Reason: "the body ended early", Hint: "send the request again", Cause: err}
}

// args are what people approve beside the first line: headers and the body. Where nobody is
// asked the body is recorded as it goes, with the task's masks.
func (x *exchange) args() engine.Args {
	a := engine.Args{Beside: veiled(x.h.Shown(x.r), x.masks)}
	if x.adm.Decision.Verdict != postern.VerdictHold {
		return a
	}
	with := request.Approved(x.h.Forward(x.r))
	if len(with) > 0 || len(x.body) > 0 { // or a body could pass for headers
		a.Values = [][]byte{withHeaders(with)}
		a.Null = func(int) bool { return false }
	}
	if len(x.body) > 0 {
		a.Values = append(a.Values, x.body)
		if !utf8.Valid(x.body) {
			a.Formats = []int16{0, 1}
		}
	}
	return a
}

// withHeaders shows headers to people.
func withHeaders(lines []string) []byte {
	return []byte(strings.Join(append([]string{"with the headers:"}, lines...), "\n"))
}
