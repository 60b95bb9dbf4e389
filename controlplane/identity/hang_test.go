package identity_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/wait"
)

// TestAnIssuerThatHangs keeps nobody from using the keys that are known: one who comes asks
// it, and the others wait for that, not for a turn of their own.
func TestAnIssuerThatHangs(t *testing.T) {
	i := newIssuer(t)
	cfg := one(i)
	var ahead atomic.Int64
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	v := verifier(t, cfg)
	token := i.token(nil)
	good := func(ctx context.Context) error { _, _, err := v.Authenticate(ctx, token); return err }
	if err := good(t.Context()); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(6 * time.Minute))
	hang := make(chan struct{})
	i.hang.Store(&hang)
	g := run.New(t.Context())
	g.Go("asks", good)
	wait.For(t, "it was asked", func() bool { return i.hanging.Load() == 1 })
	var through atomic.Bool
	g.Go("comes meanwhile", func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		cancel() // as one does whose time is up
		err := good(ctx)
		through.Store(true)
		return err
	})
	wait.For(t, "who came meanwhile is let in", through.Load)
	close(hang)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if err := good(t.Context()); err != nil || i.hanging.Load() != 1 {
		t.Errorf("it was asked %d times; %v", i.hanging.Load(), err)
	}
}
