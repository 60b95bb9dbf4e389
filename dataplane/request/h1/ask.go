package h1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/posterngate/postern/pkg/run"
)

// inlineBody is how large a body in memory may be to be written before the answer is read:
// any socket takes so much.
const inlineBody = 8 << 10

// carries reports whether a request has a body.
func carries(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

// ask writes a request. What it carries may still be on its way then; sent is nil where it
// is not.
func (l *link) ask(r *http.Request) (sent *sending, err error) {
	defer func() {
		if sent == nil {
			closeBody(r)
		}
	}()
	if err := writeHead(l.w, r); err != nil {
		return nil, err
	}
	inline := carries(r) && r.GetBody != nil && r.ContentLength > 0 && r.ContentLength <= inlineBody
	if inline {
		if n, err := io.Copy(l.w, r.Body); err != nil || n != r.ContentLength {
			return nil, &bodyError{errors.Join(err, errLength)}
		}
	}
	if err := l.w.Flush(); err != nil || inline || !carries(r) {
		return nil, err
	}
	s := &sending{body: r.Body, done: make(chan struct{}), err: errUnsent}
	run.New(r.Context()).Go("send a body", func(context.Context) error {
		defer close(s.done)
		s.err = send(l.nc, r)
		if b := (*bodyError)(nil); errors.As(s.err, &b) {
			_ = l.nc.Close() // the server must not take half of it for the whole
		}
		return nil
	})
	return s, nil
}

// chunked reports whether a request's body has no length that is known.
func chunked(r *http.Request) bool { return carries(r) && r.ContentLength <= 0 }

// ours are headers that follow from the rest of a request.
func ours(name string) bool {
	switch name {
	case "Host", "Content-Length", "Transfer-Encoding", "Trailer":
		return true
	}
	return false
}

func writeHead(w *bufio.Writer, r *http.Request) error {
	target, host := r.URL.RequestURI(), r.Host
	if !token(r.Method) || target == "" || strings.ContainsFunc(target, unseen) || strings.ContainsFunc(host, unseen) {
		return errors.New("h1: the request cannot be written")
	}
	_, _ = w.WriteString(r.Method)
	_ = w.WriteByte(' ')
	_, _ = w.WriteString(target)
	_, _ = w.WriteString(" HTTP/1.1\r\nHost: ")
	_, _ = w.WriteString(host)
	_, _ = w.Write(crlf)
	for name, values := range r.Header {
		if ours(name) {
			continue
		}
		for _, v := range values {
			if !writeLine(w, name, v) {
				return fmt.Errorf("h1: the header %q cannot be written", name)
			}
		}
	}
	switch {
	case chunked(r):
		writeLine(w, "Transfer-Encoding", "chunked")
	case carries(r):
		writeLine(w, "Content-Length", strconv.FormatInt(r.ContentLength, 10))
	case r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch:
		writeLine(w, "Content-Length", "0")
	}
	_, err := w.Write(crlf)
	return err
}

// unseen reports whether a character ends a word of the first line.
func unseen(c rune) bool { return c <= ' ' || c >= 0x7f }

// A sending is the body of a request on its way.
type sending struct {
	body io.ReadCloser
	done chan struct{}
	err  error // once it is done
}

// errUnsent is of a body that has not been written.
var errUnsent = errors.New("h1: the body of the request has not been sent")

// A bodyError is why the body of a request could not be read to its end.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "the body of the request: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// chunkHead is room for the size of a chunk.
const chunkHead = 10

// copies are what bodies go through, with room for what frames a chunk.
var copies = sync.Pool{New: func() any { b := make([]byte, chunkHead+32<<10+len(crlf)); return &b }}

// send writes the body of a request, each part of it as it comes.
func send(w io.Writer, r *http.Request) error {
	buf := copies.Get().(*[]byte)
	defer copies.Put(buf)
	data := (*buf)[chunkHead : len(*buf)-len(crlf)]
	left := r.ContentLength
	for {
		n, err := r.Body.Read(data)
		part := data[:n]
		switch {
		case n == 0:
		case chunked(r):
			part = chunk(*buf, n)
		case int64(n) > left:
			return &bodyError{errLength}
		default:
			left -= int64(n)
		}
		if len(part) > 0 {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) && chunked(r):
			_, err := w.Write(lastChunk)
			return err
		case errors.Is(err, io.EOF) && left > 0:
			return &bodyError{io.ErrUnexpectedEOF}
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return &bodyError{err}
		}
	}
}

var lastChunk = []byte("0\r\n\r\n")

// chunk frames n bytes that stand in buf behind the room for a size.
func chunk(buf []byte, n int) []byte {
	var size [chunkHead]byte
	head := append(strconv.AppendUint(size[:0], uint64(n), 16), crlf...) //nolint:gosec // no more than the buffer
	at := chunkHead - len(head)
	copy(buf[at:], head)
	end := chunkHead + n
	copy(buf[end:], crlf)
	return buf[at : end+len(crlf)]
}
