package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// A Wall is what level native makes of one task on one resource: privileges of the
// target itself, and no more than the task permits.
type Wall struct {
	Task   postern.TaskName
	Role   string // cannot log in; the logins of sessions are its members
	Owner  string // cannot log in; owns the views, and may read just what they show
	Schema string // of the views; its name is another whenever one of them is
	// Views show tables as permits say.
	Views []WallView
	// Tables are the privileges on tables that may be changed, by name.
	Tables []WallTable
	// Functions that may be called by name, sorted.
	Functions []sql.Name
}

// WallView is the view of one permit; the View of its rule is set. Where it is filtered
// each subject has a view of its own, whose rules are Shown.
type WallView struct {
	Rule     *postern.TableRule
	Filtered bool
	Reads    []string // what the filter reads, shown or not
}

// WallTable is what may be done with a table itself. The columns are sorted. Select has
// those by which a change may choose its rows and that it may return; none is masked.
type WallTable struct {
	sql.Name
	Select, Insert, Update []string
	Delete, Truncate       bool
}

// wall is a Wall as the judge uses it.
type wall struct {
	Wall
	views map[*permit][]postern.Obligation // just one: the table through its view, unfiltered
}

// wall is that of the task on the resource in question; nil at other levels.
func (j *judge) wall() *wall { return j.task.walls[j.query.Resource] }

// shows is the permit's table through its view; nil where it has none.
func (w *wall) shows(p *permit) []postern.Obligation {
	if w == nil {
		return nil
	}
	return w.views[p]
}

// narrowed is a rule with the filter of one subject. At level native the name of its view
// says which filter that is.
func narrowed(rule postern.TableRule, filter string) *postern.TableRule {
	rule.Filter = filter
	if rule.View != nil {
		sum := sha256.Sum256([]byte(filter))
		rule.View = &postern.View{Schema: rule.View.Schema, Name: rule.View.Name + filterMark + hex.EncodeToString(sum[:12])}
	}
	return &rule
}

// filterMark stands before the hash of a filter in the name of a view.
const filterMark = "@"

// Filtered reports whether a view of a wall, by its name, shows rows of some subjects alone.
func Filtered(view string) bool { return strings.Contains(view, filterMark) }

// WallPrefix begins the name of every role and schema that is made for a resource.
func WallPrefix(r postern.ResourceName) string { return "postern_" + shortHash([]byte(r)) + "_" }

func shortHash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:4])
}

// wallFormat is part of a schema's name, so that views that are made in another way are
// other views.
const wallFormat = "1"

func newWall(t *task, r postern.ResourceName) *wall {
	prefix := WallPrefix(r)
	w := &wall{
		Wall:  Wall{Task: t.name, Role: prefix + "t_" + string(t.name), Owner: prefix + "o_" + string(t.name)},
		views: map[*permit][]postern.Obligation{},
	}
	tables := map[sql.Name]*WallTable{}
	for _, name := range slices.SortedFunc(maps.Keys(t.tables), compareNames) {
		if systemSchema(name.Schema) {
			continue // open to every login; the gateway alone stands before it
		}
		for _, p := range t.tables[name].all() {
			w.view(p)
			w.table(t, tables, p)
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(tables), compareNames) {
		w.Tables = append(w.Tables, *tables[name])
	}
	for _, f := range slices.SortedFunc(maps.Keys(t.functions), compareNames) {
		if !systemSchema(f.Schema) {
			w.Functions = append(w.Functions, f)
		}
	}
	w.Schema = prefix + string(t.name) + "_" + w.revision()
	for _, v := range w.Views {
		v.Rule.View.Schema = w.Schema
	}
	return w
}

func compareNames(a, b sql.Name) int {
	return slices.Compare([]string{a.Schema, a.Name}, []string{b.Schema, b.Name})
}

// all are the permits of a table, each once, in the task's order.
func (tp *tablePermits) all() []*permit {
	var out []*permit
	for _, permits := range tp {
		for _, p := range permits {
			if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b *permit) int { return a.index - b.index })
	return out
}

// view gives a permit that lets its table be read a view of its own.
func (w *wall) view(p *permit) {
	if !slices.Contains(p.verbs, string(sql.Select)) {
		return
	}
	rule := *p.view[0].Table
	rule.View = &postern.View{Name: w.viewName(p.table)}
	v := WallView{Rule: &rule}
	if p.rows != nil {
		v.Filtered, v.Reads = true, p.rows.Columns()
	}
	w.Views = append(w.Views, v)
	w.views[p] = []postern.Obligation{{Table: &rule}}
}

// viewName is what the view of a table is called: what people read in the target's own
// errors is the name that they know.
func (w *wall) viewName(table sql.Name) string {
	const most = 63 - 25 // bytes of a name, for PostgreSQL, without the mark of a filter
	name := strings.ReplaceAll(table.String(), filterMark, "_")
	n := 1
	for _, v := range w.Views {
		if v.Rule.Schema == table.Schema && v.Rule.Table == table.Name {
			n++
		}
	}
	if n > 1 {
		name += fmt.Sprintf("#%d", n)
	}
	if len(name) > most {
		name = shortHash([]byte(table.String())) + "." + fmt.Sprint(n)
	}
	return name
}

// table adds what a permit lets be done with the table itself.
func (w *wall) table(t *task, tables map[sql.Name]*WallTable, p *permit) {
	if slices.Equal(p.verbs, []string{string(sql.Select)}) {
		return
	}
	wt := tables[p.table]
	if wt == nil {
		wt = &WallTable{Name: p.table}
		tables[p.table] = wt
	}
	add := func(to *[]string, columns []string) {
		*to = append(*to, columns...)
		slices.Sort(*to)
		*to = slices.Compact(*to)
	}
	written := slices.Collect(maps.Keys(p.writeColumns))
	for _, v := range p.verbs {
		switch sql.Verb(v) {
		case sql.Insert:
			add(&wt.Insert, written)
		case sql.Update:
			add(&wt.Update, written)
		case sql.Delete:
			wt.Delete = true
		case sql.Truncate:
			wt.Truncate = true
		}
	}
	if slices.ContainsFunc(t.tables[p.table].all(), func(p *permit) bool { return p.rows != nil }) {
		return // the table itself would show every row
	}
	var read []string
	for _, column := range p.order {
		if !t.masks(p.table, column) {
			read = append(read, column)
		}
	}
	add(&wt.Select, read)
}

// masks reports whether any permit masks a column.
func (t *task) masks(table sql.Name, column string) bool {
	return slices.ContainsFunc(t.tables[table].all(), func(p *permit) bool { return p.masks[column] != nil })
}

// revision names what the views are.
func (w *wall) revision() string {
	b, err := json.Marshal(w.Views)
	if err != nil {
		panic(err) // plain data
	}
	return shortHash(append([]byte(wallFormat), b...))
}

// unfit says what of a task level native cannot hold.
func (t *task) unfit(n postern.ResourceName) (out []fault.Violation) {
	fail := func(field, format string, args ...any) {
		out = append(out, fault.Violation{Field: field, Reason: fmt.Sprintf(format, args...) + fmt.Sprintf(", and resource %q is at level native", n)})
	}
	for _, p := range t.commands {
		fail(fmt.Sprintf("spec.permit[%d].commands", p.index), "need objects that the session's login owns")
	}
	for _, name := range slices.SortedFunc(maps.Keys(t.tables), compareNames) {
		for _, p := range t.tables[name].all() {
			for _, column := range p.order {
				if p.masks[column].Token() {
					fail(fmt.Sprintf("spec.permit[%d].mask.%s", p.index, column), "is of method token, whose key would have to lie at the target")
				}
			}
			field := fmt.Sprintf("spec.permit[%d].rows", p.index)
			switch {
			case p.rows == nil:
			case !slices.Equal(p.verbs, []string{string(sql.Select)}):
				fail(field, "filters what is read through a view, which a change does not go through")
			case t.login != nil:
				fail(field, "needs logins that the wall makes, for each sees other rows; leave spec.credential.vault out")
			}
		}
	}
	if t.terms.Pool {
		fail("spec.credential.reuse", "pool shares a login, where each session has its own")
	}
	return out
}

// Wall is what level native makes of a task on a resource; false where the resource is
// at another level, or the task does not reach it or allows everything.
func (s *Snapshot) Wall(t postern.TaskName, r postern.ResourceName) (Wall, bool) {
	task, ok := s.tasks[t]
	if !ok || task.walls[r] == nil {
		return Wall{}, false
	}
	return task.walls[r].Wall, true
}

// Shown are the rules of a wall's filtered views for one subject. An error means that it
// cannot be told which rows the subject may see of one of them.
func (s *Snapshot) Shown(t postern.TaskName, r postern.ResourceName, subject *postern.Subject) ([]*postern.TableRule, error) {
	task, ok := s.tasks[t]
	if !ok || task.walls[r] == nil {
		return nil, fmt.Errorf("task %q has no wall on resource %q", t, r)
	}
	var out []*postern.TableRule
	for p, view := range task.walls[r].views {
		if p.rows == nil {
			continue
		}
		filter, err := p.rows.SQL(subject)
		if err != nil {
			return nil, fmt.Errorf("rows of %s: %w", p.table, err)
		}
		out = append(out, narrowed(*view[0].Table, filter))
	}
	slices.SortFunc(out, func(a, b *postern.TableRule) int { return strings.Compare(a.View.Name, b.View.Name) })
	return out, nil
}

// Tokens are the masks of method token that a task uses, by name.
func (s *Snapshot) Tokens(t postern.TaskName) map[string]*postern.MaskRule {
	out := map[string]*postern.MaskRule{}
	task, ok := s.tasks[t]
	if !ok {
		return out
	}
	for name := range task.tables {
		for _, p := range task.tables[name].all() {
			for _, m := range p.masks {
				if m.Token() {
					out[m.Name] = m
				}
			}
		}
	}
	return out
}

// Walls are those of all tasks that reach a resource, by task.
func (s *Snapshot) Walls(r postern.ResourceName) []Wall {
	var out []Wall
	for _, name := range slices.Sorted(maps.Keys(s.tasks)) {
		if w := s.tasks[name].walls[r]; w != nil {
			out = append(out, w.Wall)
		}
	}
	return out
}

// Login is the credential that sessions of a task use on a resource; nil where the wall
// makes each a login of its own. It is false where the task does not reach the resource.
func (s *Snapshot) Login(t postern.TaskName, r postern.ResourceName) (*typesv1.CredentialRef, bool) {
	task, ok := s.tasks[t]
	if !ok || task.reach[r] == nil {
		return nil, false
	}
	switch {
	case task.login != nil:
		return task.login, true
	case task.walls[r] != nil:
		return nil, true
	}
	return task.reach[r].object.GetSpec().GetCredential(), true
}
