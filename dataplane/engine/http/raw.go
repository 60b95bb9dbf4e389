package http

import (
	"bufio"
	"errors"
	"io"
	"net/http"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/content"
)

// masked is the body of an answer through the task's masks.
func (x *exchange) masked(resp *http.Response, secrets [][]byte) (io.Reader, error) {
	if partial(resp) {
		return nil, errors.New("it is a part of something, of which nothing says what stands in it")
	}
	kind, coding, err := form(resp)
	if err != nil {
		return nil, err
	}
	m, err := x.masks.Masker(kind)
	if err != nil {
		return nil, err
	}
	r, err := content.NewReader(resp.Body, x.keepRaw(m, secrets), coding)
	if err != nil || content.Streams(m) {
		return r, err
	}
	// Who is told what is wrong with it must not have been told that it is right.
	first := bufio.NewReaderSize(r, 512)
	if _, err := first.Peek(1); errors.Is(err, content.ErrForm) || errors.Is(err, content.ErrLimit) {
		return nil, err
	}
	return first, nil
}

// keepRaw is the masker, which keeps what comes to it where the task wants what masks hide
// to be kept: unpacked, and without the resource's secrets.
func (x *exchange) keepRaw(m content.Masker, secrets [][]byte) content.Masker {
	if x.masks == nil || !x.flow.KeepsRaw() {
		return m
	}
	return &rawKeeper{Masker: m, x: x, caught: catcher{secrets: secrets}}
}

// A rawKeeper keeps what it masks.
type rawKeeper struct {
	content.Masker
	x      *exchange
	caught catcher // filled by hand
}

func (k *rawKeeper) Append(dst, chunk []byte) ([]byte, error) {
	if err := k.keep(chunk, false); err != nil {
		return dst, err
	}
	return k.Masker.Append(dst, chunk)
}

func (k *rawKeeper) Close(dst []byte) ([]byte, error) {
	if err := k.keep(nil, true); err != nil {
		return dst, err
	}
	return k.Masker.Close(dst)
}

func (k *rawKeeper) keep(p []byte, last bool) error {
	c := &k.caught
	free := c.take(p)
	if last {
		free = len(c.buf)
	}
	if free == 0 {
		return nil
	}
	err := k.x.raw(c.buf[:free])
	c.buf = append(c.buf[:0], c.buf[free:]...)
	return err
}

// raw reports part of the answer's body as it was before its masks.
func (x *exchange) raw(p []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.flow.RawOutput(engine.Body, p)
}
