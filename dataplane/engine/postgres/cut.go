package postgres

import (
	"slices"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// What the client is told has failed must not stand. Where a result is cut short by a limit,
// the target knows of no failure and would commit. So whatever commits waits until no result
// before it can be cut short any more: the Sync of a pipeline, and a COMMIT behind one. A
// simple query of one statement is sent with a Sync of our own for that, as in affected.go.
// One of several commits by itself: where it was cut, its session ends with that.
//
// What is cut short is cancelled at the target, which may be past it by then. So whatever does
// not fail with it waits behind it, too, or the cancel would hit that.

// A pipeline is what is known of the messages since the last Sync.
type pipeline struct {
	cut    bool // a result may be cut short
	alters bool // something is changed
	turns  bool // a transaction may have begun or ended
}

// note adds an execution that was admitted.
func (p *pipeline) note(e *entry, st, guard *statement) {
	e.cut = st.returns && (e.flow.Bounded() || guard.maxRows >= 0)
	p.cut = p.cut || e.cut
	p.alters = p.alters || guard.alters
	p.turns = p.turns || st.turns
}

// commits reports whether a Sync behind it commits what could still have to be undone. In a
// transaction of the client's own it commits nothing.
func (p *pipeline) commits(status byte) bool { return p.cut && p.alters && (p.turns || status != 'T') }

// turns reports whether a text may begin or end a transaction.
func turns(f *sql.Facts) bool {
	return !f.Complete || slices.ContainsFunc(f.Statements, func(s sql.Statement) bool { return s.Verb == sql.Transaction || s.Verb == sql.Other })
}

// returns reports whether a text may return rows.
func returns(f *sql.Facts) bool {
	return !f.Complete || slices.ContainsFunc(f.Statements, func(s sql.Statement) bool { return s.Returns })
}

// stands is why a session ends in which a text was cut short whose changes were committed.
func stands(e *entry) *postern.Refusal {
	r := *e.over
	r.Hint = "what the query has changed may stand: look before you send it again, and send its statements one by one"
	return &r
}
