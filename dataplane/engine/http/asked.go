package http

import (
	"context"
	"io"
	"sync"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/content"
	pkghttp "github.com/posterngate/postern/pkg/http"
)

// asked is the body of a request on its way, which is reported before it goes on.
type asked struct {
	x       *exchange
	ctx     context.Context
	body    io.ReadCloser
	fields  *pkghttp.Overrides
	reading sync.Mutex
}

func (a *asked) Read(p []byte) (int, error) {
	a.reading.Lock()
	defer a.reading.Unlock()
	n, err := a.body.Read(p)
	if n > 0 {
		if no := a.x.overridden(a.ctx, a.fields.Find(p[:n])); no != nil {
			return 0, no
		}
		if rerr := a.x.asked(p[:n]); rerr != nil {
			return 0, rerr
		}
	}
	if err != nil && err != io.EOF { //nolint:errorlint // a body ends with this very one
		err = unread(err)
	}
	return n, err
}

// Close ends a Read that waits, and returns once nobody reads: what follows belongs to the
// connection.
func (a *asked) Close() error {
	err := a.body.Close()
	a.reading.Lock()
	defer a.reading.Unlock()
	return err
}

// A shade masks what is recorded of a request with the masks of its answer: who reads the
// record is shown no more of what went than of what came. The zero shade masks nothing.
type shade struct {
	masker content.Masker
	blind  bool // the body has a form in which the masks cannot be kept: it is only counted
}

// newShade makes the shade of a request.
func (x *exchange) newShade() shade {
	if x.masks == nil {
		return shade{}
	}
	m, err := x.masks.Masker(x.r.Header.Get("Content-Type"))
	if err != nil || x.r.Header.Get("Content-Encoding") != "" {
		return shade{blind: true}
	}
	return shade{masker: m}
}

// part is what may be recorded once p has come.
func (s *shade) part(p []byte) []byte {
	switch {
	case s.blind:
		return nil
	case s.masker == nil:
		return p
	}
	out, err := s.masker.Append(nil, p)
	s.blind = err != nil
	return out
}

// rest is what may be recorded once all has come.
func (s *shade) rest() []byte {
	if s.blind || s.masker == nil {
		return nil
	}
	out, err := s.masker.Close(nil)
	s.blind = true
	if err != nil {
		return nil
	}
	return out
}

// asked reports part of the request's body.
func (x *exchange) asked(p []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return errOver
	}
	if x.kept[1] == 0 {
		x.shade = x.newShade()
	}
	if x.kept[1] += len(p); x.kept[1] > maxKept {
		x.shade.blind = true // of the rest there is no more than its number of bytes
		return x.flow.Chunk(engine.ToTarget, p)
	}
	if x.masks != nil && x.flow.KeepsRaw() {
		if err := x.flow.RawOutput(engine.Asked, p); err != nil {
			return err
		}
	}
	shown := x.shade.part(p)
	if len(shown) == 0 {
		return x.flow.Chunk(engine.ToTarget, p)
	}
	return x.flow.Output(engine.Asked, shown)
}
