package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// A table is one file of testdata/decide: a family of rules. Facts are written by hand,
// as the analyser would find them for the SQL that stands beside them.
type table struct {
	Objects string         // YAML; the sample company of world.yaml where it is empty
	Also    string         // YAML, beside it
	Grant   grant          // of every case, where the case says nothing else
	Cases   []decisionCase // in the order of the file
}

type grant struct {
	Task     string
	Subject  postern.Subject
	Approval *postern.Approval
	Ends     string // duration from the request; the default is 1h
}

type decisionCase struct {
	Name     string
	Connect  bool // ask DecideConnect
	SQL      string
	Grant    *grant
	Resource string
	Node     string
	Time     time.Time
	Request  Request
	Usage    Usage
	Estimate *int64
	Facts    *facts
	Want     want
}

type facts struct {
	Incomplete string
	Undefined  *sql.Undefined
	Statements []statement
}

type statement struct {
	sql.Statement
	Effect string
}

type want struct {
	Verdict     string
	Rule        string
	Reason      string // contains
	Detail      string // contains
	Hint        string // contains
	NoHint      bool
	Undefined   postern.Undefined
	Position    int
	Level       string
	Effect      string
	Approval    string // rule
	Missing     []postern.Fact
	Deps        postern.Deps
	Obligations []string // as describe prints them
}

func TestDecisionTables(t *testing.T) {
	files, err := filepath.Glob("testdata/decide/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var table table
		if err := yaml.UnmarshalStrict(text, &table); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		objects := worldObjects(t)
		if table.Objects != "" {
			objects = parse(t, []byte(table.Objects))
		}
		s := compiled(t, append(objects, parse(t, []byte(table.Also))...))
		for _, c := range table.Cases {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml")+"/"+c.Name, func(t *testing.T) {
				check(t, c.decide(t, s, table.Grant), c.Want)
			})
		}
	}
}

func (c *decisionCase) decide(t *testing.T, s *Snapshot, g grant) postern.Decision {
	if c.Grant != nil {
		g = *c.Grant
	}
	if g.Subject.Name == "" {
		g.Subject = postern.Subject{Name: "alice", Groups: []string{"analysts"}, MFA: true}
	}
	q := Query{Resource: "warehouse", Node: postern.NodeName(c.Node), Request: c.Request, Usage: c.Usage, EstimatedRows: c.Estimate}
	if c.Resource != "" {
		q.Resource = postern.ResourceName(c.Resource)
	}
	q.Request.Time = noon
	if !c.Time.IsZero() {
		q.Request.Time = c.Time
	}
	ends := time.Hour
	if g.Ends != "" {
		var err error
		if ends, err = time.ParseDuration(g.Ends); err != nil {
			t.Fatal(err)
		}
	}
	q.Grant = &postern.Grant{ID: "g-1", Subject: g.Subject, Task: postern.TaskName(g.Task), End: q.Request.Time.Add(ends), Approval: g.Approval}
	if c.Connect {
		return s.DecideConnect(q)
	}
	if c.Facts != nil {
		q.Facts = c.Facts.facts(t)
	}
	return s.Decide(q)
}

func (f *facts) facts(t *testing.T) *sql.Facts {
	out := &sql.Facts{Complete: f.Incomplete == "", Incomplete: f.Incomplete, Undefined: f.Undefined}
	for _, st := range f.Statements {
		st.Statement.Effect = effect(t, st)
		out.Statements = append(out.Statements, st.Statement)
	}
	return out
}

// effect is what the file says, or what the verb usually has.
func effect(t *testing.T, st statement) postern.Effect {
	for e := postern.EffectUnknown; e <= postern.EffectNone; e++ {
		if e.String() == st.Effect {
			return e
		}
	}
	if st.Effect != "" {
		t.Fatalf("effect %q is not known", st.Effect)
	}
	switch st.Verb {
	case sql.Insert, sql.Update, sql.Delete, sql.Truncate:
		return postern.EffectWrite
	case sql.Define:
		return postern.EffectDefine
	case sql.Set:
		return postern.EffectControl
	case sql.Transaction, sql.Deallocate, sql.Close:
		return postern.EffectNone
	}
	return postern.EffectRead
}

func check(t *testing.T, d postern.Decision, w want) {
	t.Helper()
	same := func(what, got, want string) {
		t.Helper()
		if want != "" && got != want {
			t.Errorf("%s is %q, want %q (reason: %s)", what, got, want, d.Reason)
		}
	}
	contains := func(what, got, want string) {
		t.Helper()
		if !strings.Contains(got, want) {
			t.Errorf("%s is %q, want %q in it", what, got, want)
		}
	}
	if w.Verdict == "" {
		t.Fatal("the case wants no verdict")
	}
	same("verdict", d.Verdict.String(), w.Verdict)
	same("rule", d.Rule, w.Rule)
	contains("reason", d.Reason, w.Reason)
	contains("detail", d.Detail, w.Detail)
	contains("hint", d.Hint, w.Hint)
	if w.NoHint && d.Hint != "" {
		t.Errorf("hint is %q, want none", d.Hint)
	}
	if w.Undefined != 0 && d.Undefined != w.Undefined || (d.Undefined != 0) != strings.HasSuffix(d.Rule, "/undefined") {
		t.Errorf("undefined is %d, want %d", d.Undefined, w.Undefined)
	}
	if d.Position != w.Position {
		t.Errorf("position is %d, want %d", d.Position, w.Position)
	}
	same("level", d.Level.String(), w.Level)
	same("effect", d.Effect.String(), w.Effect)
	approval := ""
	if d.Approval != nil {
		approval = d.Approval.Rule
	}
	if approval != w.Approval {
		t.Errorf("approval is %q, want %q", approval, w.Approval)
	}
	if !reflect.DeepEqual(d.Missing, w.Missing) {
		t.Errorf("missing %v, want %v", d.Missing, w.Missing)
	}
	if d.Deps != w.Deps {
		t.Errorf("deps are %+v, want %+v", d.Deps, w.Deps)
	}
	if d.Version != version {
		t.Errorf("version is %v", d.Version)
	}
	if got := describe(d.Obligations); !reflect.DeepEqual(got, w.Obligations) {
		t.Errorf("obligations are %q, want %q", got, w.Obligations)
	}
	if d.Verdict == postern.VerdictDeny && (d.Reason == "" || d.Rule == "" || strings.HasSuffix(d.Reason, ".")) {
		t.Errorf("a denial must have a rule and a reason of one clause: %+v", d)
	}
	if d.Verdict != postern.VerdictHold && d.Approval != nil {
		t.Error("only a hold has an approval")
	}
	if d.Verdict == postern.VerdictDeny && len(d.Obligations) > 0 {
		t.Error("a denial has no obligations")
	}
}

// describe prints obligations as the tables write them, such as
// "sales.orders: id, customer_email=redact" and "at most 1 changed".
func describe(obligations []postern.Obligation) []string {
	var out []string
	for _, o := range obligations {
		switch {
		case o.Table != nil:
			var columns []string
			for _, c := range o.Table.Columns {
				name := c.Name
				if c.Mask != nil {
					name += "=" + string(c.Mask.Method)
				}
				columns = append(columns, name)
			}
			text := o.Table.Schema + "." + o.Table.Table + ": " + strings.Join(columns, ", ")
			if o.Table.Every {
				text = strings.TrimSuffix(text, ": ") + " filtered"
			} else if o.Table.Filter != "" {
				text += " where " + o.Table.Filter
			}
			out = append(out, text)
		case o.Blank != "":
			out = append(out, o.Blank+" says nothing")
		case o.MaxAffected > 0:
			out = append(out, fmt.Sprintf("at most %d changed", o.MaxAffected))
		default:
			out = append(out, "unknown")
		}
	}
	return out
}
