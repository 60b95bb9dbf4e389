package controlplane

import (
	"net/http"
	"time"
)

const (
	// takeTime is how long a client may leave a part of an answer.
	takeTime = time.Minute
	// takePart is how much of an answer has to be taken in that time, in bytes.
	takePart = 32 << 10
	// giveTime is how long a client may take over a request, and headTime over its head.
	giveTime = 2 * time.Minute
	headTime = 10 * time.Second
)

// bounded is a server whose calls end where a client does not go on with its request, or does
// not take the answer.
func bounded(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           taken(h),
		ReadHeaderTimeout: headTime,
		ReadTimeout:       giveTime, // an answer may take longer: it is for the request alone
		IdleTimeout:       2 * time.Minute,
		HTTP2:             &http.HTTP2Config{WriteByteTimeout: takeTime},
		MaxHeaderBytes:    64 << 10,
	}
}

// taken serves clients that take what is written to them: one that stops reading ends its
// call, which would wait for it for ever. An answer may be as long, and as slow to come, as it
// likes.
func taken(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := taking{w}
		t.within(0) // the connection has the bound of the call before
		h.ServeHTTP(t, r)
		t.within(takeTime) // what buffers have of the answer is written now
	})
}

// taking is the way back of one call. The bound is taken away after each part, since HTTP/2
// would end the answer by it where nothing is written.
type taking struct{ http.ResponseWriter }

func (t taking) Unwrap() http.ResponseWriter { return t.ResponseWriter }

func (t taking) Write(p []byte) (n int, err error) {
	defer t.within(0)
	for more := true; more && err == nil; more = n < len(p) {
		t.within(takeTime)
		var k int
		k, err = t.ResponseWriter.Write(p[n:min(len(p), n+takePart)])
		n += k
	}
	return n, err
}

func (t taking) Flush() { _ = t.FlushError() }

func (t taking) FlushError() error {
	t.within(takeTime)
	defer t.within(0)
	return http.NewResponseController(t.ResponseWriter).Flush()
}

// within bounds what is written next; 0 takes the bound away.
func (t taking) within(d time.Duration) {
	var due time.Time
	if d > 0 {
		due = time.Now().Add(d)
	}
	_ = http.NewResponseController(t.ResponseWriter).SetWriteDeadline(due) // both versions of HTTP have deadlines
}
