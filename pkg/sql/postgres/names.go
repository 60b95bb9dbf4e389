package postgres

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

const catalogSchema = "pg_catalog"

// searchPath is the search path as the server uses it: schemas that exist, the system's first
// unless it is named.
func searchPath(cat *sql.Catalog, set Settings) []string {
	var path []string
	for _, s := range set.SearchPath {
		if s == "$user" {
			s = set.User
		}
		if cat.Schemas[s] && !slices.Contains(path, s) {
			path = append(path, s)
		}
	}
	if !slices.Contains(path, catalogSchema) {
		path = slices.Insert(path, 0, catalogSchema)
	}
	return path
}

// isSystem reports whether a schema is the system's.
func isSystem(schema string) bool {
	return schema == catalogSchema || schema == "information_schema" || strings.HasPrefix(schema, "pg_toast")
}

// relation resolves the name of a relation, or gives up.
func (a *analyzer) relation(rv *pg.RangeVar) *sql.Relation {
	if rv.Catalogname != "" && rv.Catalogname != a.cat.Database {
		a.giveUp("%s is in another database", quoteAll(rv.Catalogname, rv.Schemaname, rv.Relname))
		return nil
	}
	if rv.Schemaname != "" {
		if r := a.cat.Relations[sql.Name{Schema: rv.Schemaname, Name: rv.Relname}]; r != nil {
			return r
		}
	} else {
		for _, s := range a.path {
			if r := a.cat.Relations[sql.Name{Schema: s, Name: rv.Relname}]; r != nil {
				return r
			}
		}
	}
	name := quoteAll(rv.Schemaname, rv.Relname)
	if strings.HasPrefix(rv.Schemaname, "pg_temp") || strings.HasPrefix(rv.Schemaname, "pg_toast") {
		a.giveUp("%s is in a schema that is the server's own business", name)
		return nil
	}
	a.missing(postern.UndefinedRelation, rv.Location, rv.Relname, "relation %s does not exist", sql.Quote(name))
	return nil
}

// arity is how many arguments a call may have. The server leaves out those that are parameters
// of type void, which the text does not show: the client declares it, or it follows from another
// place where the parameter stands.
type arity struct{ least, most int }

var one = arity{1, 1}

// parameters is how many arguments are parameters, with a cast or without.
func parameters(args []*pg.Node) int {
	n := 0
	for _, a := range args {
		for a.GetTypeCast() != nil {
			a = a.GetTypeCast().Arg
		}
		if a.GetParamRef() != nil {
			n++
		}
	}
	return n
}

// function notes every function that a call could mean, given how many arguments it has.
// settled is true where policy can judge what the one of the system's does by other facts.
func (a *analyzer) function(names []string, at int32, args arity, variadic, settled bool) {
	schemas, name, ok := a.candidates(names)
	if !ok {
		a.giveUp("function %s is in another database", quoteAll(names...))
		return
	}
	switch called := quoteAll(names...); {
	case a.called(schemas, name, args, variadic, settled):
	case a.otherCall(schemas, name):
		a.giveUp("function %s does not exist with %d arguments", called, args.most)
	default:
		a.missing(postern.UndefinedFunction, at, name, "function %s does not exist", called)
	}
}

// newer notes what name(...) means to a server that is older than the grammar that reads it as
// a form of its own: a call of whatever function users have given that name.
func (a *analyzer) newer(since int, name string) {
	if a.cat.Server >= since {
		return
	}
	for _, s := range a.path {
		if n := (sql.Name{Schema: s, Name: name}); s != catalogSchema && len(a.cat.Functions[n]) > 0 {
			a.note(n, false)
		}
	}
}

// otherCall reports whether name(...) may mean something all the same, in a way that is not
// understood: a function by other arguments, a cast, a column of a row.
func (a *analyzer) otherCall(schemas []string, name string) bool {
	for _, s := range schemas {
		n := sql.Name{Schema: s, Name: name}
		if _, typ := a.cat.Types[n]; typ || len(a.cat.Functions[n]) > 0 {
			return true
		}
	}
	return slices.ContainsFunc(a.uses, func(u *use) bool { return u.rel.Column(name) != nil })
}

// attribute notes what x.name means where x is known to have no column of that name, or
// not known to have one: the server then takes it for name(x).
func (a *analyzer) attribute(name string) { a.called(a.path, name, one, false, false) }

// called notes what a call with these arguments could mean, and reports whether there is
// any such function.
func (a *analyzer) called(schemas []string, name string, args arity, variadic, settled bool) (found bool) {
	if args.least <= 1 && args.most >= 1 {
		a.cast(schemas, name)
	}
	for _, s := range schemas {
		n := sql.Name{Schema: s, Name: name}
		match, pure := false, true
		for _, f := range a.cat.Functions[n] {
			if !takes(f, args, variadic) {
				continue
			}
			match = true
			a.casts(f.Casts)
			if !hole.Is("analyse-function-pure") && (s != catalogSchema || !settled && f.Volatility != 'i' && !harmless()[name] || f.SecurityDefiner) {
				pure = false
			}
		}
		if match {
			found = true
			a.note(n, pure)
		}
	}
	return found
}

// cast notes the type that f(x) may turn x into.
func (a *analyzer) cast(schemas []string, name string) {
	for _, s := range schemas {
		n := sql.Name{Schema: s, Name: name}
		if t, ok := a.cat.Types[n]; ok {
			if !t.System {
				a.typ([]string{s, name}, 0)
			}
			return
		}
	}
}

func takes(f sql.FunctionInfo, args arity, variadic bool) bool {
	if f.Variadic && args.most >= f.Args-1-f.Defaults {
		return true
	}
	return !variadic && args.least <= f.Args && args.most >= f.Args-f.Defaults
}

// note records that the statement calls a function.
func (a *analyzer) note(n sql.Name, pure bool) {
	if hole.Is("analyse-function-unnoted") {
		return
	}
	if _, is := sizes[n.Name]; is && n.Schema == catalogSchema {
		a.sizesNoted++
	}
	for i := range a.st.Functions {
		if f := &a.st.Functions[i]; f.Schema == n.Schema && f.Name == n.Name {
			f.Pure = f.Pure && pure
			return
		}
	}
	a.st.Functions = append(a.st.Functions, sql.Function{Schema: n.Schema, Name: n.Name, Pure: pure})
}

// operator notes the functions behind the operators that a name could mean, where any of
// them is not built in. Names such as BETWEEN, which the grammar makes up, are built in.
func (a *analyzer) operator(names []string, at int32) {
	schemas, name, ok := a.candidates(names)
	if !ok {
		a.giveUp("operator %s is in another database", strings.Join(names, "."))
		return
	}
	found := false
	for _, s := range schemas {
		for _, o := range a.cat.Operators[sql.Name{Schema: s, Name: name}] {
			found = true
			if !o.System && !hole.Is("analyse-operator") {
				a.note(o.Function, false)
				for _, f := range a.cat.Functions[o.Function] {
					a.casts(f.Casts)
				}
			}
		}
	}
	if !found {
		a.missing(postern.UndefinedFunction, at, name, "operator does not exist: %s", strings.Join(names, "."))
	}
}

// casts notes functions that the server may call to turn one type into another. Nothing in
// a text says that it does: whoever names a value of such a type may have it turned.
func (a *analyzer) casts(functions []sql.Name) {
	if hole.Is("analyse-cast") {
		return
	}
	for _, f := range functions {
		a.note(f, false)
	}
}

// columnCasts is casts for the columns that a relation is used with.
func (a *analyzer) columnCasts(u *use) {
	if len(a.cat.Casts) == 0 {
		return
	}
	_, all := u.read["*"]
	if all {
		a.casts(a.cat.Casts[u.rel.Name]) // of its rows
	}
	for i := range u.rel.Columns {
		c := &u.rel.Columns[i]
		if _, read := u.read[c.Name]; all || read || u.write[c.Name] {
			a.casts(a.cat.Casts[c.Type])
		}
	}
}

// pseudoTypes are names that only column definitions may use.
var pseudoTypes = []string{"serial", "serial2", "serial4", "serial8", "bigserial", "smallserial"}

// typ resolves the name of a type that a value is turned into. A type of the system's
// or an enumeration runs no code but the system's; a base type of somebody else's is
// named as a function; what runs checks of its own is not understood.
func (a *analyzer) typ(names []string, at int32) {
	schemas, name, ok := a.candidates(names)
	if !ok {
		a.giveUp("type %s is in another database", quoteAll(names...))
		return
	}
	for _, s := range schemas {
		n := sql.Name{Schema: s, Name: name}
		t, ok := a.cat.Types[n]
		a.casts(a.cat.Casts[n])
		switch {
		case !ok:
			continue
		case t.System && t.Kind != 'd':
		case s == "information_schema" && t.Kind == 'd':
			// The standard's own domains; they check lengths and words.
		case t.Kind == 'e', hole.Is("analyse-domain"):
		case t.Kind == 'b':
			a.note(n, false)
		case t.Kind == 'd':
			a.giveUp("type %s is a domain, whose checks run code", n)
		default:
			a.giveUp("type %s is neither built in nor an enumeration", n)
		}
		return
	}
	if a.defining && len(names) == 1 && slices.Contains(pseudoTypes, name) {
		return
	}
	called := quoteAll(names...)
	for _, s := range schemas {
		if a.cat.Relations[sql.Name{Schema: s, Name: name}] != nil {
			a.giveUp("type %s is the row of a relation", called)
			return
		}
	}
	a.missing(postern.UndefinedType, at, name, "type %s does not exist", sql.Quote(called))
}

// candidates splits a name into the schemas that it may be in and the name itself.
func (a *analyzer) candidates(names []string) (schemas []string, name string, ok bool) {
	switch len(names) {
	case 1:
		return a.path, names[0], true
	case 2:
		return names[:1], names[1], true
	case 3:
		return names[1:2], names[2], names[0] == a.cat.Database
	}
	return nil, "", false
}

// quoteAll is a name for people.
func quoteAll(parts ...string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(parts), func(s string) bool { return s == "" }), ".")
}
