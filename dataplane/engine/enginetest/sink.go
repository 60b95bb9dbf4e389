package enginetest

import (
	"bytes"
	"errors"
	"net"
	"sync"

	"github.com/posterngate/postern/dataplane/engine"
)

// sink is the way back of one execution.
type sink struct {
	s *Session
	i int
}

// Room has nothing beyond what Start gave.
func (k *sink) Room(int64, int64) (int64, int64) { return 0, 0 }

func (k *sink) with(fn func(*Execution)) error {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	e := &k.s.admitted[k.i]
	if e.Done > 0 {
		k.s.door.tb.Errorf("the flow of %q was used after its end", e.Text)
		return errors.New("enginetest: ended")
	}
	fn(e)
	return nil
}

func (k *sink) Columns(cols []engine.ResultColumn) error {
	return k.with(func(e *Execution) { e.Columns = append([]engine.ResultColumn(nil), cols...) })
}

func (k *sink) Rows(n int, span []byte) error {
	return k.with(func(e *Execution) {
		e.Rows += int64(n)
		e.Data = append(e.Data, span[:min(len(span), 64<<10-len(e.Data))]...)
	})
}

func (k *sink) Chunk(_ engine.Direction, p []byte) error {
	return k.with(func(e *Execution) { e.Chunks += int64(len(p)) })
}

func (k *sink) Output(s engine.Stream, p []byte) error {
	return k.with(func(e *Execution) {
		e.Chunks += int64(len(p))
		if s == engine.Asked && len(e.Asked)+len(p) <= 64<<10 {
			e.Asked = append(e.Asked, p...)
		}
		if s == engine.Resize {
			e.Sizes = append(e.Sizes, string(p))
		}
		if s == engine.Stdout || s == engine.Body {
			e.Rows += int64(bytes.Count(p, []byte("\n")))
		}
		if s.Said() && len(e.Data)+len(p) <= 64<<10 {
			e.Data = append(e.Data, p...)
		}
	})
}

// KeepsRaw is always so: what engines mask must be told as it was.
func (k *sink) KeepsRaw() bool { return true }

func (k *sink) RawRows(_ int, span []byte) error {
	return k.with(func(e *Execution) { e.Raw = append(e.Raw, span[:min(len(span), 64<<10-len(e.Raw))]...) })
}

func (k *sink) RawOutput(_ engine.Stream, p []byte) error { return k.RawRows(0, p) }

func (k *sink) Done(o engine.Outcome) error {
	return k.with(func(e *Execution) { e.Outcome, e.Done = o, 1 })
}

// tap remembers what was written to the target; it is still a bare socket.
type tap struct {
	*net.TCPConn

	mu   sync.Mutex
	sent bytes.Buffer
}

// maxTapped bounds what a tap remembers.
const maxTapped = 4 << 20

func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	if t.sent.Len() < maxTapped {
		t.sent.Write(p)
	}
	t.mu.Unlock()
	return t.TCPConn.Write(p)
}

func (t *tap) carried(p string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Contains(t.sent.Bytes(), []byte(p))
}
