package audit_test

import (
	"context"
	"errors"
	"testing"
	"time"

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
