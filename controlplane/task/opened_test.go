package task

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// TestOpened: a node may ask under a grant once a client has opened it there, at whichever
// replica, and is forgotten with the grant.
func TestOpened(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	w.cfg.Now = func() time.Time { return now }
	ask := func(s *Service, grant string, node postern.NodeName, want codes.Code) {
		t.Helper()
		if err := s.Opened(t.Context(), postern.GrantID(grant), node); fault.CodeOf(err) != want {
			t.Errorf("%s at %s: %v, want %s", grant, node, err, want)
		}
	}
	g := w.mustOpen("alice", "sales-report")
	other := New(w.cfg) // a replica that has not seen it
	for _, s := range []*Service{w.Service, other} {
		ask(s, g.GetId(), "n1", codes.OK)
		ask(s, g.GetId(), "n2", codes.PermissionDenied)
		ask(s, g.GetId(), "", codes.PermissionDenied)
		ask(s, "", "n1", codes.PermissionDenied)
		ask(s, g.GetId()[:len(g.GetId())-1], "n1", codes.PermissionDenied)
	}
	if _, err := other.Open(t.Context(), &nodev1.OpenGrantRequest{Token: "alice", Task: "sales-report"}, "n2"); err != nil {
		t.Fatal(err)
	}
	ask(w.Service, g.GetId(), "n2", codes.OK)

	// What was refused opens nothing.
	if _, err := w.Open(t.Context(), &nodev1.OpenGrantRequest{Token: "alice", Task: "sales-report", Resource: "nowhere"}, "n3"); err == nil {
		t.Error("a resource that is none")
	}
	ask(w.Service, g.GetId(), "n3", codes.PermissionDenied)

	now = now.Add(2*time.Hour + keep)
	for range 2 { // it ends, and is forgotten
		e := must(w.store.List(t.Context(), Kind, "", 0))
		for _, one := range e {
			stored, err := decode(one)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.look(t.Context(), known{one.Revision, stored}, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left := must(w.store.List(t.Context(), openedKind, "", 0)); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
