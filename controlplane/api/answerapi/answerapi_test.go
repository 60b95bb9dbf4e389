package answerapi

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

func FuzzToken(f *testing.F) {
	f.Add(spot{Time: 1, Session: "s-1", Number: 7}.token())
	f.Add("e30")
	f.Fuzz(func(t *testing.T, token string) {
		var c check
		s := c.token(token)
		if s != nil && c.err() == nil && s.Number > 1<<63-1 {
			t.Errorf("%q gives %+v", token, s)
		}
	})
}

func TestQuestionsAreChecked(t *testing.T) {
	for name, ask := range map[string]func(c *check){
		"no words":         func(c *check) { c.name("name", "", true) },
		"no schema":        func(c *check) { c.name("name", "customers", true) },
		"an empty part":    func(c *check) { c.name("name", "sales..email", false) },
		"a role of what":   func(c *check) { c.role("out", "") },
		"an odd role":      func(c *check) { c.role("seen", "a.b") },
		"an odd verdict":   func(c *check) { c.verdict("maybe") },
		"a negative page":  func(c *check) { c.page(-1) },
		"a large page":     func(c *check) { c.page(maxPage + 1) },
		"an odd token":     func(c *check) { c.token("!") },
		"a zero byte":      func(c *check) { c.fields("a\x00") },
		"an impossible at": func(c *check) { c.time("since", &timestamppb.Timestamp{Nanos: -1}) },
	} {
		var c check
		ask(&c)
		if c.err() == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// sessions is an index of sessions alone, the newest first.
type sessions struct {
	Index
	list []*typesv1.Session
}

func (s sessions) Sessions(_ context.Context, f index.Filter) (out []*typesv1.Session, _ error) {
	for _, one := range s.list {
		if one.GetTask() == f.Task && f.Before == nil {
			out = append(out, one)
		}
	}
	return out, nil
}

func TestUnusedBindings(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	used := func(days int, subject, workload string, groups ...string) *typesv1.Session {
		at := timestamppb.New(now.AddDate(0, 0, -days))
		return &typesv1.Session{Task: "t", Subject: subject, Workload: workload, Groups: groups, StartTime: at, LastTime: at}
	}
	binding := func(name string, s ...*typesv1.SubjectSelector) *typesv1.Binding {
		return &typesv1.Binding{Metadata: &typesv1.Metadata{Name: name}, Spec: &typesv1.BindingSpec{Subjects: s, Tasks: []string{"t"}}}
	}
	h := New(sessions{list: []*typesv1.Session{used(1, "alice", "", "analysts"), used(100, "bob", "", "leads"), used(120, "nightly", "nightly")}},
		func() ([]*typesv1.Binding, error) {
			return []*typesv1.Binding{
				binding("analysts", &typesv1.SubjectSelector{Group: "analysts"}),
				binding("leads", &typesv1.SubjectSelector{Group: "leads"}),
				binding("nightly", &typesv1.SubjectSelector{Workload: "nightly"}),
				binding("nobody", &typesv1.SubjectSelector{Group: "none"}),
				binding("claimed", &typesv1.SubjectSelector{Claim: map[string]string{"team": "x"}}),
			}, nil
		}, func() time.Time { return now })
	list, err := h.unused(context.Background(), index.Usage{}, now.AddDate(0, 0, -90))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, u := range list {
		got[u.GetBinding()] = u.GetLastTime() != nil
	}
	if len(got) != 3 || !got["leads"] || !got["nightly"] || got["nobody"] {
		t.Errorf("%v", got)
	}
	if list, err := h.unused(context.Background(), index.Usage{Name: "nightly"}, now); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}
