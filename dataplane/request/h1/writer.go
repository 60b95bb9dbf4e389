package h1

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/posterngate/postern/dataplane/pump"
)

// A writer is the way back of one request. It implements http.ResponseWriter, and what
// http.ResponseController asks for.
type writer struct {
	c      *conn
	r      *http.Request
	header http.Header
	memo   *any // of handlers, nil where there is none

	mu       sync.Mutex // an interim answer may be written by who reads the body
	wrote    bool       // the head
	chunked  bool
	nobody   bool  // HEAD, or a status without a body
	left     int64 // of the length; -1 where none was said
	close    bool
	open     bool // it ends with the connection, which is then reset unless it has ended
	hijacked bool
}

var (
	_ http.Flusher  = (*writer)(nil)
	_ http.Hijacker = (*writer)(nil)
)

func (w *writer) Header() http.Header { return w.header }

// Memo is where a handler keeps what it works out of the headers of a request, but not of
// its first line: the next request of the connection with the very same headers finds it
// there. It is nil where w is none of this package's.
func Memo(w http.ResponseWriter) *any {
	if w, ok := w.(*writer); ok {
		return w.memo
	}
	return nil
}

// interim writes an answer that goes before the answer.
func (w *writer) interim(status int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wrote {
		return nil
	}
	if _, err := fmt.Fprintf(w.c.bw, "HTTP/1.1 %d %s\r\n\r\n", status, http.StatusText(status)); err != nil {
		return err
	}
	return w.c.bw.Flush()
}

func (w *writer) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.head(status)
}

// WriteLines is WriteHeader with what l says in the place of Header. w must be one that has
// a Memo.
func WriteLines(w http.ResponseWriter, l *Lines) {
	one := w.(*writer)
	one.mu.Lock()
	defer one.mu.Unlock()
	if !one.wrote {
		one.begin(l)
	}
}

func (w *writer) head(status int) {
	if w.wrote || status < 200 && status != http.StatusSwitchingProtocols {
		return
	}
	l := linesOf(w.c.bw.AvailableBuffer(), status, w.header)
	w.begin(&l)
}

// begin writes l, and how the body is framed.
func (w *writer) begin(l *Lines) {
	status := l.status
	w.wrote, w.left = true, l.length
	w.nobody = w.r.Method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified || status < 200
	b := w.c.bw
	_, _ = b.Write(l.text)
	if !l.dated {
		writeLine(b, "Date", time.Now().UTC().Format(http.TimeFormat))
	}
	switch {
	case w.nobody || w.left >= 0:
	case w.r.ProtoMinor == 1:
		w.chunked = true
		writeLine(b, "Transfer-Encoding", "chunked")
	default:
		w.close, w.open = true, true
		_ = pump.Abrupt(w.c.nc, true)
	}
	if w.close = w.close || w.r.Close; w.close && status != http.StatusSwitchingProtocols {
		writeLine(b, "Connection", "close")
	}
	_, _ = b.Write(crlf)
}

var errLength = errors.New("h1: more was written than the length says")

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch w.head(http.StatusOK); {
	case w.nobody:
		return len(p), nil
	case w.left >= 0 && int64(len(p)) > w.left:
		return 0, errLength
	case len(p) == 0:
		return 0, nil
	}
	b := w.c.bw
	if w.chunked {
		if _, err := fmt.Fprintf(b, "%x\r\n", len(p)); err != nil {
			return 0, err
		}
	}
	n, err := b.Write(p)
	if w.left >= 0 {
		w.left -= int64(n)
	}
	if w.chunked && err == nil {
		_, err = b.Write(crlf)
	}
	return n, err
}

func (w *writer) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.head(http.StatusOK)
	_ = w.c.bw.Flush()
}

// EnableFullDuplex has nothing to do: a body may be read while its answer is written.
func (w *writer) EnableFullDuplex() error { return nil }

func (w *writer) SetReadDeadline(t time.Time) error  { return w.c.until(t) }
func (w *writer) SetWriteDeadline(t time.Time) error { return w.c.nc.SetWriteDeadline(t) }

// Hijack gives the connection away.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hijacked || w.wrote {
		return nil, nil, errors.New("h1: the answer has begun")
	}
	w.hijacked = true
	w.c.unwatch()
	return w.c.nc, bufio.NewReadWriter(w.c.r, w.c.bw), w.c.nc.SetDeadline(time.Time{})
}

// finish ends the answer. An error means that the connection is of no more use.
func (w *writer) finish() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.wrote {
		w.header.Set("Content-Length", "0")
		w.head(http.StatusOK)
	}
	b := w.c.bw
	if w.chunked {
		_, _ = b.WriteString("0\r\n")
		for name, values := range w.header {
			if name, trails := w.trails(name); trails {
				for _, v := range values {
					writeLine(b, name, v)
				}
			}
		}
		_, _ = b.Write(crlf)
	}
	if w.left > 0 && !w.nobody {
		return io.ErrUnexpectedEOF
	}
	if err := b.Flush(); err != nil || !w.open {
		return err
	}
	return pump.Abrupt(w.c.nc, false)
}

// trails reports whether a header goes behind the body: it was announced, or has the
// prefix of those that were not.
func (w *writer) trails(name string) (string, bool) {
	if rest, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
		return rest, true
	}
	for _, v := range w.header["Trailer"] {
		if http.CanonicalHeaderKey(v) == name {
			return name, true
		}
	}
	return "", false
}
