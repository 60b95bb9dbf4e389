package h1

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// maxInterim is how many answers may go before the answer.
	maxInterim = 8
	// settleTime is for how long the last bytes of a request may take to have been written
	// once its answer has ended.
	settleTime = 50 * time.Millisecond
)

// trip asks a request and reads the head of its answer. An error ends the connection.
func (l *link) trip(r *http.Request) (_ *http.Response, err error) {
	ctx := r.Context()
	a := &answer{l: l, ctx: ctx, stop: context.AfterFunc(ctx, func() { _ = l.nc.Close() })}
	defer func() {
		if err != nil {
			_ = a.Close()
			err = a.why(err)
		}
	}()
	if a.sent, err = l.ask(r); err != nil {
		return nil, err
	}
	resp, err := l.hear(r)
	if err != nil {
		return nil, err
	}
	resp.Request = r
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if a.sent != nil {
			return nil, bad("the connection became another protocol's while a body was sent")
		}
		resp.Body = &taken{a}
		return resp, nil
	}
	a.frames = frames{r: l.r, left: resp.ContentLength, chunked: len(resp.TransferEncoding) > 0, open: resp.ContentLength < 0 && len(resp.TransferEncoding) == 0}
	a.keep = !resp.Close && !a.open
	resp.Body = a
	switch bare := bodiless(r.Method, resp.StatusCode); {
	case bare:
		a.keep = !resp.Close && (resp.StatusCode != http.StatusNoContent || resp.ContentLength <= 0 && !a.chunked)
		fallthrough
	case resp.ContentLength == 0:
		a.ended = true
		resp.Body = http.NoBody
		return resp, a.Close()
	case a.chunked:
		a.left = 0
		a.trailer = resp.Trailer
	}
	return resp, nil
}

// bodiless reports whether an answer has no body, whatever its head says.
func bodiless(method string, status int) bool {
	return method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified
}

// hear reads the head of an answer, and passes over those that go before it.
func (l *link) hear(r *http.Request) (*http.Response, error) {
	for range maxInterim {
		first, err := l.r.Peek(1)
		if err != nil {
			return nil, early(err)
		}
		l.heard = true
		if first[0] != 'H' {
			return nil, bad("what the server says is no answer")
		}
		if l.head, err = readHead(l.r, l.head[:0], l.c.Head); err != nil {
			return nil, early(err)
		}
		resp, err := l.parse()
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols && r.Header["Upgrade"] == nil:
			return nil, bad("the server speaks another protocol, which it was not asked to")
		case resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols:
			return resp, nil
		}
	}
	return nil, bad("there are more than %d answers before the answer", maxInterim)
}

func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parse makes a response of the head, which mostly says what the one before said.
func (l *link) parse() (*http.Response, error) {
	if l.said == string(l.head) && l.said != "" {
		again := l.last
		return &again, nil
	}
	l.said, l.memo = "", nil
	head := string(l.head)
	resp, err := parseAnswer(head)
	if err == nil && resp.Trailer == nil { // trailers are written to
		l.said, l.last = head, *resp
	}
	return resp, err
}

// Recall is where who asks keeps what it works out of the head of an answer: the next answer
// of the connection with the very same head finds it there. It is for use before the body is
// read, and nil where nothing can be kept.
func Recall(resp *http.Response) *any {
	if a, ok := resp.Body.(*answer); ok && a.l.said != "" {
		return &a.l.memo
	}
	return nil
}

// parseAnswer makes a response of a head. Its ContentLength is that of a body where one may
// follow: -1 where none is said.
func parseAnswer(head string) (*http.Response, error) {
	line, rest, _ := strings.Cut(head, "\r\n")
	resp, err := parseStatus(line)
	if err != nil {
		return nil, err
	}
	if resp.Header, err = parseHeaders(rest); err != nil {
		return nil, err
	}
	h := resp.Header
	codings, lengths := h["Transfer-Encoding"], h["Content-Length"]
	resp.ContentLength = -1
	switch {
	case len(codings) > 0 && len(lengths) > 0:
		return nil, bad("the answer has a length and is in chunks")
	case len(codings) > 0:
		if len(codings) > 1 || !strings.EqualFold(codings[0], "chunked") || resp.ProtoMinor == 0 {
			return nil, bad("the answer is encoded in a way that is not just chunked")
		}
		resp.TransferEncoding = []string{"chunked"}
		delete(h, "Transfer-Encoding")
		resp.Trailer = announced(h)
	case len(lengths) > 1:
		return nil, bad("the answer has two lengths")
	case len(lengths) == 1:
		if resp.ContentLength, err = parseLength(lengths[0]); err != nil {
			return nil, err
		}
	}
	resp.Close = resp.ProtoMinor == 0 || closes(h)
	return resp, nil
}

// parseStatus reads VERSION STATUS REASON.
func parseStatus(line string) (*http.Response, error) {
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	resp := &http.Response{Proto: proto, ProtoMajor: 1}
	switch proto {
	case "HTTP/1.1":
		resp.ProtoMinor = 1
	case "HTTP/1.0":
	default:
		return nil, bad("the version of the answer is not HTTP/1.1")
	}
	n, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || n < 100 {
		return nil, bad("the status of the answer is not a number of three digits")
	}
	for i := range len(rest) {
		if c := rest[i]; c < ' ' && c != '\t' || c == 0x7f {
			return nil, bad("the status of the answer has a character that cannot be seen")
		}
	}
	resp.Status, resp.StatusCode = rest, n
	return resp, nil
}

// announced are the trailers that a head names, without values yet.
func announced(h http.Header) http.Header {
	trailer := http.Header{}
	for _, v := range h["Trailer"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = http.CanonicalHeaderKey(strings.TrimSpace(name)); token(name) && len(trailer) < maxHeaders {
				trailer[name] = nil
			}
		}
	}
	delete(h, "Trailer")
	return trailer
}

// An answer is the body of one. Reading it to the end, or closing it, ends the request.
type answer struct {
	frames
	l    *link
	ctx  context.Context
	stop func() bool // watching ctx
	sent *sending
	keep bool // the connection, once the body has ended

	once sync.Once
}

func (a *answer) Read(p []byte) (int, error) {
	n, err := a.frames.Read(p)
	if a.ended {
		_ = a.Close()
	}
	if err != nil && !errors.Is(err, io.EOF) && a.ctx.Err() != nil {
		err = context.Cause(a.ctx)
	}
	return n, err
}

// Close keeps the connection where all has been said on it, and else closes it. Nothing of
// the request is read any more.
func (a *answer) Close() error {
	a.once.Do(func() {
		keep := a.ended && a.keep && a.settled()
		if stopped := a.stop(); keep && stopped {
			a.l.c.keep(a.l)
			return
		}
		_ = a.l.nc.Close()
		if a.sent != nil {
			_ = a.sent.body.Close()
			<-a.sent.done
		}
	})
	return nil
}

// settled reports whether the request has been written to its end.
func (a *answer) settled() bool {
	if a.sent == nil {
		return true
	}
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-a.sent.done:
		_ = a.sent.body.Close()
		return a.sent.err == nil
	case <-timer.C:
		return false
	}
}

// why is the error of a request that has ended: what its body was read from failed before.
func (a *answer) why(err error) error {
	if b := (*bodyError)(nil); a.sent != nil && errors.As(a.sent.err, &b) && !errors.Is(b, errClosed) {
		return b
	}
	return err
}

// taken is a connection that has become another protocol's.
type taken struct{ a *answer }

func (t *taken) Read(p []byte) (int, error)  { return t.a.l.r.Read(p) }
func (t *taken) Write(p []byte) (int, error) { return t.a.l.nc.Write(p) }

// Close may be called at any time; who reads and writes is then told.
func (t *taken) Close() error { return t.a.Close() }
