package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/dataplane/request/h1"
	pkghttp "github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
)

// forward sends the admitted request to the resource and its answer back, with a
// credential that is lent for just that long.
func (x *exchange) forward(ctx context.Context) (out engine.Outcome, err error) {
	switch x.terms.HTTP.Auth {
	case "none", "certificate": // which is shown in TLS
		return x.trip(ctx, nil)
	case "sigv4":
		if !x.buffered && x.r.ContentLength != 0 && !streams(x.terms) {
			if _, err := x.buffer(ctx); err != nil {
				return engine.Outcome{}, err
			}
			if err := x.overridden(ctx, x.fields().Find(x.body)); err != nil {
				return engine.Outcome{}, err
			}
		}
	}
	if l, ok := x.v.Session.(engine.Lender); !ok || !l.Lent(engine.PurposeSession) {
		pump.Off(ctx)
	}
	var trip error
	err = x.v.Lend(ctx, engine.PurposeSession, func(c *engine.Credential) error {
		out, trip = x.trip(ctx, c)
		return trip
	})
	if err != nil && trip == nil && !x.answered {
		err = x.unreachable(err)
	}
	return out, err
}

// trip is one round trip.
func (x *exchange) trip(ctx context.Context, c *engine.Credential) (engine.Outcome, error) {
	out, err := x.outgoing(ctx)
	if err != nil {
		return engine.Outcome{}, err
	}
	if out.Body != nil {
		defer func() { _ = out.Body.Close() }() // once it returns, nobody reads
	}
	var told [][]byte
	if x.terms.HTTP.Identity {
		who, err := x.v.Vouch(ctx)
		if err != nil {
			return engine.Outcome{}, x.unvouched(err)
		}
		out.Header.Set(identityHeader, who)
		told = [][]byte{[]byte(who)} // whoever has it could pass for the gateway
	}
	secrets, err := x.inject(out, c) // last: a signature is over all the rest
	if err != nil {
		return engine.Outcome{}, x.unreachable(err)
	}
	secrets = append(secrets, told...)
	if x.facts.Upgrade != "" {
		return x.tunnel(ctx, out, secrets)
	}
	via := x.v.Upstream
	if x.facts.GRPC() && x.terms.TLS.Mode == "disable" {
		via = x.v.HTTP2
	}
	if x.memo != nil && c == nil && told == nil && via == http.RoundTripper(x.v.HTTP1) {
		x.memo.out = out // which is asked with once at a time, as its Head is
	}
	resp, err := via.RoundTrip(out)
	if err != nil {
		if ctx.Err() != nil {
			return engine.Outcome{}, context.Cause(ctx)
		}
		if x.overdue() {
			return engine.Outcome{}, errOverdue
		}
		return engine.Outcome{}, x.unreachable(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return engine.Outcome{Tag: statusLine(resp.StatusCode)}, x.answer(ctx, resp, secrets)
}

// identityHeader tells a resource who asks. No client's own goes through: see request.Claims.
const identityHeader = "Postern-Identity"

// unvouched words that the resource cannot be told who asks.
func (x *exchange) unvouched(err error) error {
	no := *postern.AsRefusal(err)
	no.Detail = fmt.Sprintf("resource %q is told who asks, and could not be", x.terms.Resource)
	return &no
}

// address is where the request goes. It must not be changed.
func (x *exchange) address() (*url.URL, error) {
	if x.at != nil {
		return x.at, nil
	}
	_, target, _ := strings.Cut(x.adm.Forward, " ")
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, request.Bad("the target cannot be sent on")
	}
	u.Scheme, u.Host = request.Scheme(x.terms), x.terms.HTTP.Authority
	x.at = u
	return u, nil
}

// outgoing is the request as the resource gets it: made anew, of what was understood, or the
// one that such a request was made of before.
func (x *exchange) outgoing(ctx context.Context) (*http.Request, error) {
	if x.out != nil && x.out.Context() == ctx {
		return x.out, nil
	}
	at, err := x.address()
	if err != nil {
		return nil, err
	}
	u := *at
	out := (&http.Request{
		Method: x.facts.Method, URL: &u, Host: u.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: x.h.Forward(x.r), ContentLength: x.r.ContentLength,
	}).WithContext(ctx)
	x.talk.headers(out.Header)
	x.there(out.Header)
	if _, named := out.Header["User-Agent"]; !named {
		out.Header["User-Agent"] = nil // or the library names itself
	}
	// What is injected must not come back unseen, so that answers are taken as they are, and
	// messages of a WebSocket are not packed.
	out.Header.Set("Accept-Encoding", "identity")
	for _, name := range []string{"Grpc-Accept-Encoding", "Connect-Accept-Encoding"} {
		if out.Header[name] != nil {
			out.Header.Set(name, "identity")
		}
	}
	if x.facts.Upgrade != "" {
		out.Header.Del("Accept-Encoding")
		out.Header.Del("Sec-Websocket-Extensions")
		out.Header.Set("Connection", "Upgrade")
		out.Header.Set("Upgrade", x.facts.Upgrade)
	}
	if err := x.unconditional(out.Header); err != nil {
		return nil, err
	}
	if x.facts.GRPC() {
		out.Header.Set("Te", "trailers")
	}
	switch {
	case x.buffered:
		if len(x.body) > 0 && x.talk == nil { // messages are recorded each by itself
			if err := x.asked(x.body); err != nil {
				return nil, err
			}
		}
		out.ContentLength = int64(len(x.body))
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(x.body)), nil }
		out.Body, _ = out.GetBody()
	case x.r.ContentLength != 0:
		// Answers may begin before all has been asked.
		if err := http.NewResponseController(x.w).EnableFullDuplex(); err != nil && x.r.ProtoMajor == 1 {
			return nil, err
		}
		out.Body = &asked{x: x, ctx: ctx, body: x.r.Body, fields: x.fields()} // and no trailer: nobody has judged it
	}
	if len(x.body) == 0 && x.buffered {
		out.Body, out.GetBody = http.NoBody, nil
	}
	return out, nil
}

// unconditional takes out what asks for a part of what is masked, or names a version of it, which
// would tell guesses about it. What writes on such a condition must not be done without it.
func (x *exchange) unconditional(h http.Header) error {
	if x.masks == nil {
		return nil
	}
	for _, name := range []string{"Range", "If-Range", "If-Match", "If-None-Match"} {
		v, has := h[name]
		if writes := x.talk == nil && !pkghttp.Reads(x.facts.Method); has && writes && strings.HasSuffix(name, "Match") {
			if len(v) == 1 && v[0] == "*" { // that there is anything, or nothing
				continue
			}
			return &postern.Refusal{
				Reason: fmt.Sprintf("the header %s names a version of what the task masks, which would tell whether guesses about it are right", name), Rule: x.adm.Decision.Rule,
				Hint: fmt.Sprintf("send %s: * or none", name),
			}
		}
		delete(h, name)
	}
	return nil
}

// unreachable words a failure towards the resource, whose own words are for operators.
func (x *exchange) unreachable(err error) error {
	var r *postern.Refusal
	if errors.As(err, &r) {
		return err
	}
	return &postern.Refusal{
		Code: postern.CodeUnavailable, Reason: fmt.Sprintf("resource %q cannot be reached", x.terms.Resource),
		Hint: "try again; if it stays, tell the operators", Cause: fmt.Errorf("ask %s: %w", x.terms.Resource, err),
	}
}

// answer passes an answer on.
func (x *exchange) answer(ctx context.Context, resp *http.Response, secrets [][]byte) error {
	memo := x.recall(resp, secrets)
	if memo != nil {
		if p, ok := (*memo).(*passed); ok {
			return x.answerAs(ctx, p, resp, secrets)
		}
	}
	h := x.w.Header()
	request.Return(h, resp.Header)
	request.Private(h)
	if err := x.redirect(h); err != nil {
		return err
	}
	x.veil(h)
	if leaks(h, secrets) {
		clear(h)
		return errLeak
	}
	body, err := x.see(resp, h, secrets)
	if err != nil {
		clear(h)
		return err
	}
	shown := shownHead(resp.StatusCode, h)
	if err := x.head(shown); err != nil {
		clear(h)
		return err
	}
	if memo != nil {
		*memo = &passed{maps.Clone(h), h1.NewLines(resp.StatusCode, h), shown}
	}
	announced := map[string]bool{}
	for name := range x.trailer(resp) {
		h.Add("Trailer", name)
		announced[name] = true
	}
	x.answered = true
	x.w.WriteHeader(resp.StatusCode)
	length := resp.ContentLength
	if length >= 0 && h["Content-Length"] == nil {
		length = 0 // what the client gets has none, and does not wait for more to come
	}
	if err := x.copy(ctx, body, length); err != nil {
		return err
	}
	if leaks(resp.Trailer, secrets) {
		return errLeak
	}
	for name, values := range x.trailer(resp) {
		if !announced[name] {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
	return nil
}

// trailer is what goes back to the client of what stands behind an answer's body, where a
// sum of it can stand as well as before it.
func (x *exchange) trailer(resp *http.Response) http.Header {
	h := http.Header{}
	request.Return(h, resp.Trailer)
	if x.masks != nil || x.talk != nil {
		untell(h)
	}
	x.veil(h)
	return h
}

// passed is how the head of an answer was passed on.
type passed struct {
	header http.Header
	lines  *h1.Lines
	shown  []byte // as it is recorded
}

// recall is where a passed is kept, or nil where what the client gets rests on more than the
// answer and the session.
func (x *exchange) recall(resp *http.Response, secrets [][]byte) *any {
	if x.masks != nil || x.talk != nil || h1.Memo(x.w) == nil || hides(resp, secrets) || resp.Header["Link"] != nil {
		return nil
	}
	return h1.Recall(resp)
}

// answerAs passes on an answer whose head is as that of one before.
func (x *exchange) answerAs(ctx context.Context, p *passed, resp *http.Response, secrets [][]byte) error {
	if leaks(p.header, secrets) {
		return errLeak
	}
	if err := x.head(p.shown); err != nil {
		return err
	}
	x.answered = true
	h1.WriteLines(x.w, p.lines)
	return x.copy(ctx, catching(resp.Body, secrets), resp.ContentLength)
}

// statusLine is a status as people write it.
func statusLine(status int) string {
	if status == http.StatusOK {
		return "200 OK"
	}
	return strconv.Itoa(status) + " " + http.StatusText(status)
}

// buffers are what bodies are copied through.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// slow is when the next part of an answer is one that had to be waited for.
const slow = 20 * time.Millisecond

// copy passes a body on, as fast as the client takes it. A stream, whose length is negative, is
// passed on as it comes, and so are the first part of what is longer and those that were slow to
// come: how long the rest takes nobody knows, and clients wait only so long.
func (x *exchange) copy(ctx context.Context, body io.Reader, length int64) error {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	flusher, _ := x.w.(http.Flusher)
	stream := length < 0
	if stream && flusher != nil {
		flusher.Flush()
	}
	var stop func() bool
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	var asked time.Time                                          // for the part that comes; zero for the first
	for waits := stream || x.r.ProtoMajor == 2; ; waits = true { // buffers take the first part
		n, err := body.Read(*b)
		if n > 0 {
			room := x.room(n)
			if err := x.said((*b)[:room]); err != nil {
				return err
			}
			now := stream || room < n || int64(n) < length
			if !asked.IsZero() {
				now = stream || room < n || time.Since(asked) > slow
			}
			if (waits || now) && stop == nil {
				stop = context.AfterFunc(ctx, x.cut)
			}
			if _, err := x.w.Write((*b)[:room]); err != nil {
				return ungiven(err, errGone)
			}
			if now && flusher != nil {
				flusher.Flush()
			}
			if room < n {
				return x.terms.NoMoreBytes()
			}
			asked = time.Now()
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return x.unreachable(err)
		}
	}
}

// cut ends a write to the client that waits: a session that must end does so, whether its
// client reads or not.
func (x *exchange) cut() { _ = http.NewResponseController(x.w).SetWriteDeadline(time.Unix(1, 0)) }

// errGone is why an exchange ends whose client has left.
var errGone = &postern.Refusal{Code: postern.CodeCancelled, Reason: "ended by the client"}

// errUntaken is why an exchange ends whose client is there, and does not read.
var errUntaken = &postern.Refusal{Code: postern.CodeCancelled, Reason: "the client took nothing of the answer for too long"}

// ungiven is why the client could not be given something, which failed with err: otherwise
// it is not there any more.
func ungiven(err, otherwise error) error {
	if late := (net.Error)(nil); errors.As(err, &late) && late.Timeout() {
		return errUntaken
	}
	return otherwise
}
