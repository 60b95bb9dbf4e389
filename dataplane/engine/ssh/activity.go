package ssh

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// activity notes that something happens, for the idle limit. Waiting for people is not
// idling.
type activity struct {
	last    atomic.Int64 // unix nanoseconds
	waiting atomic.Int64
}

func (a *activity) mark() { a.last.Store(time.Now().UnixNano()) }

// wait keeps the limit from passing until the result is called.
func (a *activity) wait() (done func()) {
	a.waiting.Add(1)
	return func() {
		a.mark()
		a.waiting.Add(-1)
	}
}

// idleParts is into how many parts the limit is cut: it holds to within one.
const idleParts = 8

// watch calls over once nothing has happened for the limit; 0 means no limit.
func (a *activity) watch(limit time.Duration, over func()) (stop func()) {
	a.mark()
	if limit <= 0 {
		return func() {}
	}
	period := max(limit/idleParts, 10*time.Millisecond)
	var mu sync.Mutex
	stopped := false
	var timer *time.Timer
	mu.Lock()
	timer = time.AfterFunc(period, func() {
		if a.waiting.Load() == 0 && time.Since(time.Unix(0, a.last.Load())) >= limit {
			over()
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if !stopped {
			timer.Reset(period)
		}
	})
	mu.Unlock()
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}

// speakers are where a person can be told something: the standard errors of channels.
type speakers struct {
	mu   sync.Mutex
	all  []*speaker
	last *postern.Refusal
}

type speaker struct {
	to       io.Writer
	terminal bool
}

// add returns what takes the speaker away again.
func (s *speakers) add(to io.Writer, terminal bool) (remove func()) {
	sp := &speaker{to, terminal}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, sp)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if i := slices.Index(s.all, sp); i >= 0 {
			s.all = slices.Delete(s.all, i, i+1)
		}
	}
}

// farewell tells all why the session ends; the first cause stands. Closing the
// connection ends it.
func (s *speakers) farewell(r *postern.Refusal) {
	s.mu.Lock()
	if s.last != nil {
		s.mu.Unlock()
		return
	}
	s.last = r
	all := slices.Clone(s.all)
	s.mu.Unlock()
	g := run.New(context.Background())
	for _, sp := range all {
		g.Go("farewell", func(context.Context) error {
			_, _ = sp.to.Write(lines(say(r), sp.terminal))
			return nil
		})
	}
	_ = g.Wait()
}

// cause is why the session ended, where that was ours.
func (s *speakers) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return nil
	}
	return s.last
}
