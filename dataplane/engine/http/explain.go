package http

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/pkg/mcp"
)

// Explain makes the Statement of a request in words: a method, a target, and a JSON body
// where it has one. A body that is a message of MCP is judged as that.
func (e *Engine) Explain(_ context.Context, _ engine.Session, text string) (*engine.Statement, error) {
	method, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	target, body, _ := strings.Cut(strings.TrimSpace(rest), " ")
	body = strings.TrimSpace(body)
	r := &http.Request{Method: method, RequestURI: target, Header: http.Header{}, ProtoMajor: 1, Body: io.NopCloser(strings.NewReader(body))}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	x := &exchange{e: e, r: r}
	if err := x.understand(); err != nil {
		return unclear(text, err), nil
	}
	if !strings.Contains(body, `"jsonrpc"`) {
		return x.statement(), nil
	}
	messages, _, err := mcp.Parse([]byte(body))
	switch {
	case err != nil:
		return unclear(text, request.Bad(err.Error())), nil
	case len(messages) > 1:
		return unclear(text, request.Bad("a batch is judged message by message: ask for one of them")), nil
	}
	x.headers()
	return x.message(messages[0].Facts(x.facts)), nil
}

// unclear is a statement that is refused before policy sees it.
func unclear(text string, err error) *engine.Statement {
	return &engine.Statement{Text: text, Private: true, Analyse: func(context.Context) (engine.Analysis, error) { return nil, err }}
}
