package recording_test

import (
	"context"
	"crypto"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posterngate/postern/controlplane/recording"
	"github.com/posterngate/postern/controlplane/recording/index/sqlite"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// TestInAnotherName: a recording that says that it is somebody else's than its grant is kept,
// and marked where it is shown, told of and indexed again. So is one whose grant nobody knows.
func TestInAnotherName(t *testing.T) {
	dir := t.TempDir()
	h := open(t, dir)
	grants := map[postern.GrantID]*typesv1.Grant{
		"g":       {Id: "g", Task: "sales-report", Subject: &typesv1.Subject{Name: "alice", Groups: []string{"others"}}},
		"g-bob":   {Id: "g-bob", Task: "sales-report", Subject: &typesv1.Subject{Name: "bob"}},
		"g-agent": {Id: "g-agent", Task: "sales-report", Subject: &typesv1.Subject{Name: "alice", Actor: "helper", Via: []string{"nightly"}}},
		"g-job":   {Id: "g-job", Task: "sales-report", Subject: &typesv1.Subject{Name: "nightly", Workload: "nightly"}},
	}
	var failed error
	marks, alerts := map[string][]recording.Mark{}, map[string]string{}
	restart := func() {
		t.Helper()
		var err error
		h.Service, err = recording.New(recording.Config{
			Blobs: h.blobs, Index: h.index, Store: h.store, Keys: ring{}, Rejected: func(_ context.Context, r recording.Rejection) error { t.Errorf("%+v", r); return nil },
			NodeKeys: func(string) ([]crypto.PublicKey, error) { return []crypto.PublicKey{nodeKey.Public()}, nil },
			Grant: func(_ context.Context, id postern.GrantID, node postern.NodeName) (*typesv1.Grant, error) {
				if node != "node-1" {
					t.Errorf("asked for node %s", node)
				}
				return grants[id], failed
			},
			Told: func(_ context.Context, m recording.Mark) error {
				marks[m.Session.GetId()] = append(marks[m.Session.GetId()], m)
				return nil
			},
			Alerted: func(_ context.Context, s *typesv1.Session, texts []string) error {
				alerts[s.GetId()] += strings.Join(texts, "; ")
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	restart()
	cases := map[string]struct {
		change func(p *tape)
		want   string // in the doubt; empty for none
	}{
		"s-true":   {func(*tape) {}, ""},
		"s-agent":  {func(p *tape) { p.session.Grant, p.session.Actors = "g-agent", []string{"helper", "nightly"} }, ""},
		"s-job":    {func(p *tape) { p.session.Grant, p.session.Subject, p.session.Workload = "g-job", "nightly", "nightly" }, ""},
		"s-bob":    {func(p *tape) { p.session.Grant = "g-bob" }, `it is "alice"'s for task "sales-report", and the grant g-bob is "bob"'s for`},
		"s-task":   {func(p *tape) { p.session.Task = "payroll" }, `for task "payroll"`},
		"s-alone":  {func(p *tape) { p.session.Grant = "g-agent" }, `is "alice"'s by "helper" by "nightly" for`},
		"s-actor":  {func(p *tape) { p.session.Actors = []string{"helper"} }, `it is "alice"'s by "helper" for`},
		"s-person": {func(p *tape) { p.session.Grant, p.session.Subject = "g-job", "nightly" }, `(workload "nightly")`},
		"s-forged": {func(p *tape) { p.session.Grant = "g-\n\x00\xff" }, `no grant "g-`},
	}
	held := func(when string) {
		t.Helper()
		for id, c := range cases {
			s, err := h.Get(t.Context(), id)
			if err != nil {
				t.Errorf("%s: %s: %v", when, id, err)
			} else if d := s.GetDoubt(); s.GetRecording() != "sealed" || (d != "") != (c.want != "") || !strings.Contains(d, c.want) {
				t.Errorf("%s: %s is %s, doubted: %q", when, id, s.GetRecording(), d)
			}
		}
	}
	for id, c := range cases {
		p := usual(t, id, c.change)
		failed = errors.New("the store is away")
		if r, err := h.Ingest(t.Context(), "node-1", &nodev1.ShipRequest{Session: id, Chunk: p.chunks[0]}); !errors.Is(err, failed) {
			t.Errorf("%s, without the store: %v, %v", id, r, err)
		}
		failed = nil
		shipAll(t, h, p)
		if raw := rawOf(t, id); id == "s-bob" {
			shipAll(t, h, raw)
			if m := marks[string(raw.session.ID)]; len(m) != 2 || m[1].Session.GetDoubt() == "" {
				t.Errorf("what is raw is told of as %+v", m)
			}
		}
		if m := marks[id]; len(m) != 2 || !strings.Contains(m[0].Session.GetDoubt(), c.want) || m[1].Session.GetDoubt() != m[0].Session.GetDoubt() {
			t.Errorf("%s is told of as %+v", id, m)
		}
		if a := alerts[id]; (a != "") != (c.want != "") || !strings.Contains(a, c.want) {
			t.Errorf("%s alerts of %q", id, a)
		}
	}
	held("shipped")

	// The index is lost, and some grants are forgotten: of those there is no new doubt.
	if err := h.index.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.index, err = sqlite.Open(t.Context(), filepath.Join(dir, "another.db")); err != nil {
		t.Fatal(err)
	}
	delete(grants, "g-job")
	restart()
	if _, err := h.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	delete(cases, "s-forged")
	delete(cases, "s-person")
	held("indexed again")
}
