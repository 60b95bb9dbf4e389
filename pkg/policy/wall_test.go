package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

const native = `
kind: Mask
metadata: {name: hide}
spec: {method: redact, value: "***"}
---
kind: Resource
metadata: {name: walled}
spec: {protocol: postgres, endpoint: {host: db, port: 1, database: d}, credential: {sealed: s}, level: {want: native, admin: {sealed: a}}}
---
kind: Resource
metadata: {name: plain}
spec: {protocol: postgres, endpoint: {host: db, port: 1, database: d}, credential: {sealed: s}}
---
kind: Task
metadata: {name: work}
spec:
  resources: {names: [walled, plain]}
  permit:
    - {table: s.people, verbs: [select], columns: [id, name, email], mask: {email: hide}}
    - {table: s.people, verbs: [update, delete], columns: [id, email], writeColumns: [name]}
    - {table: s.log, verbs: [insert], writeColumns: [what]}
    - {table: pg_catalog.pg_stat_activity, verbs: [select], columns: [pid]}
  functions: {allow: [s.total]}
  duration: 1h
`

func compileYAML(t *testing.T, yaml string) (*Snapshot, []Rejection) {
	t.Helper()
	return Compile(version, parse(t, []byte(yaml)))
}

func TestWall(t *testing.T) {
	s, rejected := compileYAML(t, native)
	if len(rejected) > 0 {
		t.Fatal(rejected)
	}
	w, ok := s.Wall("work", "walled")
	if !ok || len(w.Views) != 1 || w.Views[0].Rule.View.Name != "s.people" || w.Views[0].Rule.View.Schema != w.Schema {
		t.Fatalf("%+v", w)
	}
	prefix := WallPrefix("walled")
	if w.Role != prefix+"t_work" || w.Owner != prefix+"o_work" || !strings.HasPrefix(w.Schema, prefix+"work_") {
		t.Errorf("names %s, %s, %s", w.Role, w.Owner, w.Schema)
	}
	want := []WallTable{
		{Name: sql.Name{Schema: "s", Name: "log"}, Insert: []string{"what"}},
		{Name: sql.Name{Schema: "s", Name: "people"}, Select: []string{"id"}, Update: []string{"name"}, Delete: true},
	}
	if len(w.Tables) != 2 {
		t.Fatalf("tables %+v", w.Tables)
	}
	for i, got := range w.Tables {
		if got.Name != want[i].Name || !slices.Equal(got.Select, want[i].Select) || !slices.Equal(got.Insert, want[i].Insert) ||
			!slices.Equal(got.Update, want[i].Update) || got.Delete != want[i].Delete || got.Truncate {
			t.Errorf("table %+v, want %+v", got, want[i])
		}
	}
	if !slices.Equal(w.Functions, []sql.Name{{Schema: "s", Name: "total"}}) {
		t.Errorf("functions %v", w.Functions)
	}
	if _, ok := s.Wall("work", "plain"); ok {
		t.Error("a resource at level source has a wall")
	}
	other, _ := compileYAML(t, strings.Replace(native, `"***"`, `"hidden"`, 1))
	changed, _ := other.Wall("work", "walled")
	if changed.Schema == w.Schema || changed.Role != w.Role {
		t.Errorf("after a change of a mask: schema %s, role %s", changed.Schema, changed.Role)
	}
	login, ok := s.Login("work", "walled")
	if login != nil || !ok {
		t.Errorf("login %v, %v", login, ok)
	}
	if login, _ := s.Login("work", "plain"); login.GetSealed() != "s" {
		t.Errorf("login at level source: %v", login)
	}
}

func TestWallUnfit(t *testing.T) {
	for name, change := range map[string][2]string{
		"commands": {"- {table: s.log,", "- {commands: [create table], schemas: [s]}\n    - {table: s.log,"},
		"pool":     {"duration: 1h", "credential: {reuse: pool}\n  duration: 1h"},
	} {
		t.Run(name, func(t *testing.T) {
			yaml := strings.Replace(native, change[0], change[1], 1)
			s, rejected := compileYAML(t, yaml)
			if len(rejected) != 1 || rejected[0].Object != "task/work" || !strings.Contains(rejected[0].Reason, "level native") {
				t.Fatalf("rejected %v", rejected)
			}
			if _, err := s.ResourceOf("work", "walled"); err == nil {
				t.Error("the task reaches the resource all the same")
			}
			if _, err := s.ResourceOf("work", "plain"); err != nil {
				t.Errorf("the task is gone elsewhere: %v", err)
			}
			all := parse(t, []byte(yaml))
			if got := Validate(all[len(all)-1], lookupIn(all)); len(got) == 0 {
				t.Error("it may be written")
			}
		})
	}
}

func TestDecideNative(t *testing.T) {
	s, _ := compileYAML(t, native)
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	grant := &postern.Grant{ID: "g", Subject: postern.Subject{Name: "a"}, Task: "work", End: now.Add(time.Hour)}
	facts := &sql.Facts{Complete: true, Statements: []sql.Statement{{Verb: sql.Select, Effect: postern.EffectRead, Tables: []sql.Table{
		{Schema: "s", Name: "people", Verbs: []sql.Verb{sql.Select}, Read: []string{"id"}},
	}}}}
	for resource, level := range map[postern.ResourceName]postern.Level{"walled": postern.LevelNative, "plain": postern.LevelSource} {
		d := s.Decide(Query{Grant: grant, Resource: resource, Facts: facts, Request: Request{Time: now}})
		if d.Verdict != postern.VerdictAllow || d.Level != level || len(d.Obligations) != 1 {
			t.Fatalf("%s: %+v", resource, d)
		}
		if view := d.Obligations[0].Table.View; (view != nil) != (level == postern.LevelNative) {
			t.Errorf("%s: view %v", resource, view)
		}
	}
}

// A token's key would have to lie at the target: at level native a task with tokens
// reaches nothing, and elsewhere a permit with one is kept by the result.
func TestTokensNeedNoWall(t *testing.T) {
	s, rejected := compileYAML(t, strings.Replace(native, `{method: redact, value: "***"}`, `{method: token, domain: d, key: {secret: k}}`, 1))
	if len(rejected) != 1 || !strings.Contains(rejected[0].Reason, "method token") {
		t.Fatalf("%+v", rejected)
	}
	if _, ok := s.Wall("work", "walled"); ok {
		t.Error("the task has a wall")
	}
	if m := s.Tokens("work")["hide"]; m == nil || m.Key != "k" || m.Domain != "d" || len(s.Tokens("nothing")) != 0 {
		t.Errorf("tokens %+v", s.Tokens("work"))
	}
	levels, _ := s.Levels("work", "plain")
	if len(levels) == 0 || levels[0].Level != postern.LevelResult || levels[1].Level != postern.LevelSource {
		t.Errorf("levels %+v", levels)
	}
}
