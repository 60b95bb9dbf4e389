// Package sqltest has catalogues for tests: what PostgreSQL 15 has built in, the sample
// company's warehouse, and a builder for more. Nothing but tests imports it.
package sqltest

import (
	_ "embed"
	"maps"
	"strconv"
	"strings"
	"sync"

	"github.com/posterngate/postern/pkg/sql"
)

// builtin has a line for each function, type, operator and relation of a new database.
//
//go:embed builtin.txt
var builtin string

var parsed = sync.OnceValue(func() *sql.Catalog {
	c := empty()
	for line := range strings.Lines(builtin) {
		f := strings.Fields(line)
		switch f[0] {
		case "function":
			n := sql.Name{Schema: "pg_catalog", Name: f[1]}
			c.Functions[n] = append(c.Functions[n], sql.FunctionInfo{
				Args: number(f[2]), Variadic: f[3] == "v", Defaults: number(f[4]), Volatility: f[5][0],
			})
		case "type":
			c.Types[sql.Name{Schema: "pg_catalog", Name: f[1]}] = sql.TypeInfo{OID: uint32(number(f[2])), Kind: f[3][0], System: true}
		case "operator":
			n := sql.Name{Schema: "pg_catalog", Name: f[1]}
			c.Operators[n] = append(c.Operators[n], sql.OperatorInfo{Function: sql.Name{Schema: "pg_catalog", Name: f[2]}, System: true})
		case "relation":
			kind := sql.KindTable
			if f[3] == "v" {
				kind = sql.KindView
			}
			columns := make([]string, 0, len(f)-4)
			for _, col := range f[4:] {
				columns = append(columns, strings.NewReplacer(":", " ", "~", " ").Replace(col))
			}
			add(c, f[1]+"."+f[2], kind, columns)
		}
	}
	for _, domain := range []string{"cardinal_number", "character_data", "sql_identifier", "time_stamp", "yes_or_no"} {
		c.Types[sql.Name{Schema: "information_schema", Name: domain}] = sql.TypeInfo{Kind: 'd', System: true}
	}
	return c
})

func empty() *sql.Catalog {
	return &sql.Catalog{
		Version: "test", Database: "warehouse", Server: 150020,
		Relations: map[sql.Name]*sql.Relation{},
		Functions: map[sql.Name][]sql.FunctionInfo{},
		Types:     map[sql.Name]sql.TypeInfo{},
		Operators: map[sql.Name][]sql.OperatorInfo{},
		Casts:     map[sql.Name][]sql.Name{},
		Schemas:   map[string]bool{"pg_catalog": true, "information_schema": true, "public": true},
	}
}

// A Builder makes a catalogue. It is for one goroutine.
type Builder struct{ c *sql.Catalog }

// New begins with what is built in.
func New() *Builder {
	b := parsed()
	c := *b
	c.Relations, c.Functions = maps.Clone(b.Relations), maps.Clone(b.Functions)
	c.Types, c.Operators, c.Schemas, c.Casts = maps.Clone(b.Types), maps.Clone(b.Operators), maps.Clone(b.Schemas), maps.Clone(b.Casts)
	return &Builder{&c}
}

// Table adds a table; each column is "name type", such as "amount numeric(12,2)".
func (b *Builder) Table(name string, columns ...string) *Builder {
	return b.Relation(name, sql.KindTable, columns...)
}

// Relation adds a relation of any kind.
func (b *Builder) Relation(name string, kind sql.RelationKind, columns ...string) *Builder {
	add(b.c, name, kind, columns)
	return b
}

// Key makes columns the primary key of a relation that was added.
func (b *Builder) Key(name string, columns ...string) *Builder {
	b.c.Relations[split(name)].Key = columns
	return b
}

// Function adds a function with that many arguments and that volatility.
func (b *Builder) Function(name string, args int, volatility byte) *Builder {
	n := split(name)
	b.c.Schemas[n.Schema] = true
	b.c.Functions[n] = append(b.c.Functions[n], sql.FunctionInfo{Args: args, Volatility: volatility})
	return b
}

// Type adds a type of a kind of pg_type.typtype.
func (b *Builder) Type(name string, kind byte) *Builder {
	n := split(name)
	b.c.Schemas[n.Schema] = true
	b.c.Types[n] = sql.TypeInfo{Kind: kind}
	return b
}

// Operator adds an operator that function is behind.
func (b *Builder) Operator(name, function string) *Builder {
	n := split(name)
	b.c.Schemas[n.Schema] = true
	b.c.Operators[n] = append(b.c.Operators[n], sql.OperatorInfo{Function: split(function)})
	return b
}

// Cast adds a cast from or to a type of users that function is behind.
func (b *Builder) Cast(typ, function string) *Builder {
	b.c.Casts[split(typ)] = append(b.c.Casts[split(typ)], split(function))
	return b
}

// Returns makes the functions of that name return or take a type of users.
func (b *Builder) Returns(function, typ string) *Builder {
	for i := range b.c.Functions[split(function)] {
		b.c.Functions[split(function)][i].Casts = b.c.Casts[split(typ)]
	}
	return b
}

// Catalog is the result.
func (b *Builder) Catalog() *sql.Catalog { return b.c }

// Company is the catalogue of the sample company's warehouse.
func Company() *sql.Catalog { return company().Catalog() }

func company() *Builder {
	return New().
		Table("sales.customers", "id int", "name text", "email text", "phone text", "card text", "country text", "created_at timestamptz").
		Table("sales.orders", "id int", "customer_id int", "customer_email text", "amount numeric(12,2)", "status text", "note text", "created_at timestamptz").
		Table("sales.regions", "code text", "name text").
		Table("hr.salaries", "emp text", "salary int").
		Table("audit.log", "id bigserial", "at timestamptz", "actor text", "action text", "detail jsonb")
}

// Traps is Company with what evasions use: views, functions, a domain, an operator, casts.
func Traps() *sql.Catalog {
	return company().
		Relation("sales.orders_v", sql.KindView, "id int", "amount numeric(12,2)", "contact text").
		Relation("sales.orders_pub", sql.KindView, "id int", "amount numeric(12,2)", "status text").
		Table("sales.orders_archive", "id int", "customer_id int", "customer_email text", "amount numeric(12,2)", "status text", "note text", "created_at timestamptz").
		Relation("sales.contacts", sql.KindMaterializedView, "id int", "email text").
		Relation("remote.customers", sql.KindForeignTable, "id int", "name text", "email text").
		Function("sales.customer_email", 1, 's').
		Function("sales.lower", 1, 'v').
		Function("app.purge_orders", 0, 'v').
		Function("app.noisy", 1, 'v').
		Function("app.run", 1, 'v').
		Function("app.pure", 1, 'i').
		Function("public.dblink", 2, 'v').
		Function("public.crosstab", 1, 'v').
		Type("app.code", 'd').
		Type("sales.mood", 'e').
		Type("public.hstore", 'b').
		Operator("app.===", "app.noisy").
		Operator("sales.+", "app.run").
		Type("app.grade", 'e').
		Function("app.points", 1, 'v').
		Function("app.best", 0, 'i').
		Cast("app.grade", "app.points").
		Cast("app.pupils", "app.points").
		Returns("app.best", "app.grade").
		Table("app.pupils", "id int", "grade app.grade").
		Catalog()
}

func add(c *sql.Catalog, name string, kind sql.RelationKind, columns []string) {
	n := split(name)
	c.Schemas[n.Schema] = true
	r := &sql.Relation{Name: n, Kind: kind, OID: uint32(len(c.Relations)) + 20_000}
	for i, col := range columns {
		column, typ, _ := strings.Cut(col, " ")
		if long, ok := longNames[typ]; ok {
			typ = long
		}
		base, mods, _ := strings.Cut(typ, "(")
		_, rest, _ := strings.Cut(mods, ")")
		base = strings.TrimSpace(base) + rest
		if short, ok := shortNames[base]; ok {
			base = short
		}
		info := sql.Column{Name: column, Attnum: int16(i + 1), Type: sql.Name{Schema: "pg_catalog", Name: base}, TypeText: typ}
		if strings.Contains(base, ".") {
			info.Type = split(base)
		}
		info.TypeOID = c.Types[info.Type].OID
		r.Columns = append(r.Columns, info)
	}
	c.Relations[n] = r
}

// longNames maps what people write to what format_type prints, shortNames that to the
// name in pg_type.
var longNames = map[string]string{
	"int": "integer", "int4": "integer", "int8": "bigint", "bigserial": "bigint",
	"timestamptz": "timestamp with time zone", "bool": "boolean",
}

var shortNames = map[string]string{
	"integer": "int4", "bigint": "int8", "smallint": "int2", "boolean": "bool", "real": "float4",
	"double precision": "float8", "timestamp with time zone": "timestamptz",
	"timestamp without time zone": "timestamp", "character varying": "varchar", "character": "bpchar",
	`"char"`: "char",
}

func split(name string) sql.Name {
	i := max(strings.IndexByte(name, '.'), 0)
	return sql.Name{Schema: name[:i], Name: strings.TrimPrefix(name[i:], ".")}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err) // a broken list, seen by every test
	}
	return n
}
