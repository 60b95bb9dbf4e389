package request

import (
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// A stream is the way back of one request of HTTP/2, whose client has to take what is written:
// a part for which it gives no room in time resets the stream, while one that is slow to come
// does not. A timer is set beside each part, since HTTP/2 takes a deadline for the whole answer.
type stream struct {
	http.ResponseWriter
	limit time.Duration
	timer *time.Timer

	mu   sync.Mutex
	late bool
	over bool
}

func (s *stream) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Write waits until the client has room for p, and is os.ErrDeadlineExceeded where that takes
// too long.
func (s *stream) Write(p []byte) (n int, err error) {
	s.within(func() { n, err = s.ResponseWriter.Write(p) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.late {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

// Flush waits as Write does.
func (s *stream) Flush() { s.within(s.ResponseWriter.(http.Flusher).Flush) }

func (s *stream) within(write func()) {
	if s.timer == nil {
		s.timer = time.AfterFunc(s.limit, s.reset)
	} else {
		s.timer.Reset(s.limit)
	}
	defer s.timer.Stop()
	write()
}

// reset ends a write that waits, unless the answer has ended.
func (s *stream) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.late = true
		s.until(time.Unix(1, 0))
	}
}

// SetWriteDeadline is nothing once the answer has ended.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.until(t)
	}
	return nil
}

// end is told once nobody writes any more. What buffers have of the answer has as long.
func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over = true; !s.late {
		s.until(time.Now().Add(s.limit))
	}
}

// streams reports whether the client may be silent for as long as it likes within the body of a
// request, since it speaks in turns with the resource. That it is there its pings tell.
func streams(r *http.Request) bool {
	kind := r.Header.Get("Content-Type")
	return strings.HasPrefix(kind, "application/grpc") || strings.HasPrefix(kind, "application/connect+")
}

// A body is that of one request of HTTP/2, of which something has to come all the time: Read is
// os.ErrDeadlineExceeded where nothing has come for the limit.
type body struct {
	io.ReadCloser
	of    *stream
	limit time.Duration
	timer *time.Timer
}

func (b *body) Read(p []byte) (int, error) {
	if b.timer == nil {
		b.timer = time.AfterFunc(b.limit, b.of.stall)
	} else {
		b.timer.Reset(b.limit)
	}
	defer b.timer.Stop()
	return b.ReadCloser.Read(p)
}

// stall ends a Read of the body that waits, unless the answer has ended.
func (s *stream) stall() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		_ = http.NewResponseController(s.ResponseWriter).SetReadDeadline(time.Unix(1, 0))
	}
}

func (s *stream) until(t time.Time) {
	_ = http.NewResponseController(s.ResponseWriter).SetWriteDeadline(t)
}
