package audit_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/run"
)

// follower is told of entries until it has some number of them, or fails.
type follower struct {
	got  []int64
	fail func(sequence int64) error
	done chan struct{}
	want int64
}

func (f *follower) tell(page []*apiv1.AuditEntry) error {
	for _, e := range page {
		if f.fail != nil {
			if err := f.fail(e.GetSequence()); err != nil {
				return err
			}
		}
		f.got = append(f.got, e.GetSequence())
		if e.GetSequence() == f.want {
			close(f.done)
		}
	}
	return nil
}

func (l *moved) follow(t *testing.T, f *follower) {
	t.Helper()
	f.done = make(chan struct{})
	g := run.New(context.Background())
	g.Go("follow", func(ctx context.Context) error { return l.Follow(ctx, "siem", f.tell) })
	select {
	case <-f.done:
	case <-time.After(time.Minute):
		t.Error("it was not told")
	}
	g.Stop()
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestFollow shows that every entry is told in order: what has left the store too, and
// again from where a follower failed, and by the next one from where the one before ended.
func TestFollow(t *testing.T) {
	l := open(t, storetest.NewMemory(), t.TempDir())
	l.append(t, 30)
	failed := false
	first := &follower{want: 30, fail: func(sequence int64) error {
		if sequence == 20 && !failed {
			failed = true
			return errors.New("the collector is away")
		}
		return nil
	}}
	l.follow(t, first)
	seen := map[int64]bool{}
	for _, s := range first.got {
		seen[s] = true
	}
	if len(seen) != 30 || !failed {
		t.Errorf("%v", first.got)
	}
	l.append(t, 5)
	second := &follower{want: 35}
	l.follow(t, second)
	for at, s := range second.got[max(0, len(second.got)-5):] {
		if s != int64(31+at) {
			t.Errorf("%v", second.got)
		}
	}
}

// counting is a store that counts how often it is read.
type counting struct {
	*storetest.Memory
	reads atomic.Int64
}

func (c *counting) Get(ctx context.Context, k store.Key) (store.Entry, error) {
	c.reads.Add(1)
	return c.Memory.Get(ctx, k)
}

// TestFollowRests shows that a follower asks for nothing while there is nothing.
func TestFollowRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &counting{Memory: storetest.NewMemory()}
		l := audit.New(s, time.Now)
		var told atomic.Int64
		g := run.New(t.Context())
		g.Go("follow", func(ctx context.Context) error {
			return l.Follow(ctx, "siem", func(page []*apiv1.AuditEntry) error { told.Add(int64(len(page))); return nil })
		})
		for n := range 3 {
			time.Sleep(time.Minute)
			before := s.reads.Load()
			time.Sleep(time.Hour)
			if read := s.reads.Load() - before; read != 0 || told.Load() != int64(n) {
				t.Errorf("after %d entries: read %d times in an hour without one, and told %d", n, read, told.Load())
			}
			if err := l.Append(t.Context(), audit.Entry{Actor: "ada", Action: "test"}); err != nil {
				t.Fatal(err)
			}
		}
		g.Stop()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
