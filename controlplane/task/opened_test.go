package task

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/posterngate/postern/controlplane/entrance"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
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
	of := func(s *Service, grant string, node postern.NodeName, want string) {
		t.Helper()
		g, err := s.OpenedAt(t.Context(), postern.GrantID(grant), node)
		if got := g.GetSubject().GetName(); err != nil || got != want {
			t.Errorf("%.20q at %q is of %q, %v; want %q", grant, node, got, err, want)
		}
	}
	g := w.mustOpen("alice", "sales-report")
	other := New(w.cfg) // a replica that has not seen it
	for _, s := range []*Service{w.Service, other} {
		ask(s, g.GetId(), "n1", codes.OK)
		ask(s, g.GetId(), "n2", codes.PermissionDenied)
		ask(s, g.GetId(), "", codes.PermissionDenied)
		ask(s, "", "n1", codes.PermissionDenied)
		of(s, g.GetId(), "n1", "alice")
		of(s, g.GetId(), "n2", "")
		of(s, "", "n1", "")
		of(s, strings.Repeat("g", 10_000), "n1", "")
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

// TestReuse: what may be opened again without asking, and for how long.
func TestReuse(t *testing.T) {
	w := newWorld(t)
	w.apply(`
kind: Task
metadata: {name: crown-jewels}
spec: {purpose: live, resources: {names: [warehouse]}, permit: [{table: sales.orders, verbs: [select], columns: [id]}], duration: 1h, staleness: {maxStaleness: 9s}}
---
kind: Binding
metadata: {name: jewellers}
spec: {subjects: [{group: analysts}], tasks: [crown-jewels]}
`)
	settled := true
	w.cfg.Settled = func() bool { return settled }
	w.cfg.Browser = func(context.Context, string, string, string) (postern.Subject, error) { return w.tokens["alice"], nil }
	made, err := w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "sales-report", Ttl: durationpb.New(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	asks := func(what string, s *Service, req *nodev1.OpenGrantRequest, want time.Duration) {
		t.Helper()
		req.Task = "sales-report"
		if what == "a task that is live" {
			req.Task = "crown-jewels"
		}
		o, err := s.OpenFor(t.Context(), req, "n1")
		if err != nil || o.Grant == nil {
			t.Fatalf("%s: %v", what, err)
		}
		if o.Reuse != want {
			t.Errorf("%s may be opened again for %s, want %s", what, o.Reuse, want)
		}
	}
	asks("an OIDC token", w.Service, &nodev1.OpenGrantRequest{Token: "alice"}, reuse)
	asks("a grant token", w.Service, &nodev1.OpenGrantRequest{Token: made.GetToken()}, 0)
	asks("a browser's session", w.Service, &nodev1.OpenGrantRequest{Token: entrance.TokenPrefix + "x"}, 0)
	asks("a task that is live", w.Service, &nodev1.OpenGrantRequest{Token: "alice"}, 0)
	_, der := w.certify("alice", "sales-report")
	asks("a certificate", w.Service, &nodev1.OpenGrantRequest{ClientCertificate: der}, 0)
	settled = false
	asks("what was judged by an older policy", w.Service, &nodev1.OpenGrantRequest{Token: "alice"}, 0)
	w.cfg.Settled = nil
	asks("what nobody says is settled", New(w.cfg), &nodev1.OpenGrantRequest{Token: "alice"}, 0)

	settled = true
	for left, want := range map[time.Duration]time.Duration{time.Hour: reuse, 3 * time.Second: 3 * time.Second, 0: 0, -time.Second: 0} {
		if got := w.reusable("sales-report", time.Now().Add(left)); got > want || got < want-time.Second {
			t.Errorf("a token that lasts for %s: %s, want %s", left, got, want)
		}
	}
}

// TestAlternatives: a node is told what else the subject is offered on the resource, those that
// ask nobody first, and neither what is for others, nor of other resources, nor for one job alone.
func TestAlternatives(t *testing.T) {
	w := newWorld(t)
	w.apply(`kind: Resource
metadata: {name: shop}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: shop, tls: {mode: disable}}, credential: {sealed: rw}, catalog: {sealed: rw}}
---
kind: Task
metadata: {name: shop-report}
spec: {purpose: figures, resources: {names: [shop]}, permit: [{table: sales.orders, verbs: [select], columns: [id]}], duration: 1h}
---
kind: Task
metadata: {name: vacuum}
spec: {purpose: upkeep, resources: {names: [warehouse]}, permit: [{table: sales.orders, verbs: [select], columns: [id]}], duration: 1h}
---
kind: Binding
metadata: {name: more}
spec: {subjects: [{group: analysts}], tasks: [shop-report, vacuum]}
`)
	o, err := w.OpenFor(t.Context(), &nodev1.OpenGrantRequest{Token: "alice", Task: "sales-report", Resource: "warehouse"}, "n1")
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, a := range o.Alternatives {
		got += fmt.Sprintf("%s %t ", a.Task, a.Asks)
	}
	if got != "vacuum false schema-change true " {
		t.Errorf("alternatives: %s", got)
	}
}
