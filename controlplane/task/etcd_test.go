package task

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store/etcd"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/run"
)

// TestOverEtcd has two replicas over one real store: what is asked for at one is
// answered at the other, and a grant ends within a second of its lock at both.
func TestOverEtcd(t *testing.T) {
	s, err := etcd.Open(t.Context(), etcd.Config{Embedded: &etcd.Embedded{Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	w := newWorldOver(t, s)
	logger := slog.New(slog.DiscardHandler)
	log := audit.New(s, time.Now)
	holds := approve.New(approve.Config{Store: s, Snapshot: w.current, Audit: log, URL: func(id string) string { return id }, Logger: logger})
	other := New(Config{Store: s, Snapshot: w.current, Changed: w.subscribe, Sign: w.sign, Verifier: w.tokens, Certificates: w.certs, Approve: holds, Audit: log, Logger: logger})
	ctx, cancel := context.WithCancel(t.Context())
	g := run.New(ctx)
	for name, fn := range map[string]func(context.Context) error{"grants": w.Run, "holds": w.holds.Run, "other grants": other.Run, "other holds": holds.Run} {
		g.Go(name, fn)
	}
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})

	r, err := w.Request(ctx, w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: "new column"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holds.Review(ctx, w.reviewer(), r.GetHold().GetId(), true, "", nil); err != nil {
		t.Fatal(err)
	}
	grant := w.mustOpen("alice", "schema-change")
	h, err := holds.OpenHold(ctx, "n1", &nodev1.OpenHoldRequest{Scope: "session", Grant: grant.GetId(), Resource: "warehouse", Session: "s-1", Rule: "leads"})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan *typesv1.Hold, 1)
	asking := make(chan struct{}, 10)
	g.Go("wait", func(ctx context.Context) error {
		h, err := holds.Follow(ctx, h.GetId(), func(*typesv1.Hold) error { asking <- struct{}{}; return nil })
		heard <- h
		return err
	})
	<-asking
	if _, err := w.holds.Review(ctx, w.reviewer(), h.GetId(), true, "", nil); err != nil {
		t.Fatal(err)
	}
	if h := <-heard; h.GetState() != typesv1.HoldState_HOLD_STATE_APPROVED {
		t.Errorf("heard %s", h.GetState())
	}
	if _, err := w.holds.Consume(ctx, "n1", h.GetId(), h.GetDigest(), "s-1"); err != nil {
		t.Fatal(err)
	}

	changes, err := s.Watch(ctx, 0, Kind)
	if err != nil {
		t.Fatal(err)
	}
	defer changes.Close()
	w.apply(`{kind: Lock, metadata: {name: out}, spec: {subject: alice, reason: she left}}`)
	for ended := false; !ended; {
		b, err := changes.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Events {
			got, err := decode(e.Entry)
			if err != nil {
				t.Fatal(err)
			}
			ended = got.GetId() == grant.GetId() && got.GetState() == over
		}
	}
}
