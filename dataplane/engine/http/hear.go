package http

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/pkg/content"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/postern"
)

// hear is what of a server's answer the client may see, with the refusals of what was not
// sent on. h and the status are changed to fit.
func (x *exchange) hear(resp *http.Response, h http.Header, secrets [][]byte) (io.Reader, error) {
	t := x.talk
	if resp.StatusCode == http.StatusUnauthorized { // a client would sign in anew at the gateway
		return nil, &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the resource does not take the credential that the gateway shows it", Hint: "tell the operators of the resource"}
	}
	untell(h)
	t.server.Name(t.Talk, resp.Header.Get(sessionHeader))
	if x.r.Method == http.MethodDelete && resp.StatusCode < http.StatusMultipleChoices {
		t.server.End(t.Talk)
	}
	kind, coding, err := form(resp)
	if err != nil {
		return x.unheard(resp, h, err)
	}
	from, asked := resp.Body, t.asked()
	if nothing(resp) {
		if len(asked.Refusals) == 0 && (len(asked.Sent) == 0 || resp.StatusCode >= http.StatusBadRequest) {
			h.Del("Content-Type")
			return http.NoBody, nil
		}
		kind, coding, from = "application/json", "", http.NoBody
		h.Set("Content-Type", kind)
		resp.StatusCode = http.StatusOK
	}
	if t.heard, err = t.NewBodies(kind, x.masks, asked); err != nil {
		return x.unheard(resp, h, err)
	}
	r, err := content.NewReader(from, x.keepRaw(t.heard, secrets), coding)
	if err != nil {
		return x.unheard(resp, h, err)
	}
	if t.heard.Events() {
		resp.ContentLength = -1 // it comes in parts
		return r, nil
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return x.unheard(resp, h, err)
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	return bytes.NewReader(b), nil
}

// asked is what the request asked.
func (t *talk) asked() mcp.Asked {
	a := mcp.Asked{Batch: t.batch, Refusals: t.refusals, Memory: t.memory}
	for _, c := range t.calls {
		if c.Request() {
			a.Sent = append(a.Sent, c.ID)
		}
	}
	return a
}

// nothing reports whether an answer has no body, which it may say late.
func nothing(resp *http.Response) bool {
	if resp.ContentLength == 0 || resp.StatusCode == http.StatusNoContent {
		return true
	}
	if resp.Header.Get("Content-Type") != "" {
		return false
	}
	var b [1]byte
	n, err := io.ReadFull(resp.Body, b[:])
	return n == 0 && errors.Is(err, io.EOF)
}

// unheard is for an answer that is not of MCP: of an error its status is told, and of
// anything else that it cannot be shown.
func (x *exchange) unheard(resp *http.Response, h http.Header, err error) (io.Reader, error) {
	x.talk.heard = nil
	if resp.StatusCode >= http.StatusBadRequest {
		h.Del("Content-Length")
		return x.blank(resp.StatusCode, h), nil
	}
	return nil, &postern.Refusal{
		Code: postern.CodeUnavailable, Reason: fmt.Sprintf("the resource did not answer as a server of MCP does: %v", err), Rule: x.adm.Decision.Rule,
		Hint: "tell the operators of the resource", Cause: err,
	}
}

// answerMessages answers with messages of the gateway's own.
func (x *exchange) answerMessages(status int, messages []*mcp.Message) {
	body, err := mcp.Encode(messages, x.talk.batch)
	if err != nil {
		x.e.refuse(x.w, x.r, err)
		return
	}
	h := x.w.Header()
	clear(h)
	h.Set(request.CodeHeader, "answered")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "application/json")
	x.w.WriteHeader(status)
	_, _ = x.w.Write(body)
}

// failMessages answers a request with messages that failed as a whole.
func (x *exchange) failMessages(no *postern.Refusal) {
	if answers := x.talk.unanswered(no); len(answers) > 0 {
		x.answerMessages(http.StatusOK, answers)
		return
	}
	status := request.Status(no.Code)
	if errors.Is(no.Cause, errNoTalk) {
		status = http.StatusNotFound
	}
	x.answerMessages(status, []*mcp.Message{mcp.Refusal("", no)})
}
