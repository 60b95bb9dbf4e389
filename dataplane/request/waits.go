package request

import (
	"context"
	"maps"
	"sync"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// maxWaits bounds what one session waits for at once.
const maxWaits = 32

// errManyWaits refuses a wait beside too many others.
var errManyWaits = &postern.Refusal{Code: postern.CodeLimit, Reason: "too many requests of this session wait for approval", Hint: "wait until some of them are settled"}

// waits are what a session waits for while its clients come back.
type waits struct {
	mu    sync.Mutex
	group *run.Group
	by    map[string]*Wait
}

// A Wait is one request that people must approve, while its client may be away.
type Wait struct {
	done, told chan struct{}
	once       sync.Once

	mu     sync.Mutex
	notice string
	err    error
}

// Done is closed when people have answered; Told when it is known whom they are.
func (w *Wait) Done() <-chan struct{} { return w.done }

// Told is closed once there is a Notice.
func (w *Wait) Told() <-chan struct{} { return w.told }

// Notice says who is waited for.
func (w *Wait) Notice() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.notice
}

func (w *Wait) tell(notice string) {
	w.mu.Lock()
	w.notice = notice
	w.mu.Unlock()
	w.once.Do(func() { close(w.told) })
}

// WaitFor has the session wait, once for a key, whoever asks for it. The session lives on
// while it waits, and ends the wait when it ends.
func (v *Visit) WaitFor(key string, wait func(ctx context.Context, progress func(string)) error) *Wait {
	v.waits.mu.Lock()
	defer v.waits.mu.Unlock()
	if w := v.waits.by[key]; w != nil {
		return w
	}
	w := &Wait{done: make(chan struct{}), told: make(chan struct{})}
	if len(v.waits.by) >= maxWaits {
		// Nobody has come back for those that are over. Who does asks anew, and a yes is kept.
		maps.DeleteFunc(v.waits.by, func(_ string, w *Wait) bool { return w.over() })
	}
	if len(v.waits.by) >= maxWaits {
		w.err = errManyWaits
		close(w.done)
		return w
	}
	if v.waits.by == nil {
		v.waits.by = map[string]*Wait{}
		v.waits.group = run.New(v.Context())
	}
	v.waits.by[key] = w
	v.book.hold(v)
	v.waits.group.Go("wait for people", func(ctx context.Context) error {
		err := wait(ctx, w.tell)
		w.mu.Lock()
		w.err = err
		w.mu.Unlock()
		close(w.done)
		v.book.leave(v)
		return nil
	})
	return w
}

// Settle forgets a wait that is over, so that another can begin.
func (v *Visit) Settle(key string) {
	v.waits.mu.Lock()
	defer v.waits.mu.Unlock()
	if w := v.waits.by[key]; w != nil && w.over() {
		delete(v.waits.by, key)
	}
}

func (w *Wait) over() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// Err says how a wait ended that is done.
func (w *Wait) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// stop ends the group. Whoever closes a visit may be its last wait, so that nobody waits
// for it here; a visit is closed when nothing waits any more.
func (w *waits) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.group != nil {
		w.group.Stop()
	}
}
