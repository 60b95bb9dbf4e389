package ssh

import (
	"sync"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/detect"
)

// A told records what a client says to a shell that no terminal echoes: nothing else tells
// what is done there. It goes through the masks of what the host says. A nil one keeps nothing.
type told struct {
	x *execution

	mu   sync.Mutex
	text *detect.Stream // nil where nothing is masked
	buf  []byte
}

func newTold(x *execution, set *detect.Set) *told {
	t := &told{x: x}
	if set != nil {
		t.text = set.NewStream()
	}
	return t
}

// write records what the client said, but for what may still become something to mask.
func (t *told) write(p []byte) error {
	switch {
	case t == nil:
		return nil
	case t.text == nil:
		return t.x.output(engine.Asked, p)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.x.raw(engine.Asked, p); err != nil {
		return err
	}
	t.buf = t.text.Append(t.buf[:0], p)
	return t.keep()
}

// end records the rest.
func (t *told) end() error {
	if t == nil || t.text == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = t.text.Close(t.buf[:0])
	return t.keep()
}

func (t *told) keep() error {
	if len(t.buf) == 0 {
		return nil
	}
	return t.x.output(engine.Asked, t.buf)
}
