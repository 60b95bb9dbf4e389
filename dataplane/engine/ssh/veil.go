package ssh

import (
	"errors"
	"sync"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/detect"
	screen "github.com/posterngate/postern/pkg/detect/terminal"
	"github.com/posterngate/postern/pkg/postern"
)

// meets reports whether what a decision masks can be masked in what a host says: by what
// it looks like, and by no place.
func meets(_ engine.Analysis, d *postern.Decision) error {
	_, err := masks(d)
	return err
}

// masks is what decisions ask to be masked, the first of them first; nil where that is
// nothing.
func masks(all ...*postern.Decision) (*detect.Set, error) {
	var rules []postern.DetectRule
	for _, d := range all {
		for _, o := range d.Obligations {
			if o.Content == nil {
				continue
			}
			if len(o.Content.Fields) > 0 {
				return nil, errors.New("what a host says has no fields")
			}
			rules = append(rules, o.Content.Detect...)
		}
	}
	if len(rules) == 0 {
		return nil, nil
	}
	return detect.Compile(rules)
}

// A veil masks one stream of what a host says, before it is recorded and shown. What may
// still become something is held back; what is harmless is let go once nothing has come
// for a while, so that prompts show.
type veil struct {
	show func([]byte) error // records and passes on; it may block

	emit  sync.Mutex // held while something is shown, so that all of it comes in order
	buf   []byte
	timer *time.Timer
	err   error

	mu    sync.Mutex // guards text, never while something is shown
	text  *screen.Stream
	close bool
}

func newVeil(set *detect.Set, show func([]byte) error) *veil {
	return &veil{show: show, text: screen.New(set, 0)}
}

// write takes what the host said.
func (v *veil) write(p []byte) error {
	return v.pass(func(dst []byte) []byte { return v.text.Append(dst, p) })
}

// end shows the rest, for nothing more comes.
func (v *veil) end() error {
	return v.pass(func(dst []byte) []byte {
		v.close = true
		return v.text.Close(dst)
	})
}

// typed says what the client has sent, whose echo need not wait.
func (v *veil) typed(p []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.text.Typed(p)
}

// resize says how many columns the terminal has.
func (v *veil) resize(columns uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.text.Resize(int(min(columns, maxColumns)))
}

// maxColumns is the widest that a terminal is taken to be.
const maxColumns = 1 << 14

func (v *veil) pass(next func(dst []byte) []byte) error {
	v.emit.Lock()
	defer v.emit.Unlock()
	v.mu.Lock()
	v.buf = next(v.buf[:0])
	waits := v.text.Held() > 0 && !v.close
	v.mu.Unlock()
	if len(v.buf) > 0 && v.err == nil {
		v.err = v.show(v.buf)
	}
	switch {
	case !waits:
		if v.timer != nil {
			v.timer.Stop()
		}
	case v.timer == nil:
		v.timer = time.AfterFunc(detect.FlushAfter, v.flush)
	default:
		v.timer.Reset(detect.FlushAfter)
	}
	return v.err
}

// flush lets go what is harmless. An error of it is that of the next write.
func (v *veil) flush() {
	v.emit.Lock()
	defer v.emit.Unlock()
	v.mu.Lock()
	if v.close {
		v.mu.Unlock()
		return
	}
	v.buf = v.text.Flush(v.buf[:0])
	v.mu.Unlock()
	if len(v.buf) > 0 && v.err == nil {
		v.err = v.show(v.buf)
	}
}

// veils are those of what runs on one channel, for sizes and keys.
type veils struct {
	set *detect.Set // nil where nothing is masked
	all []*veil
}

// of makes the veil for a stream; nil where nothing is masked.
func (vs *veils) of(show func([]byte) error) *veil {
	if vs.set == nil {
		return nil
	}
	v := newVeil(vs.set, show)
	vs.all = append(vs.all, v)
	return v
}

func (vs *veils) resize(columns uint32) {
	for _, v := range vs.all {
		v.resize(columns)
	}
}

func (vs *veils) typed(p []byte) {
	for _, v := range vs.all {
		v.typed(p)
	}
}
