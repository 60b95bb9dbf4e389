package postgres

import (
	"slices"
	"strings"

	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// settled makes sure that the names of what is about to run mean what the catalogue says.
// That does not show what a transaction of the session's own has defined and not yet
// committed: a name that it has freed would mean something that nobody has judged.
func (c clientCore) settled(all ...*statement) (pump.Next, *report) {
	if !c.undecided() || !slices.ContainsFunc(all, c.resolves) {
		return pump.Next{}, nil
	}
	if c.q.n > 0 {
		return c.drain(), nil
	}
	r := c.denied(all[0].text, &undecidedNames)
	return pump.Next{}, &r
}

var undecidedNames = postern.Refusal{Reason: "the transaction has defined something, and so what names mean in it is not known", Hint: "commit it first"}

// undecided reports whether a transaction of the session's has defined something.
func (c *conn) undecided() bool {
	return c.defined != 0 && !c.terms.Own && !hole.Is("wire-defined")
}

func (c *conn) resolves(st *statement) bool {
	return slices.ContainsFunc(st.facts.Statements, func(s sql.Statement) bool { return s.Names(len(c.names.path)) && !c.untouched(&s) })
}

// defines notes that a statement that is about to be sent defines something. Nothing follows
// before it is done.
func (c *conn) defines(st *statement) {
	if st.defines && !c.terms.Own {
		c.defined, c.exclusive = c.segment, true
		c.touched.add(st)
	}
}

// definitions are those of an open transaction. What they may have touched is the relations
// that have a word of theirs for a name, or anything.
type definitions struct {
	words map[string]bool
	size  int // of their texts
	all   bool
}

// byName are the commands that change the meaning of no relation but of those that they name,
// and of what hangs together with these as parents, children and views. None of them, as they
// are permitted, drops what depends on what it names.
var byName = []string{
	"CREATE TABLE", "ALTER TABLE", "DROP TABLE", "CREATE INDEX", "ALTER INDEX", "DROP INDEX", "CREATE SEQUENCE", "ALTER SEQUENCE", "DROP SEQUENCE",
	"COMMENT ON TABLE", "COMMENT ON COLUMN", "COMMENT ON INDEX", "COMMENT ON SEQUENCE",
}

// maxDefinitions is how many bytes of definitions a transaction may have whose words are kept.
const maxDefinitions = 256 << 10

func (d *definitions) add(st *statement) {
	d.size += len(st.text) + len(st.adm.Forward)
	d.all = d.all || d.size > maxDefinitions || !st.facts.Complete || slices.ContainsFunc(st.facts.Statements, func(s sql.Statement) bool {
		return s.Verb != sql.Transaction && !slices.Contains(byName, s.Command)
	})
	if d.all {
		d.words = nil
		return
	}
	if d.words == nil {
		d.words = map[string]bool{}
	}
	for _, text := range []string{st.text, st.adm.Forward} { // what is sent has no escapes
		for _, w := range wordsOf(text) {
			d.words[w] = true
		}
	}
}

// wordsOf is what of a text may be a name, or a part of one.
func wordsOf(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool {
		return r < 0x80 && r != '_' && r != '$' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	})
}

// untouched reports whether a statement means in the open transaction what the catalogue says,
// since it is about tables alone that stand by themselves and that nothing there names. So
// are those in which tools keep which migrations they have made. Along a path of several
// schemas a name may be freed for another one.
func (c *conn) untouched(s *sql.Statement) bool {
	if c.touched.all || s.Verb == sql.Define || len(c.names.path) > 1 {
		return false
	}
	cat := c.slot.catalog.Load()
	for i := range s.Tables {
		t := &s.Tables[i]
		words := wordsOf(t.Name)
		switch {
		case t.System:
		case t.Kind != sql.KindTable, len(t.Name) >= maxName, len(words) != 1, c.touched.words[words[0]], !apart(cat, sql.Name{Schema: t.Schema, Name: t.Name}):
			return false
		}
	}
	return true
}

// apart reports whether a relation has neither children nor parents.
func apart(cat *catalog, name sql.Name) bool {
	if rel := cat.Relations[name]; rel == nil || len(rel.Children) > 0 {
		return false
	}
	for _, rel := range cat.Relations {
		if slices.Contains(rel.Children, name) {
			return false
		}
	}
	return true
}
