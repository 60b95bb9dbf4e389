package wall

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/snapshot"
	"github.com/posterngate/postern/pkg/conf"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/wait"
)

func native(name string) *typesv1.Object {
	o := object.Bare("resource", name)
	o.GetResource().Spec = &typesv1.ResourceSpec{
		Protocol: "postgres", Endpoint: &typesv1.Endpoint{Host: "127.0.0.1", Port: 5432, Database: "db", Tls: &typesv1.EndpointTLS{Mode: "disable"}},
		Credential: &typesv1.CredentialRef{Sealed: "s"}, Catalog: &typesv1.CredentialRef{Sealed: "s"},
		Level: &typesv1.Level{Want: "native", Admin: &typesv1.CredentialRef{Sealed: "s"}},
	}
	return o
}

// TestPaces: a target that keeps its wall waiting delays no other, and one that is named later
// is kept too.
func TestPaces(t *testing.T) {
	w := &Wall{
		cfg: Config{Every: conf.Duration(time.Millisecond)}, log: slog.New(slog.DiscardHandler),
		policy: snapshot.New(), targets: map[postern.ResourceName]*target{},
	}
	var slow, quick, later atomic.Int64
	looked := func(n *atomic.Int64) borrow {
		return func(context.Context, postern.ResourceName) (loan, error) {
			n.Add(1)
			return nil, errors.New("gone")
		}
	}
	for name, b := range map[postern.ResourceName]borrow{
		"quick": looked(&quick), "later": looked(&later),
		"slow": func(ctx context.Context, _ postern.ResourceName) (loan, error) {
			slow.Add(1)
			<-ctx.Done()
			return nil, ctx.Err()
		},
	} {
		w.targets[name] = newTarget(name, b, 0)
	}
	at := func(revision int64) *typesv1.Version { return &typesv1.Version{Epoch: "e", Revision: revision} }
	if w.policy.Apply(&nodev1.Update{Version: at(1), Snapshot: true, Objects: []*typesv1.Object{native("slow"), native("quick")}}) == nil {
		t.Fatal("the policy was not taken")
	}
	g := run.New(t.Context())
	g.Go("walls", w.keep)
	defer func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}()
	wait.For(t, "the quick one is looked at again and again", func() bool { return slow.Load() > 0 && quick.Load() > 3 })
	w.policy.Apply(&nodev1.Update{Version: at(2), Objects: []*typesv1.Object{native("later")}})
	wait.For(t, "the later one is looked at", func() bool { return later.Load() > 1 })
}
