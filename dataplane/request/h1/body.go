package h1

import (
	"errors"
	"net/http"
	"sync/atomic"
	"time"
)

// A body is that of one request, as its server reads it.
type body struct {
	frames
	c      *conn
	await  bool // the client waits to be asked for it
	closed atomic.Bool
	whole  atomic.Bool // it has been read to its end
}

// errClosed ends the reading of a body that nobody wants any more.
var errClosed = errors.New("h1: the body is closed")

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil || b.ended || len(p) == 0 {
		return b.frames.Read(p)
	}
	if b.await {
		b.await = false
		if err := b.c.w.interim(http.StatusContinue); err != nil {
			return 0, b.fail(err)
		}
	}
	_ = b.c.until(time.Now().Add(b.c.cfg.Stall))
	if b.closed.Load() {
		return 0, b.fail(errClosed)
	}
	n, err := b.frames.Read(p)
	if b.ended {
		b.whole.Store(true)
		b.c.watch()
	}
	return n, err
}

// Close ends a Read that waits. What has not been read then ends the connection.
func (b *body) Close() error {
	if b.closed.Swap(true) || b.whole.Load() {
		return nil
	}
	return b.c.until(time.Unix(1, 0))
}
