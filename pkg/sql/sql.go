// Package sql holds what is known about SQL text once it was analysed: its facts, and
// the catalogue they were resolved against. Dialects live in sub-folders; the facts are
// theirs in common, so that policy is one. Nothing here reads a network or a clock.
package sql

import (
	"slices"
	"strings"
	"unsafe"

	"github.com/posterngate/postern/pkg/postern"
)

// Verb is what a statement does to a table, or the class of a statement that touches none.
type Verb string

// The verbs. The first five are what a permit may name for a table.
const (
	Select   Verb = "select"
	Insert   Verb = "insert"
	Update   Verb = "update"
	Delete   Verb = "delete"
	Truncate Verb = "truncate"

	// Define is a DDL command; Statement.Command says which.
	Define Verb = "define"
	// Transaction begins, ends or marks a transaction.
	Transaction Verb = "transaction"
	// Set changes a session setting; Show reads one.
	Set  Verb = "set"
	Show Verb = "show"
	// Prepare, Execute, Deallocate, and the cursor verbs Declare, Fetch and Close use a
	// named object of the session; Statement.Object names it.
	Prepare    Verb = "prepare"
	Execute    Verb = "execute"
	Deallocate Verb = "deallocate"
	Declare    Verb = "declare"
	Fetch      Verb = "fetch"
	Close      Verb = "close"
	// Listen covers LISTEN, NOTIFY and UNLISTEN.
	Listen Verb = "listen"
	// Other has no model and is denied unless everything is allowed.
	Other Verb = ""
)

// Facts is what the analyser found in one SQL string. The zero Facts are incomplete.
type Facts struct {
	// Complete is false where anything was not understood; Incomplete then says what,
	// for the person who wrote the statement.
	Complete   bool
	Incomplete string
	// Undefined is set where what was not understood is a name that does not exist.
	Undefined *Undefined
	// Statements in the order of the text; more than one only in a simple query.
	Statements []Statement
}

// Size is roughly how many bytes the facts keep, which may be many times the text's.
func (f *Facts) Size() int {
	n := 0
	for i := range f.Statements {
		st := &f.Statements[i]
		n += int(unsafe.Sizeof(*st)) + len(st.Tables)*int(unsafe.Sizeof(Table{})) + len(st.Functions)*int(unsafe.Sizeof(Function{})) +
			len(st.Settings)*int(unsafe.Sizeof(SettingUse{})) + len(st.Outputs)*int(unsafe.Sizeof(Output{}))
	}
	return n
}

// Undefined is where a statement names what does not exist.
type Undefined struct {
	Kind     postern.Undefined
	Name     string  // bare; empty where it is that of no entry of FROM
	Position int     // of the name in the text, in characters from 1; 0 where it is unknown
	Tables   []Table // that the statement had named by then, as far as it was understood
}

// Effect is the worst effect of all statements; Unknown where facts are incomplete.
func (f *Facts) Effect() postern.Effect {
	if f == nil || !f.Complete {
		return postern.EffectUnknown
	}
	e := postern.EffectNone
	for i := range f.Statements {
		e = e.Worse(f.Statements[i].Effect)
	}
	return e
}

// Statement is one statement of the text.
type Statement struct {
	Verb    Verb   // of the whole; sub-statements show in Tables
	Command string // as a person would call it, such as "DROP TABLE"
	Effect  postern.Effect
	// Tables has one entry for each relation of the catalogue that the statement uses,
	// merged over all references, in order of first reference.
	Tables []Table
	// Functions has every function, by name, that the statement calls.
	Functions []Function
	// Settings has every setting that the statement reads or writes by a function, such
	// as set_config, where it is certain which one.
	Settings []SettingUse
	// Setting is the setting of Set and Show, in lower case.
	Setting string
	// Value is the value of Set, as one canonical text.
	Value string
	// Object is the prepared statement or cursor of Prepare, Execute, Deallocate,
	// Declare, Fetch and Close; empty with Deallocate means all.
	Object string
	// Schemas that a Define command names, explicitly or by search_path.
	Schemas []string
	// Within is true where parts of WITH change relations: what the server says that the
	// statement has changed is not all.
	Within bool
	// Unqualified is true where a Define command names a relation of the catalogue without
	// its schema.
	Unqualified bool
	// Explain is true for EXPLAIN of the statement described by the rest.
	Explain bool
	// Returns is true where the statement gives rows back.
	Returns bool
	// Outputs describes the result columns where the analyser could tell them.
	Outputs []Output
}

// Names reports whether what the statement does depends on what names of users' objects
// mean, along a search path of that many schemas.
func (st *Statement) Names(path int) bool {
	if st.Verb == Define && st.Unqualified && path > 1 {
		return true
	}
	return slices.ContainsFunc(st.Tables, func(t Table) bool { return !t.System })
}

// Table is one relation and how a statement uses it.
type Table struct {
	Schema, Name string
	Kind         RelationKind
	System       bool     // pg_catalog or information_schema
	Verbs        []Verb   // sorted, without duplicates
	Read         []string // columns read, for output or otherwise; sorted
	// Roles says how each column in Read is used; with AllColumns the name "*" has the
	// role of the whole row.
	Roles map[string]ColumnRole
	Write []string // columns written; sorted
	// AllColumns is true where the statement uses * or the whole row, which stands for
	// whatever columns the task permits.
	AllColumns bool
	// NoWhere is true where an update or delete of this relation has no WHERE clause.
	NoWhere bool
	// Target is true where the relation is changed, so that it cannot be replaced by a
	// sub-select.
	Target bool
	// TargetReads lists columns that a changing statement reads from its own target;
	// they see stored values, and so must not be masked. "*" is the whole row, as in
	// RETURNING *.
	TargetReads []string
	// Beneath is what the relation reads, where it is a view. It is the catalogue's.
	Beneath *Beneath
}

// Has reports whether the statement uses the relation with verb v.
func (t *Table) Has(v Verb) bool {
	for _, w := range t.Verbs {
		if w == v {
			return true
		}
	}
	return false
}

// String is the qualified name.
func (t *Table) String() string { return t.Schema + "." + t.Name }

// ColumnRole says how a column that is read is used.
type ColumnRole uint8

// The roles; they combine as bits.
const (
	RoleOutput    ColumnRole = 1 << iota // reaches the result as it is: a bare projection
	RoleComputed                         // reaches the result through an expression
	RolePredicate                        // decides which rows there are, or their order
)

// Through is how something is used that a column of a view comes from in the way of r,
// where that column is used in the way of outer.
func (r ColumnRole) Through(outer ColumnRole) ColumnRole {
	if outer&RoleOutput != 0 && r&RoleOutput == 0 { // what the view computes is no bare projection
		outer = outer&^RoleOutput | RoleComputed
	}
	return outer | r&RolePredicate
}

// Function is one function that is called.
type Function struct {
	Schema, Name string
	// Pure is true where every overload that the call could mean is built in, IMMUTABLE
	// or listed as harmless.
	Pure bool
	// Blank is true for a function that says how much room something takes, or what a function
	// does, where a rewriting can have NULL asked of it in each call.
	Blank bool
}

func (f Function) String() string { return f.Schema + "." + f.Name }

// SettingUse is one setting that a function reads or writes.
type SettingUse struct {
	Name  string // in lower case
	Write bool
	// Value that is written, where Known; else it comes with a parameter.
	Value string
	Known bool
	// Held is true where the value that is written is the one that the session began with.
	Held bool
	// Listed is true where it is whichever setting a row of pg_settings is about; Name is empty.
	Listed bool
}

// Output is one column of a result.
type Output struct {
	Name string
	// Schema, Table and Column are the origin where the column is a bare projection.
	Schema, Table, Column string
	// Star is true where nobody has named the column: it is there as a part of *, if the
	// task permits it.
	Star bool
}

// RelationKind is what a relation is.
type RelationKind string

// The kinds of relation.
const (
	KindTable            RelationKind = "table"
	KindView             RelationKind = "view"
	KindMaterializedView RelationKind = "materialized view"
	KindForeignTable     RelationKind = "foreign table"
	KindPartitioned      RelationKind = "partitioned table"
	KindSequence         RelationKind = "sequence"
)

// Quote quotes an SQL identifier.
func Quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
