package authz_test

import (
	"iter"
	"maps"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/posterngate/postern/controlplane/api/authz"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

const worldText = `
kind: Resource
metadata: {name: warehouse, labels: {team: sales}}
spec: {credential: {vault: {mount: database, role: warehouse}}}
---
kind: Resource
metadata: {name: payroll, labels: {team: hr}}
---
kind: Secret
metadata: {name: sales-db, labels: {team: sales}}
---
kind: Secret
metadata: {name: hr-db, labels: {team: hr}}
---
kind: Mask
metadata: {name: email}
---
kind: Mask
metadata: {name: other}
---
kind: ApprovalRule
metadata: {name: leads}
---
kind: Task
metadata: {name: report, labels: {team: sales}}
spec: {resources: {names: [warehouse]}, permit: [{table: a.b, mask: {c: email}}]}
---
kind: Task
metadata: {name: salaries, labels: {team: hr}}
spec: {resources: {names: [payroll]}}
---
kind: Task
metadata: {name: unbound, labels: {team: sales}}
spec: {resources: {labels: {team: sales}}}
---
kind: Workload
metadata: {name: hourly}
spec: {owner: oscar}
---
kind: Workload
metadata: {name: nightly, labels: {team: sales}}
spec: {owner: oscar}
---
kind: Binding
metadata: {name: analysts, labels: {team: sales}}
spec: {subjects: [{group: analysts}], tasks: [report]}
---
kind: Binding
metadata: {name: night, labels: {team: sales}}
spec: {subjects: [{workload: nightly}], tasks: [salaries]}
---
kind: Lock
metadata: {name: on-olga}
spec: {subject: olga, reason: r}
---
kind: Lock
metadata: {name: on-nightly}
spec: {workload: nightly, reason: r}
---
kind: Lock
metadata: {name: on-grant}
spec: {grant: g-1, reason: r}
---
kind: Lock
metadata: {name: by-name}
spec: {subject: nightly, reason: r}
---
kind: Lock
metadata: {name: was-hourly}
spec: {workload: hourly, reason: r, expires: "2026-01-01T00:00:00Z"}
---
kind: Lock
metadata: {name: was-olga}
spec: {subject: olga, reason: r, expires: "2026-01-01T00:00:00Z"}
`

// objects is an authz.World of objects by reference.
type objects map[string]*typesv1.Object

func (w objects) Lookup(kind, name string) *typesv1.Object { return w[kind+"/"+name] }

func (w objects) All(kind string) iter.Seq[*typesv1.Object] {
	return func(yield func(*typesv1.Object) bool) {
		for ref, o := range w {
			if strings.HasPrefix(ref, kind+"/") && !yield(o) {
				return
			}
		}
	}
}

func parse(t *testing.T, text string) objects {
	t.Helper()
	all, err := object.ParseYAML(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	w := make(objects)
	for _, o := range all {
		w[object.Ref(o)] = o
	}
	return w
}

func TestMayWrite(t *testing.T) {
	all, sales := policy.RoleGrant{Role: authz.Operator}, policy.RoleGrant{Role: authz.Operator, Scope: map[string]string{"team": "sales"}}
	olga := &authz.Caller{Subject: postern.Subject{Name: "olga"}, Roles: []policy.RoleGrant{all}}
	anna := &authz.Caller{Subject: postern.Subject{Name: "anna", Groups: []string{"analysts"}}, Roles: []policy.RoleGrant{all}}
	oscar := &authz.Caller{Subject: postern.Subject{Name: "oscar"}, Roles: []policy.RoleGrant{all}}
	sam := &authz.Caller{Subject: postern.Subject{Name: "sam"}, Roles: []policy.RoleGrant{sales, {Role: authz.Viewer}}}
	vic := &authz.Caller{Subject: postern.Subject{Name: "vic"}, Roles: []policy.RoleGrant{{Role: authz.Viewer}, {Role: authz.Auditor}}}
	ada := &authz.Caller{Subject: postern.Subject{Name: "ada", Groups: []string{"analysts"}}, Roles: []policy.RoleGrant{{Role: authz.Admin}}}
	salesAdmin := &authz.Caller{Subject: postern.Subject{Name: "sal"}, Roles: []policy.RoleGrant{{Role: authz.Admin, Scope: sales.Scope}}}
	for name, c := range map[string]struct {
		by     *authz.Caller
		put    string           // objects, or
		remove string           // a reference
		locked *typesv1.Subject // of the grant that the lock stands on
		denied string           // a part of the reason; empty allows
		own    bool
	}{
		"operator writes a task":       {by: olga, put: "kind: Task\nmetadata: {name: new}\nspec: {resources: {names: [payroll]}}"},
		"operator binds others":        {by: olga, put: "kind: Binding\nmetadata: {name: b}\nspec: {subjects: [{group: analysts}], tasks: [salaries]}"},
		"viewer writes":                {by: vic, put: "kind: Mask\nmetadata: {name: m}", denied: "only an operator"},
		"nobody writes":                {by: nil, put: "kind: Mask\nmetadata: {name: m}", denied: "only an operator"},
		"operator writes a secret":     {by: olga, put: "kind: Secret\nmetadata: {name: s}", denied: "only an admin"},
		"operator writes roles":        {by: olga, put: "kind: RoleBinding\nmetadata: {name: r}\nspec: {role: viewer, subjects: [{subject: x}]}", denied: "only an admin"},
		"admin writes a secret":        {by: ada, put: "kind: Secret\nmetadata: {name: s}"},
		"admin writes roles":           {by: ada, put: "kind: RoleBinding\nmetadata: {name: r}\nspec: {role: admin, subjects: [{subject: x}]}"},
		"scoped admin writes roles":    {by: salesAdmin, put: "kind: RoleBinding\nmetadata: {name: r, labels: {team: sales}}\nspec: {role: admin, subjects: [{subject: sal}]}", denied: "admin of everything"},
		"scoped admin writes a secret": {by: salesAdmin, put: "kind: Secret\nmetadata: {name: s, labels: {team: sales}}"},
		"scoped admin reaches out":     {by: salesAdmin, put: "kind: Secret\nmetadata: {name: hr-db, labels: {team: sales}}", denied: "before and after"},
		"admin writes a node":          {by: ada, put: "kind: Node\nmetadata: {name: n1}", denied: "enrolment"},

		"in scope":                         {by: sam, put: "kind: Task\nmetadata: {name: report, labels: {team: sales}}\nspec: {resources: {names: [warehouse]}}"},
		"without the label":                {by: sam, put: "kind: Mask\nmetadata: {name: m}", denied: "must carry the labels {team: sales}"},
		"with another label":               {by: sam, put: "kind: Mask\nmetadata: {name: m, labels: {team: hr}}", denied: "must carry"},
		"taken into scope":                 {by: sam, put: "kind: Task\nmetadata: {name: salaries, labels: {team: sales}}\nspec: {resources: {names: [payroll]}}", denied: "before and after"},
		"taken out of scope":               {by: sam, put: "kind: Task\nmetadata: {name: report, labels: {team: hr}}\nspec: {resources: {names: [warehouse]}}", denied: "before and after"},
		"removed out of scope":             {by: sam, remove: "task/salaries", denied: "before and after"},
		"removed in scope":                 {by: sam, remove: "task/report"},
		"names a resource of others":       {by: sam, put: "kind: Task\nmetadata: {name: t, labels: {team: sales}}\nspec: {resources: {names: [warehouse, payroll]}}", denied: "resource/payroll"},
		"selects in scope":                 {by: sam, put: "kind: Task\nmetadata: {name: t, labels: {team: sales}}\nspec: {resources: {labels: {team: sales, env: prod}}}"},
		"selects out of scope":             {by: sam, put: "kind: Task\nmetadata: {name: t, labels: {team: sales}}\nspec: {resources: {labels: {env: prod}}}", denied: "spec.resources.labels"},
		"selects nothing":                  {by: sam, put: "kind: Task\nmetadata: {name: t, labels: {team: sales}}\nspec: {}", denied: "spec.resources.labels"},
		"names a resource that is not":     {by: sam, put: "kind: Task\nmetadata: {name: t, labels: {team: sales}}\nspec: {resources: {names: [ghost]}}", denied: "resource/ghost"},
		"binds a task of others":           {by: sam, put: "kind: Binding\nmetadata: {name: b, labels: {team: sales}}\nspec: {subjects: [{group: x}], tasks: [report, salaries]}", denied: "task/salaries"},
		"new resource, its own secret":     {by: sam, put: "kind: Resource\nmetadata: {name: r, labels: {team: sales}}\nspec: {credential: {sealed: sales-db}}"},
		"new resource, secret of others":   {by: sam, put: "kind: Resource\nmetadata: {name: r, labels: {team: sales}}\nspec: {credential: {sealed: hr-db}}", denied: "secret/hr-db"},
		"catalogue by a secret of others":  {by: sam, put: "kind: Resource\nmetadata: {name: r, labels: {team: sales}}\nspec: {catalog: {sealed: hr-db}}", denied: "secret/hr-db"},
		"vault stays":                      {by: sam, put: "kind: Resource\nmetadata: {name: warehouse, labels: {team: sales}}\nspec: {credential: {vault: {mount: database, role: warehouse}}, reachableFrom: {a: b}}"},
		"vault path of others":             {by: sam, put: "kind: Resource\nmetadata: {name: warehouse, labels: {team: sales}}\nspec: {credential: {vault: {mount: database, role: hr}}}", denied: "Vault"},
		"locks its resource":               {by: sam, put: "kind: Lock\nmetadata: {name: l, labels: {team: sales}}\nspec: {resource: warehouse}"},
		"locks a resource of others":       {by: sam, put: "kind: Lock\nmetadata: {name: l, labels: {team: sales}}\nspec: {resource: payroll}", denied: "resource/payroll"},
		"locks a person":                   {by: sam, put: "kind: Lock\nmetadata: {name: l, labels: {team: sales}}\nspec: {subject: ada}", denied: "operator of everything"},
		"mask keyed by a secret of others": {by: sam, put: "kind: Mask\nmetadata: {name: m, labels: {team: sales}}\nspec: {method: token, key: {secret: hr-db}}", denied: "secret/hr-db"},
		"one of two out of scope":          {by: sam, put: "kind: Mask\nmetadata: {name: m, labels: {team: sales}}\n---\nkind: Mask\nmetadata: {name: m2}", denied: "mask/m2"},

		"binds themselves":                   {by: olga, put: "kind: Binding\nmetadata: {name: b}\nspec: {subjects: [{subject: olga}], tasks: [unbound]}", denied: "ask nobody"},
		"binds their group":                  {by: anna, put: "kind: Binding\nmetadata: {name: b}\nspec: {subjects: [{group: x}, {group: analysts}], tasks: [unbound]}", denied: "ask nobody"},
		"binds themselves with approval":     {by: olga, put: "kind: Binding\nmetadata: {name: b}\nspec: {subjects: [{subject: olga}], tasks: [unbound], approval: {scope: grant, rule: leads}}"},
		"approval of some verbs":             {by: olga, put: "kind: Binding\nmetadata: {name: b}\nspec: {subjects: [{subject: olga}], tasks: [unbound], approval: {scope: statement, rule: leads, verbs: [delete]}}", denied: "ask nobody"},
		"binds a workload of theirs":         {by: oscar, put: "kind: Binding\nmetadata: {name: b}\nspec: {subjects: [{workload: nightly}], tasks: [report]}", denied: "ask nobody"},
		"binds a workload of others":         {by: olga, put: "kind: Binding\nmetadata: {name: b}\nspec: {subjects: [{workload: nightly}], tasks: [report]}"},
		"makes itself owner in one step":     {by: olga, put: "kind: Workload\nmetadata: {name: w}\nspec: {owner: olga}\n---\nkind: Binding\nmetadata: {name: b}\nspec: {subjects: [{workload: w}], tasks: [report]}", denied: "ask nobody"},
		"unbinds themselves":                 {by: anna, remove: "binding/analysts"},
		"widens a task of theirs":            {by: anna, put: "kind: Task\nmetadata: {name: report}\nspec: {resources: {names: [warehouse]}, permit: [{unrestricted: true}]}", denied: "depends on task/report"},
		"widens a task of their workload":    {by: oscar, put: "kind: Task\nmetadata: {name: salaries}\nspec: {resources: {names: [payroll]}}", denied: "depends on task/salaries"},
		"weakens a mask of theirs":           {by: anna, put: "kind: Mask\nmetadata: {name: email}\nspec: {method: partial, keepFirst: 99}", denied: "depends on mask/email"},
		"moves a resource of theirs":         {by: anna, put: "kind: Resource\nmetadata: {name: warehouse}", denied: "depends on resource/warehouse"},
		"another mask":                       {by: anna, put: "kind: Mask\nmetadata: {name: other}"},
		"unbinds and widens in one step":     {by: anna, put: "kind: Binding\nmetadata: {name: analysts}\nspec: {subjects: [{group: x}], tasks: [report]}\n---\nkind: Task\nmetadata: {name: report}\nspec: {resources: {names: [warehouse]}, permit: [{unrestricted: true}]}", denied: "depends on task/report"},
		"binds and weakens the rule at once": {by: olga, put: "kind: Binding\nmetadata: {name: b}\nspec: {subjects: [{subject: olga}], tasks: [unbound], approval: {scope: grant, rule: leads}}\n---\nkind: ApprovalRule\nmetadata: {name: leads}\nspec: {all: [{group: friends, atLeast: 1}]}", denied: "depends on approvalrule/leads"},
		"lifts a lock on themselves":         {by: olga, remove: "lock/on-olga", denied: "somebody else must lift it"},
		"shortens a lock on themselves":      {by: olga, put: "kind: Lock\nmetadata: {name: on-olga}\nspec: {subject: x}", denied: "somebody else must lift it"},
		"lifts a lock on their workload":     {by: oscar, remove: "lock/on-nightly", denied: "somebody else must lift it"},
		"gives it away, and lifts the lock":  {by: oscar, put: "kind: Workload\nmetadata: {name: nightly}\nspec: {owner: olga}\n---\nkind: Lock\nmetadata: {name: on-nightly}\nspec: {workload: x}", denied: "which is yours: somebody else must"},
		"gives it away first":                {by: oscar, put: "kind: Workload\nmetadata: {name: nightly}\nspec: {owner: olga}", denied: "stands on workload/nightly, which is yours"},
		"lifts what is over on it":           {by: oscar, remove: "lock/was-hourly"},
		"lifts what was on themselves":       {by: olga, remove: "lock/was-olga"},
		"gives away what is not locked":      {by: oscar, put: "kind: Workload\nmetadata: {name: hourly}\nspec: {owner: olga}"},
		"lifts a lock on another's workload": {by: anna, remove: "lock/on-nightly"},
		"lifts a lock on their grant":        {by: olga, remove: "lock/on-grant", locked: &typesv1.Subject{Name: "olga"}, denied: `grant "g-1", which is yours: somebody else must lift it`},
		"turns a lock on their grant":        {by: olga, put: "kind: Lock\nmetadata: {name: on-grant}\nspec: {grant: g-2}", locked: &typesv1.Subject{Name: "olga"}, denied: "somebody else must lift it"},
		"on a grant of their workload":       {by: oscar, remove: "lock/on-grant", locked: &typesv1.Subject{Name: "nightly", Workload: "nightly"}, denied: "somebody else must lift it"},
		"on what their workload has for all": {by: oscar, remove: "lock/on-grant", locked: &typesv1.Subject{Name: "anna", Actor: "nightly"}, denied: "somebody else must lift it"},
		"lifts a lock on another's grant":    {by: anna, remove: "lock/on-grant", locked: &typesv1.Subject{Name: "olga"}},
		"lifts a lock on no grant":           {by: anna, remove: "lock/on-grant"},
		"by the name of their workload":      {by: oscar, remove: "lock/by-name", denied: "somebody else must lift it"},
		"lifts a lock on others":             {by: anna, remove: "lock/on-olga"},
		"admin binds themselves":             {by: ada, put: "kind: Binding\nmetadata: {name: b}\nspec: {subjects: [{subject: ada}], tasks: [unbound]}", own: true},
		"admin widens a task of theirs":      {by: ada, put: "kind: Task\nmetadata: {name: report}\nspec: {resources: {names: [warehouse]}}", own: true},
		"admin binds others":                 {by: ada, put: "kind: Binding\nmetadata: {name: b}\nspec: {subjects: [{group: x}], tasks: [unbound]}"},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := parse(t, worldText), parse(t, worldText)
			var changes []authz.Change
			if c.remove != "" {
				changes = append(changes, authz.Change{Before: before[c.remove], Locked: c.locked})
				delete(after, c.remove)
			} else {
				for ref, o := range parse(t, c.put) {
					changes = append(changes, authz.Change{Before: before[ref], After: o, Locked: c.locked})
					after[ref] = proto.CloneOf(o)
				}
			}
			own, err := c.by.MayWrite(changes, before, after, noon)
			switch {
			case c.denied == "" && err != nil:
				t.Errorf("denied: %v", err)
			case c.denied != "" && (err == nil || !strings.Contains(err.Error(), c.denied)):
				t.Errorf("error = %v, want %q", err, c.denied)
			case own != c.own:
				t.Errorf("own = %v", own)
			}
		})
	}
}

// TestReferencesStayInScope: by no field of any kind does an operator of a scope reach what is
// out of it (CVE-2022-36130). Each field is tried that policy takes for a reference.
func TestReferencesStayInScope(t *testing.T) {
	sam := &authz.Caller{Subject: postern.Subject{Name: "sam"}, Roles: []policy.RoleGrant{{Role: authz.Admin, Scope: map[string]string{"team": "sales"}}}}
	// What gives nobody anything: people who are asked, masks that hide more, and workloads
	// to which something is given.
	harmless := map[string]bool{"approvalrule/theirs": true, "mask/theirs": true, "workload/theirs": true}
	before := parse(t, `
kind: Resource
metadata: {name: theirs, labels: {team: hr}}
---
kind: Secret
metadata: {name: theirs, labels: {team: hr}}
---
kind: Task
metadata: {name: theirs, labels: {team: hr}}
---
kind: ApprovalRule
metadata: {name: theirs, labels: {team: hr}}
---
kind: Workload
metadata: {name: theirs, labels: {team: hr}}
---
kind: Mask
metadata: {name: theirs, labels: {team: hr}}
spec: {method: redact}
---
kind: Mask
metadata: {name: keyed, labels: {team: hr}}
spec: {method: token, key: {secret: theirs}}
`)
	tried, let := map[string]int{}, map[string]int{}
	for _, kind := range object.Kinds() {
		for _, name := range []string{"theirs", "keyed"} {
			for _, o := range naming(kind, name) {
				object.Meta(o).Name, object.Meta(o).Labels = "new", map[string]string{"team": "sales"}
				if t := o.GetTask().GetSpec(); t != nil && len(t.GetResources().GetNames()) == 0 {
					t.Resources = &typesv1.ResourceSelector{Labels: map[string]string{"team": "sales"}}
				}
				after := maps.Clone(before)
				after[object.Ref(o)] = o
				_, err := sam.MayWrite([]authz.Change{{After: o}}, before, after, noon)
				for ref := range before {
					of, is, _ := strings.Cut(ref, "/")
					if is != name || len(policy.Referrers(of, name, []*typesv1.Object{o})) == 0 {
						continue
					}
					if tried[ref]++; err != nil {
						continue
					}
					if let[ref]++; !harmless[ref] {
						t.Errorf("%v reaches %s", o, ref)
					}
				}
			}
		}
	}
	for ref := range before {
		if tried[ref] == 0 || harmless[ref] && let[ref] == 0 {
			t.Errorf("%s: tried %d times, of which %d are let be", ref, tried[ref], let[ref])
		}
	}
}

// TestWhatATaskNamesIsNotItsSubjects: nobody but an admin writes what a task that is bound to
// them refers to, by whichever field.
func TestWhatATaskNamesIsNotItsSubjects(t *testing.T) {
	anna := &authz.Caller{Subject: postern.Subject{Name: "anna"}, Roles: []policy.RoleGrant{{Role: authz.Operator}}}
	refers := map[string]*typesv1.Object{}
	for _, kind := range []string{"resource", "mask", "approvalrule"} {
		refers[kind] = object.Bare(kind, "theirs")
	}
	bound := parse(t, "kind: Binding\nmetadata: {name: b}\nspec: {subjects: [{subject: anna}], tasks: [t]}")
	tried := map[string]int{}
	for _, o := range naming("task", "theirs") {
		object.Meta(o).Name = "t"
		for kind, ref := range refers {
			if len(policy.Referrers(kind, "theirs", []*typesv1.Object{o})) == 0 {
				continue
			}
			tried[kind]++
			before := maps.Clone(bound)
			before["task/t"], before[object.Ref(ref)] = o, ref
			if _, err := anna.MayWrite([]authz.Change{{Before: ref, After: ref}}, before, before, noon); err == nil {
				t.Errorf("%s is written by whom %v is bound to", object.Ref(ref), o)
			}
		}
	}
	for kind := range refers {
		if tried[kind] == 0 {
			t.Errorf("no field of a task names a %s", kind)
		}
	}
}

// naming are objects of a kind that have a name in one field each, in all that have text.
func naming(kind, name string) (out []*typesv1.Object) {
	whole := (&typesv1.Object{}).ProtoReflect()
	fields := whole.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !strings.EqualFold(string(f.Message().Name()), kind) {
			continue
		}
		for _, v := range holding(f.Message(), name, 0) {
			m := whole.New()
			m.Set(f, protoreflect.ValueOfMessage(v))
			out = append(out, m.Interface().(*typesv1.Object))
		}
	}
	return out
}

// holding are messages with a text in one field each.
func holding(d protoreflect.MessageDescriptor, text string, depth int) (out []protoreflect.Message) {
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil || depth > 6 {
		return nil
	}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		var values []protoreflect.Value
		of := f
		if f.IsMap() {
			of = f.MapValue()
		}
		switch of.Kind() {
		case protoreflect.StringKind:
			values = append(values, protoreflect.ValueOfString(text))
		case protoreflect.MessageKind:
			for _, m := range holding(of.Message(), text, depth+1) {
				values = append(values, protoreflect.ValueOfMessage(m))
			}
		default:
		}
		for _, v := range values {
			m := mt.New()
			switch {
			case f.IsMap() && f.MapKey().Kind() == protoreflect.StringKind:
				m.Mutable(f).Map().Set(protoreflect.ValueOfString("x").MapKey(), v)
			case f.IsMap():
				continue
			case f.IsList():
				m.Mutable(f).List().Append(v)
			default:
				m.Set(f, v)
			}
			out = append(out, m)
		}
	}
	return out
}

func TestHas(t *testing.T) {
	sales := map[string]string{"team": "sales"}
	c := &authz.Caller{Roles: []policy.RoleGrant{{Role: authz.Operator, Scope: sales}, {Role: authz.Viewer}}}
	if c.Has(authz.Operator) || !c.HasSome(authz.Operator) || !c.HasFor(authz.Operator, map[string]string{"team": "sales", "env": "prod"}) || c.HasFor(authz.Operator, map[string]string{"env": "prod"}) {
		t.Error("an operator within a scope is taken for one of everything, or for none")
	}
	if !c.Has(authz.Viewer) || c.HasSome(authz.Auditor) || c.HasSome("owner") || (*authz.Caller)(nil).HasSome(authz.Viewer) {
		t.Error("roles are mixed up")
	}
}

func TestMayRead(t *testing.T) {
	w := parse(t, worldText)
	grant := func(role string, scope map[string]string) *authz.Caller {
		return &authz.Caller{Subject: postern.Subject{Name: "x"}, Roles: []policy.RoleGrant{{Role: role, Scope: scope}}}
	}
	sales := map[string]string{"team": "sales"}
	for name, c := range map[string]struct {
		by   *authz.Caller
		ref  string
		want bool
	}{
		"nobody":                   {nil, "mask/email", false},
		"nobody in particular":     {&authz.Caller{}, "mask/email", false},
		"viewer":                   {grant(authz.Viewer, nil), "mask/email", true},
		"auditor":                  {grant(authz.Auditor, nil), "mask/email", false},
		"viewer, secret":           {grant(authz.Viewer, nil), "secret/hr-db", false},
		"operator, secret":         {grant(authz.Operator, nil), "secret/hr-db", true},
		"scoped":                   {grant(authz.Viewer, sales), "task/report", true},
		"out of scope":             {grant(authz.Viewer, sales), "task/salaries", false},
		"scoped, without a label":  {grant(authz.Operator, sales), "mask/email", false},
		"a role that is not known": {grant("owner", nil), "mask/email", false},
	} {
		if got := c.by.MayRead(w[c.ref]); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
