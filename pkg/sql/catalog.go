package sql

import (
	"cmp"
	"slices"
)

// A Catalog is the names and types of one resource, without a row. It is immutable
// once built: a refresh makes a new one. Version is part of every cache key.
type Catalog struct {
	Version   string // hash of the content
	Database  string
	Server    int // server_version_num
	Relations map[Name]*Relation
	Functions map[Name][]FunctionInfo // every overload
	Types     map[Name]TypeInfo
	Operators map[Name][]OperatorInfo
	// Casts are the functions behind casts that users have defined, from or to a type of
	// theirs, a domain over it or an array of it.
	Casts   map[Name][]Name
	Schemas map[string]bool
}

// Name is a qualified name.
type Name struct{ Schema, Name string }

func (n Name) String() string { return n.Schema + "." + n.Name }

// Relation is a table or what can be used like one.
type Relation struct {
	Name
	OID     uint32
	Kind    RelationKind
	Columns []Column // in attribute order, without dropped ones
	Key     []string // the columns of the primary key, unless it is deferrable
	// Children are inheritance children and partitions; a read of the parent reads them.
	Children []Name
	// Definition is the text of a view; empty where it could not be read.
	Definition string
	// Depends are the columns that a view names anywhere; roles are not known.
	Depends []Origin
	// Beneath is what a view reads; nil for what is none.
	Beneath *Beneath
	// HasTriggers and HasRules are true where a change runs code of its own; HasTriggers, too,
	// where it runs a child's.
	HasTriggers, HasRules bool
}

// Beneath is what a view reads in its turn, down to the tables, with the views between.
type Beneath struct {
	// Columns says where each of the view's columns comes from.
	Columns map[string][]Origin
	// Always is what is read whatever is asked of the view: conditions, joins, order; and
	// its relations, with no column.
	Always []Origin
}

// Origin is a column of a relation, or with no column the relation, and how it is read.
type Origin struct {
	Relation Name
	Column   string
	Role     ColumnRole
}

// Compare orders origins by name.
func (o Origin) Compare(p Origin) int {
	return cmp.Or(cmp.Compare(o.Relation.Schema, p.Relation.Schema), cmp.Compare(o.Relation.Name, p.Relation.Name), cmp.Compare(o.Column, p.Column))
}

// Column returns the column with that name, or nil.
func (r *Relation) Column(name string) *Column {
	if i := slices.IndexFunc(r.Columns, func(c Column) bool { return c.Name == name }); i >= 0 {
		return &r.Columns[i]
	}
	return nil
}

// Column is one column of a relation.
type Column struct {
	Name      string
	Attnum    int16
	Type      Name   // base name, such as pg_catalog.text
	TypeText  string // as format_type prints it, such as "numeric(12,2)"; usable in a cast
	TypeOID   uint32
	Generated bool
}

// FunctionInfo is one overload of a function.
type FunctionInfo struct {
	Args            int  // number of arguments
	Variadic        bool // the last one repeats
	Defaults        int  // how many may be left out
	Volatility      byte // i, s or v
	SecurityDefiner bool
	Casts           []Name // as of Catalog, of the types that it takes or returns
}

// TypeInfo is one type. System is true for what is built in, and for base types of an
// extension, whose functions are compiled code that a superuser let in.
type TypeInfo struct {
	OID     uint32
	Kind    byte   // b base, c composite, d domain, e enum, p pseudo, r range, m multirange
	Element uint32 // the type of what an array is of; 0 for others
	System  bool
}

// OperatorInfo is one operator and the function behind it. System is true for what is
// built in, and for operators of an extension whose function is IMMUTABLE compiled code:
// only what users have defined must be permitted by name.
type OperatorInfo struct {
	Function Name
	System   bool
}
