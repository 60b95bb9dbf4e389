package postgres

import (
	"context"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/pkg/sql"
)

// maxViewDepth bounds views over views.
const maxViewDepth = 64

// ResolveViews finds out what lies beneath each view of a catalogue that is being built:
// which columns of which relations its columns come from, and which it reads whatever is
// asked of it. Where the text of a view is not known, or not understood, all that it
// depends on counts as read: nothing that is used is left out.
func ResolveViews(ctx context.Context, p Parser, cat *sql.Catalog) {
	v := &views{named: map[sql.Name]*sql.Beneath{}, wholes: map[sql.Name]*sql.Beneath{}}
	for _, rel := range cat.Relations {
		if isView(rel) {
			v.named[rel.Name] = direct(ctx, p, cat, rel)
		}
	}
	for _, rel := range cat.Relations {
		if isView(rel) {
			rel.Beneath = v.whole(rel.Name)
			rel.Definition, rel.Depends = "", nil // they have said what they had to say
		}
	}
}

func isView(rel *sql.Relation) bool {
	return (rel.Kind == sql.KindView || rel.Kind == sql.KindMaterializedView) && !isSystem(rel.Schema)
}

// direct is what a view names itself.
func direct(ctx context.Context, p Parser, cat *sql.Catalog, rel *sql.Relation) *sql.Beneath {
	if b := understood(ctx, p, cat, rel); b != nil {
		return b
	}
	b := &sql.Beneath{}
	for _, o := range rel.Depends {
		b.Always = append(b.Always, sql.Origin{Relation: o.Relation, Column: o.Column, Role: sql.RoleComputed | sql.RolePredicate})
	}
	return b
}

// understood reads the view's own text; nil where that cannot be done with certainty.
func understood(ctx context.Context, p Parser, cat *sql.Catalog, rel *sql.Relation) *sql.Beneath {
	if rel.Definition == "" {
		return nil
	}
	tree, err := p.Parse(ctx, rel.Definition)
	if err != nil {
		return nil
	}
	parsed := &pg.ParseResult{}
	if proto.Unmarshal(tree, parsed) != nil || len(parsed.Stmts) != 1 {
		return nil
	}
	q := parsed.Stmts[0].GetStmt().GetSelectStmt()
	if q == nil {
		return nil
	}
	a := newAnalyzer(cat, Settings{})
	a.statements = make([]sql.Statement, 1)
	a.st = &a.statements[0]
	r := a.query(q, &scope{})
	if a.problem != "" || r.open != nil || len(r.columns) != len(rel.Columns) {
		return nil
	}
	b := &sql.Beneath{Columns: make(map[string][]sql.Origin, len(r.columns))}
	for i, c := range r.columns {
		role := sql.RoleOutput
		if c.lin.computed {
			role = sql.RoleComputed
		}
		name := rel.Columns[i].Name
		for _, o := range c.lin.from {
			b.Columns[name] = append(b.Columns[name], o.spread(role)...)
		}
	}
	for _, u := range a.uses {
		b.Always = append(b.Always, sql.Origin{Relation: u.rel.Name})
		for column, role := range u.read {
			if role&sql.RolePredicate != 0 {
				b.Always = append(b.Always, origin{use: u, column: column}.spread(sql.RolePredicate)...)
			}
		}
	}
	return b
}

// spread is an origin by name; of a whole row, that is each of its columns.
func (o origin) spread(role sql.ColumnRole) []sql.Origin {
	if o.column != "*" {
		return []sql.Origin{{Relation: o.use.rel.Name, Column: o.column, Role: role}}
	}
	var all []sql.Origin
	for _, c := range o.use.rel.Columns {
		all = append(all, sql.Origin{Relation: o.use.rel.Name, Column: c.Name, Role: role})
	}
	return all
}

// views follows views over views.
type views struct {
	named  map[sql.Name]*sql.Beneath // what each names itself
	wholes map[sql.Name]*sql.Beneath // what lies beneath, once it is known
	depth  int
}

// whole is what lies beneath a view, down to the tables; the views between are there too.
func (v *views) whole(name sql.Name) *sql.Beneath {
	if b := v.wholes[name]; b != nil {
		return b
	}
	d := v.named[name]
	if d == nil || v.depth > maxViewDepth {
		return &sql.Beneath{}
	}
	v.depth++
	defer func() { v.depth-- }()
	b := &sql.Beneath{Columns: make(map[string][]sql.Origin, len(d.Columns)), Always: slices.Clone(d.Always)}
	for column, from := range d.Columns {
		b.Columns[column] = v.below(from)
	}
	b.Always = v.below(b.Always)
	for _, o := range d.Always { // each view that it names reads what it always reads
		if o.Column == "" && v.named[o.Relation] != nil {
			b.Always = append(b.Always, v.whole(o.Relation).Always...)
		}
	}
	b.Always = unique(b.Always)
	v.wholes[name] = b
	return b
}

// below adds to origins what lies beneath those that are columns of views.
func (v *views) below(from []sql.Origin) []sql.Origin {
	out := slices.Clone(from)
	for _, o := range from {
		if o.Column == "" || v.named[o.Relation] == nil {
			continue
		}
		under := v.whole(o.Relation)
		for _, u := range under.Columns[o.Column] {
			u.Role = u.Role.Through(o.Role)
			out = append(out, u)
		}
	}
	return unique(out)
}

// unique merges the roles of equal origins, in order.
func unique(all []sql.Origin) []sql.Origin {
	type key struct {
		relation sql.Name
		column   string
	}
	at := make(map[key]int, len(all))
	var out []sql.Origin
	for _, o := range all {
		k := key{o.Relation, o.Column}
		if i, ok := at[k]; ok {
			out[i].Role |= o.Role
			continue
		}
		at[k] = len(out)
		out = append(out, o)
	}
	slices.SortStableFunc(out, func(a, b sql.Origin) int { return a.Compare(b) })
	return out
}
