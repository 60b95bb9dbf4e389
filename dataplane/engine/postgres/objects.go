package postgres

import (
	"slices"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// body finds the prepared statement or cursor that a text runs: by EXECUTE or FETCH,
// what was judged when the object was made applies to what it returns. It is nil for
// other texts, and under a task that allows everything where the session does not know
// the object: the target may. certain is false where the answer depends on the target.
func (c *conn) body(st *statement) (p *prepared, no *report, certain bool) {
	for i := range st.facts.Statements {
		s := &st.facts.Statements[i]
		if s.Verb != sql.Execute && s.Verb != sql.Fetch || s.Verb == sql.Fetch && declares(st.facts.Statements[:i], s.Object) {
			continue
		}
		if len(st.facts.Statements) > 1 && !c.trusts(st) && (s.Verb != sql.Fetch || !alone(st.facts.Statements, i)) {
			r := c.denied(st.text, &postern.Refusal{Reason: s.Command + " cannot share a query with other statements", Hint: "send it as a query of its own"})
			return nil, &r, true
		}
		what := byte('S')
		if s.Verb == sql.Execute {
			p, certain = c.statements.get([]byte(s.Object), c.segment, c.done)
		} else {
			what = 'P'
			var cur *portal
			if cur, certain = c.portals.get([]byte(s.Object), c.segment, c.done); cur != nil {
				p = cur.prep
			}
		}
		switch {
		case !certain:
			return nil, nil, false
		case c.trusts(st) && (p == nil || len(st.facts.Statements) > 1):
			p = nil
			continue
		case p == nil:
			r := undefined(what, s.Object)
			return nil, &r, true
		case p.st.adm.Decision.Verdict == postern.VerdictHold && !hole.Is("policy-held-by-name"):
			r := c.denied(st.text, &postern.Refusal{Rule: p.st.adm.Decision.Rule, Reason: "people must approve each execution of this statement, which " + s.Command + " would not show them", Hint: "send the statement itself, or prepare it through the driver"})
			return nil, &r, true
		}
		return p, nil, true
	}
	return nil, nil, true
}

// declares reports whether one of the statements makes the cursor, as drivers do in the text in
// which they fetch its first rows. It is new then, or all of the text fails: what it returns
// was judged with the text.
func declares(statements []sql.Statement, cursor string) bool {
	return slices.ContainsFunc(statements, func(s sql.Statement) bool { return s.Verb == sql.Declare && s.Object == cursor })
}

// alone reports whether a statement has nothing beside it but savepoints, which ODBC's driver
// sets before it fetches.
func alone(statements []sql.Statement, at int) bool {
	for i := range statements {
		if c := statements[i].Command; i != at && (statements[i].Verb != sql.Transaction || c != "SAVEPOINT" && c != "RELEASE") {
			return false
		}
	}
	return true
}

// trusts reports whether what a statement runs by name is nobody's concern: the task
// allows everything, and asks nobody.
func (c *conn) trusts(st *statement) bool {
	return c.terms.Own && st.adm.Decision.Verdict == postern.VerdictAllow
}

// namesOf is how many names the session may have more once a text has run.
func namesOf(st *statement) int {
	n := 0
	for i := range st.facts.Statements {
		if v := st.facts.Statements[i].Verb; v == sql.Prepare || v == sql.Declare {
			n++
		}
	}
	return n
}

// objects follows what a text that is about to be sent does to the session's names.
func (c *conn) objects(e *entry, st *statement) error {
	several := len(st.facts.Statements) > 1
	for i := range st.facts.Statements {
		s := &st.facts.Statements[i]
		switch s.Verb {
		case sql.Prepare:
			if hole.Is("wire-prepare") {
				break
			}
			c.setStatement(e, s.Object, &prepared{st: st})
		case sql.Deallocate:
			if s.Object != "" {
				if hole.Is("wire-deallocate") {
					break
				}
				c.setStatement(e, s.Object, nil)
				break
			}
			c.freeStatements(e)
		case sql.Declare:
			if err := c.setPortal(e, s.Object, &portal{prep: &prepared{st: st}, cursor: true}); err != nil {
				return err
			}
		case sql.Close:
			if err := c.closeCursors(e, s.Object); err != nil {
				return err
			}
		}
		if s.Command == "DISCARD ALL" { // the others keep statements and cursors
			c.freeStatements(e)
			if err := c.closeCursors(e, ""); err != nil {
				return err
			}
		}
	}
	if several {
		for i := range e.changes {
			e.changes[i].forget = true
		}
	}
	return nil
}

func (c *conn) closeCursors(e *entry, name string) error {
	if name != "" {
		return c.setPortal(e, name, nil)
	}
	for name, v := range c.portals {
		if v.value == nil {
			continue
		}
		if err := c.setPortal(e, name, nil); err != nil {
			return err
		}
	}
	return nil
}

// freeStatements frees the names of all that is prepared. Those that are free as it is
// change nothing: a pipeline of such texts would keep every name once for each.
func (c *conn) freeStatements(e *entry) {
	for name, v := range c.statements {
		if v.value != nil {
			c.setStatement(e, name, nil)
		}
	}
}
