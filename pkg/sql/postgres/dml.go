package postgres

import (
	"maps"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/sql"
)

// returning is a RETURNING list of a statement that changes a relation.
type returning struct {
	list *[]*pg.Node
	// target is the relation that is changed, and items are what names can see, as * does.
	target *reference
	items  []*item
}

// changed is what is needed to hold a change to a filter of rows.
type changed struct {
	target *item
	where  **pg.Node // nil where the statement has no place for a condition
	items  []*item   // what the condition is over
}

// target resolves the relation that a statement changes.
func (a *analyzer) target(rv *pg.RangeVar, verb sql.Verb) *item {
	if rv == nil {
		a.giveUp("a change without a relation is not understood")
		return nil
	}
	a.saw(1)
	rel := a.relation(rv)
	if rel == nil {
		return nil
	}
	if rel.HasRules {
		a.giveUp("rules of %s decide what changing it does", rel.Name)
	}
	u := a.use(rel)
	if !hole.Is("analyse-target-verb") {
		u.verbs[verb] = true
	}
	u.target = true
	it := &item{name: rv.Relname, whole: true, bare: true}
	a.base(it, rel, u, rv, true)
	return it
}

func (a *analyzer) insert(n *pg.InsertStmt, s *scope) result {
	a.saw(1)
	a.with(n.WithClause, s)
	t := a.target(n.Relation, sql.Insert)
	if t == nil {
		return result{}
	}
	u := t.ref.use
	given := -1 // how many columns are given, -1 where that is not known
	switch q := n.SelectStmt.GetSelectStmt(); {
	case q != nil:
		r := a.query(q, &scope{parent: s})
		a.markAll(r, sql.RoleComputed)
		a.byPosition(r.columns)
		if r.open == nil && !slices.ContainsFunc(r.columns, func(c column) bool { return c.star != nil }) {
			given = len(r.columns)
		}
	case n.SelectStmt != nil:
		a.giveUp("%s in INSERT is not understood", describe(n.SelectStmt))
	default:
		given = 0 // DEFAULT VALUES
	}
	own := &scope{parent: s, items: []*item{t}}
	if len(n.Cols) == 0 {
		for i := range u.rel.Columns {
			if given < 0 || i < given {
				u.write[u.rel.Columns[i].Name] = true
			}
		}
	}
	for _, c := range n.Cols {
		a.written(c, u, nil)
	}
	a.conflict(n.OnConflictClause, t, own)
	return a.returns(&n.ReturningList, own, t)
}

// written visits one column that is written, and its new value in scope s.
func (a *analyzer) written(n *pg.Node, u *use, s *scope) {
	r := n.GetResTarget()
	if r == nil {
		a.giveUp("%s as a column to write is not understood", describe(n))
		return
	}
	a.saw(1)
	if u.rel.Column(r.Name) == nil {
		a.noColumn(r.Location, r.Name, ofRelation(r.Name, u.rel))
		return
	}
	u.write[r.Name] = true
	for _, x := range r.Indirection {
		switch v := x.GetNode().(type) {
		case *pg.Node_String_:
			a.saw(1)
		case *pg.Node_AIndices:
			a.saw(1)
			a.computed(s, sql.RolePredicate, v.AIndices.Lidx, v.AIndices.Uidx)
		default:
			a.giveUp("%s is not understood", describe(x))
		}
	}
	if r.Val != nil {
		a.expr(r.Val, s, sql.RoleComputed)
	}
}

// ofRelation is how the server calls a column of one relation that it was looked for in.
func ofRelation(column string, rel *sql.Relation) string {
	return sql.Quote(column) + " of relation " + sql.Quote(rel.Name.Name)
}

func (a *analyzer) conflict(c *pg.OnConflictClause, t *item, own *scope) {
	if c == nil {
		return
	}
	a.saw(1)
	if f := c.Infer; f != nil {
		a.saw(1)
		for _, n := range f.IndexElems {
			e := n.GetIndexElem()
			if e == nil {
				a.giveUp("%s in ON CONFLICT is not understood", describe(n))
				return
			}
			a.indexElem(e, own)
		}
		if f.WhereClause != nil {
			a.expr(f.WhereClause, own, sql.RolePredicate)
		}
	}
	if c.Action != pg.OnConflictAction_ONCONFLICT_UPDATE {
		return
	}
	t.ref.use.verbs[sql.Update] = true
	// The row that was to be inserted; its values were visited as they were given.
	excluded := &item{name: "excluded", whole: true}
	for _, col := range t.ref.use.rel.Columns {
		excluded.columns = append(excluded.columns, column{name: col.Name, lin: lineage{computed: true}})
	}
	s := &scope{parent: own.parent, items: []*item{t, excluded}}
	for _, n := range c.TargetList {
		a.written(n, t.ref.use, s)
	}
	if c.WhereClause != nil {
		a.expr(c.WhereClause, s, sql.RolePredicate)
	}
	a.changes = append(a.changes, changed{t, &c.WhereClause, s.items})
}

// indexElem visits one column or expression of an index.
func (a *analyzer) indexElem(e *pg.IndexElem, s *scope) {
	a.saw(1)
	if e.Name != "" {
		if lin, ok := a.bareColumn(s, e.Name); ok {
			a.mark(lin, sql.RolePredicate)
		} else {
			a.noColumn(0, e.Name, sql.Quote(e.Name))
		}
	}
	if e.Expr != nil {
		a.expr(e.Expr, s, sql.RolePredicate)
	}
	if len(e.Collation) > 0 {
		a.strings(e.Collation)
	}
	if len(e.Opclass) > 0 {
		a.strings(e.Opclass)
	}
}

func (a *analyzer) update(n *pg.UpdateStmt, s *scope) result {
	a.saw(1)
	a.with(n.WithClause, s)
	t := a.target(n.Relation, sql.Update)
	if t == nil {
		return result{}
	}
	own := a.beside(t, n.FromClause, s)
	if a.problem != "" {
		return result{}
	}
	for _, c := range n.TargetList {
		a.written(c, t.ref.use, own)
	}
	a.where(&n.WhereClause, t, own)
	return a.returns(&n.ReturningList, own, t)
}

func (a *analyzer) delete(n *pg.DeleteStmt, s *scope) result {
	a.saw(1)
	a.with(n.WithClause, s)
	t := a.target(n.Relation, sql.Delete)
	if t == nil {
		return result{}
	}
	own := a.beside(t, n.UsingClause, s)
	if a.problem != "" {
		return result{}
	}
	a.where(&n.WhereClause, t, own)
	return a.returns(&n.ReturningList, own, t)
}

// beside is the scope of a change: its target and what else it reads from. The entries
// of FROM cannot see the target.
func (a *analyzer) beside(t *item, from []*pg.Node, s *scope) *scope {
	others := &scope{parent: s}
	for _, f := range from {
		a.from(f, others)
	}
	return &scope{parent: s, items: append([]*item{t}, others.items...)}
}

// where visits the condition of a change. One that says nothing of the target's columns
// is as good as none.
func (a *analyzer) where(w **pg.Node, t *item, s *scope) {
	a.changes = append(a.changes, changed{t, w, s.items})
	if *w == nil {
		t.ref.use.noWhere = true
		return
	}
	if !a.chooses(t.ref.use, *w, s) && !hole.Is("analyse-no-where") {
		t.ref.use.noWhere = true
	}
}

// chooses visits a condition and reports whether it says anything of stored columns of u.
func (a *analyzer) chooses(u *use, condition *pg.Node, s *scope) bool {
	before := u.targetReads
	u.targetReads = map[string]bool{}
	a.expr(condition, s, sql.RolePredicate)
	says := len(u.targetReads) > 0
	maps.Copy(u.targetReads, before)
	return says
}

// returns visits RETURNING.
func (a *analyzer) returns(list *[]*pg.Node, s *scope, t *item) result {
	if len(*list) == 0 {
		return result{}
	}
	s = a.rows(s, t)
	a.returnings = append(a.returnings, returning{list, t.ref, s.items})
	return a.targets(*list, s)
}

// versionMergeReturns is the first server whose MERGE has RETURNING, and merge_action() in it.
const versionMergeReturns = 170000

// versionOldNew is the first server whose RETURNING knows the row before the change and
// the row after it.
const versionOldNew = 180000

// rows are the items of RETURNING: those of a change, and where the server knows them old
// and new, if no other item has that name.
func (a *analyzer) rows(s *scope, t *item) *scope {
	if a.cat.Server < versionOldNew {
		return s
	}
	items := slices.Clip(s.items)
	for _, name := range []string{"old", "new"} {
		if !slices.ContainsFunc(s.items, func(it *item) bool { return it.name == name }) {
			row := *t
			row.name, row.schema, row.bare = name, "", false
			items = append(items, &row)
		}
	}
	return &scope{parent: s.parent, items: items}
}

func (a *analyzer) merge(n *pg.MergeStmt, s *scope) result {
	a.saw(1)
	a.with(n.WithClause, s)
	a.saw(1)
	rel := a.relation(n.Relation)
	if rel == nil {
		return result{}
	}
	u := a.use(rel)
	u.target = true
	t := &item{name: n.Relation.Relname, whole: true, bare: true}
	a.base(t, rel, u, n.Relation, true)
	own := a.beside(t, []*pg.Node{n.SourceRelation}, s)
	if a.problem != "" {
		return result{}
	}
	joined := a.chooses(u, n.JoinCondition, own)
	a.changes = append(a.changes, changed{t, nil, nil})
	for _, w := range n.MergeWhenClauses {
		c := w.GetMergeWhenClause()
		if c == nil {
			a.giveUp("%s in MERGE is not understood", describe(w))
			return result{}
		}
		a.saw(1)
		// Who has no match in the source is chosen by the clause's own condition alone.
		chosen := joined && c.MatchKind == pg.MergeMatchKind_MERGE_WHEN_MATCHED
		if c.Condition != nil {
			chosen = a.chooses(u, c.Condition, own) || chosen
		}
		if !chosen && (c.CommandType == pg.CmdType_CMD_UPDATE || c.CommandType == pg.CmdType_CMD_DELETE) {
			u.noWhere = true
		}
		switch c.CommandType {
		case pg.CmdType_CMD_INSERT:
			u.verbs[sql.Insert] = true
			if len(c.TargetList) == 0 {
				for i := range u.rel.Columns {
					if i < len(c.Values) {
						u.write[u.rel.Columns[i].Name] = true
					}
				}
			}
		case pg.CmdType_CMD_UPDATE:
			u.verbs[sql.Update] = true
		case pg.CmdType_CMD_DELETE:
			u.verbs[sql.Delete] = true
		case pg.CmdType_CMD_NOTHING:
		default:
			a.giveUp("this kind of MERGE is not understood")
		}
		seen := own
		if c.CommandType == pg.CmdType_CMD_INSERT {
			seen = &scope{parent: s, items: own.items[1:]} // there is no row of the target
		}
		for _, x := range c.TargetList {
			a.written(x, u, seen)
		}
		a.computed(seen, sql.RoleComputed, c.Values...)
	}
	// Unlike with other changes, * is first of all what is merged.
	return a.returns(&n.ReturningList, &scope{parent: s, items: append(own.items[1:], t)}, t)
}

func (a *analyzer) truncate(n *pg.TruncateStmt) {
	a.saw(1)
	if n.Behavior == pg.DropBehavior_DROP_CASCADE {
		a.giveUp("TRUNCATE CASCADE empties tables that it does not name")
	}
	for _, r := range n.Relations {
		if r.GetRangeVar() == nil {
			a.giveUp("%s in TRUNCATE is not understood", describe(r))
			return
		}
		a.target(r.GetRangeVar(), sql.Truncate)
	}
}

// copyOptions are the options of COPY that change no more than how rows are written, or which of
// those that come are taken.
var copyOptions = []string{
	"format", "delimiter", "null", "header", "quote", "escape", "force_quote", "force_not_null", "force_null", "encoding", "default", "on_error", "reject_limit",
}

func (a *analyzer) copy(n *pg.CopyStmt) result {
	a.saw(1)
	for _, o := range n.Options {
		d := o.GetDefElem()
		if d == nil || !slices.Contains(copyOptions, d.Defname) {
			a.giveUp("option %s of COPY is not understood", d.GetDefname())
			return result{}
		}
		a.saw(1)
		a.option(d)
	}
	if n.Query != nil {
		return a.dml(n.Query, &scope{})
	}
	names := []string(nil)
	if len(n.Attlist) > 0 {
		names = a.strings(n.Attlist)
	}
	if n.IsFrom {
		t := a.target(n.Relation, sql.Insert)
		if t == nil {
			return result{}
		}
		u := t.ref.use
		for _, c := range u.rel.Columns {
			if len(names) == 0 && !c.Generated {
				u.write[c.Name] = true
			}
		}
		incoming := &item{name: t.name, whole: true, bare: true}
		for _, c := range u.rel.Columns {
			incoming.columns = append(incoming.columns, column{name: c.Name, lin: lineage{computed: true}})
		}
		for _, name := range names {
			if u.rel.Column(name) == nil {
				a.noColumn(0, name, ofRelation(name, u.rel))
			}
			u.write[name] = true
		}
		if n.WhereClause != nil {
			a.expr(n.WhereClause, &scope{items: []*item{incoming}}, sql.RolePredicate)
		}
		return result{}
	}
	s := &scope{}
	a.table(n.Relation, nil, s)
	if len(s.items) == 0 {
		return result{}
	}
	it := s.items[0]
	it.ref.copied = n
	var r result
	if len(names) == 0 {
		a.expand(it, &r)
	}
	for _, name := range names {
		lin, k := it.find(name)
		if k != 1 {
			a.noColumn(0, name, ofRelation(name, it.ref.use.rel))
			return result{}
		}
		r.columns = append(r.columns, column{name: name, lin: lin.named()})
	}
	a.markAll(r, sql.RoleOutput)
	return r
}

// option visits the value of an option, which is made of constants and names.
func (a *analyzer) option(d *pg.DefElem) {
	switch v := d.Arg.GetNode().(type) {
	case nil:
	case *pg.Node_TypeName:
		// A bare word, as in FORMAT text or START WITH -1.
		a.saw(1)
		a.strings(v.TypeName.Names)
	case *pg.Node_List:
		a.saw(1)
		for _, n := range v.List.Items {
			a.expr(n, nil, 0)
		}
	case *pg.Node_AStar:
		a.saw(1)
	default:
		a.expr(d.Arg, nil, 0)
	}
}
