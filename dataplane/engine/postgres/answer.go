package postgres

import (
	"bytes"
	"errors"
	"slices"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/wire"
)

// answer deals with one message of the target that is not a row.
func (t targetCore) answer(typ byte, msg []byte) error {
	body := msg[headerLen:]
	switch typ {
	case 'S':
		return t.parameterStatus(msg)
	case 'N':
		t.notice(body)
		return nil
	case 'A':
		if t.terms.Own || hole.Is("wire-notification") {
			t.down.Pass(msg) // else not: notifications carry what other sessions wrote
		}
		return nil
	}
	e := t.q.first()
	if typ == 'E' {
		return t.failed(e, body)
	}
	if e == nil {
		return broken("the resource answered what nobody asked")
	}
	if e.report != nil && (typ != 'Z' || e.kind != kindQuery) {
		return broken("the resource took a statement that must fail")
	}
	show := !e.hidden && e.over == nil
	switch typ {
	case '1', '2', '3':
		if e.wrapped != nil && e.kind == kindQuery && typ != '3' {
			return nil
		}
		if e.kind != completes(typ) {
			return unasked(typ)
		}
		return t.settled(e, msg)
	case 't':
		if e.kind != kindDescribe {
			return unasked(typ)
		}
		if e.prep != nil {
			e.prep.noteTypes(msg[headerLen:])
		}
	case 'n':
		if e.wrapped != nil && e.kind == kindQuery {
			return nil
		}
		if e.kind != kindDescribe {
			return unasked(typ)
		}
		return t.settled(e, msg)
	case 'T':
		return t.described(e, msg)
	case 'C', 'I', 's':
		return t.completed(e, typ, msg)
	case 'G':
		if !e.flow.Admitted() {
			return unasked(typ)
		}
		if err := t.beginCopyIn(e); err != nil {
			return err
		}
	case 'H', 'c':
		if !e.flow.Admitted() {
			return unasked(typ)
		}
	case 'Z':
		return t.readyForQuery(e, msg)
	default:
		return unasked(typ)
	}
	if show {
		t.down.Pass(msg)
	}
	return nil
}

// completes is the kind of message that a completion answers.
func completes(typ byte) kind {
	switch typ {
	case '1':
		return kindParse
	case '2':
		return kindBind
	}
	return kindClose
}

func unasked(typ byte) error {
	return broken("the resource sent an unexpected message of type " + string(rune(typ)))
}

// settled ends an entry of the extended protocol that has no rows.
func (t targetCore) settled(e *entry, msg []byte) error {
	if !e.hidden {
		t.down.Pass(msg)
	}
	t.q.pop()
	t.q.put(e)
	t.signal()
	return nil
}

// described checks the columns of a result against what was judged.
func (t targetCore) described(e *entry, msg []byte) error {
	if e.catalog == nil || (e.kind != kindDescribe && !e.flow.Admitted()) {
		return unasked('T')
	}
	if e.over == nil && (!e.hidden || e.own) {
		if r := t.checkColumns(e.st, e.catalog, msg[headerLen:]); r != nil {
			if !e.own { // else the execution finds no plan, and stops at its first row
				t.overrule(e, r)
			}
		} else if e.kind != kindDescribe {
			e.columns = true
			if err := e.flow.Columns(e.st.columns); err != nil {
				t.overrule(e, postern.AsRefusal(err))
			}
		}
	}
	if e.over == nil && !e.hidden {
		t.down.Pass(msg)
	}
	if e.kind != kindDescribe {
		return nil
	}
	if e.over != nil {
		t.showOver(e)
		t.overruled()
	}
	t.q.pop()
	t.q.put(e)
	t.signal()
	return nil
}

// completed ends one statement of a query, or an execution.
func (t targetCore) completed(e *entry, typ byte, msg []byte) error {
	if !e.flow.Admitted() {
		return unasked(typ)
	}
	if typ == 'C' {
		tag := commandTag(msg[headerLen:])
		e.tag = t.intern(tag)
		if n := tagRows(tag); n >= 0 {
			e.affected = max(e.affected, 0) + n
		}
		if e.wrapped != nil && e.over == nil && e.st.maxAffected >= 0 && e.affected > e.st.maxAffected {
			e.over = affectedTooMany(e)
		}
	}
	t.copying = false
	if e.kind == kindQuery {
		if e.wrapped != nil {
			t.commitWrapped(e, msg)
			return nil
		}
		if e.over == nil && !e.hidden {
			t.down.Pass(msg)
		}
		return nil
	}
	if typ == 's' && e.over == nil && !e.hidden && e.portal.bound == e.bound && e.portal.suspended == nil {
		t.q.pop()
		e.portal.suspended, e.changes, e.catalog = e, e.changes[:0], nil
		t.down.Pass(msg)
		t.signal()
		return nil
	}
	switch {
	case e.over != nil && !e.hidden:
		t.showOver(e)
		t.overruled()
	case !e.hidden:
		t.down.Pass(msg)
	}
	t.q.pop()
	err := t.finish(e)
	t.signal()
	return err
}

// readyForQuery ends a query or a segment of the extended protocol.
func (t targetCore) readyForQuery(e *entry, msg []byte) error {
	if (e.kind != kindQuery && e.kind != kindSync) || len(msg) != headerLen+1 {
		return unasked('Z')
	}
	t.q.pop()
	t.conn.done = max(t.conn.done, e.segment) // what it changed is certain
	t.copying = false
	status := msg[headerLen]
	if e.kind == kindQuery && e.over != nil && e.code == "" && !e.hidden {
		if status == 'I' && e.wrapped == nil && (e.st.alters || e.st.turns) {
			why := stands(e)
			return errors.Join(t.finish(e), why)
		}
		t.showOver(e)
		t.wasOver = true
	}
	if w := e.wrapped; w != nil && e.over == nil && e.code == "" {
		t.down.Set(append(t.down.Grow(), w.complete...))
	}
	if t.wasOver && status == 'T' {
		// The client was told of an error, so for it the transaction has failed.
		t.poison, status = true, 'E'
	}
	t.wasOver = false
	t.status = status
	if status == 'I' && t.defined > 0 && e.segment >= t.defined {
		t.defined, t.touched = 0, definitions{}
		t.ddl(true) // what was looked at since did not show it
	}
	if !e.hidden {
		if status == msg[headerLen] {
			t.down.Pass(msg)
		} else {
			t.down.Set(appendReady(t.down.Grow(), status))
		}
	}
	err := t.finish(e)
	if err == nil && t.q.n == 0 {
		if status == 'I' {
			err = t.endTransaction()
		}
		if t.freed {
			t.statements.purge()
			t.portals.purge()
			t.freed = false
		}
	}
	t.signal()
	return err
}

// failed deals with an ErrorResponse.
func (t targetCore) failed(e *entry, body []byte) error {
	if e == nil {
		t.lastWords = true
		t.down.Set(t.scrubOf(nil).append(t.down.Grow(), 'E', body))
		return nil
	}
	t.copying = false
	e.code = t.intern(field(body, 'C'))
	switch {
	case e.hidden && !e.own:
	case e.report != nil:
		t.down.Set(e.report.append(t.down.Grow(), 'E'))
	case e.over != nil:
		t.showOver(e)
	default:
		from := len(t.down.Grow())
		t.down.Set(t.scrubOf(e.st).append(t.down.Grow(), 'E', body))
		e.message = string(field(t.down.Bytes()[from+headerLen:], 'M'))
	}
	if sev := field(body, 'V'); string(sev) == "FATAL" || string(sev) == "PANIC" {
		t.lastWords = true
	}
	switch e.kind {
	case kindQuery:
		t.undo(e)
		if e.wrapped != nil {
			t.endWrapped(e)
		}
	case kindSync: // the commit failed; ReadyForQuery follows
	case kindParse, kindBind, kindDescribe, kindExecute, kindClose:
		return t.skipSegment(e)
	}
	return nil
}

// skipSegment follows the target in skipping everything up to the next Sync.
func (t targetCore) skipSegment(head *entry) error {
	n := 0
	for n < t.q.n && t.q.at(n).kind != kindSync {
		n++
	}
	if n == t.q.n {
		t.skip = skipTarget
	}
	for i := n - 1; i >= 0; i-- {
		t.undo(t.q.at(i))
	}
	if head.unnamed {
		// A Parse that fails takes the unnamed statement with it.
		t.statements[""] = named[prepared]{segment: head.segment}
	}
	t.portals[""] = named[portal]{segment: head.segment}
	t.unnamed.bound++
	var err error
	for range n {
		e := t.q.pop()
		if e != head && e.code == "" {
			e.code, e.message = "25P02", "skipped, because an earlier statement failed"
		}
		if ferr := t.finish(e); err == nil {
			err = ferr
		}
	}
	if serr := t.endSuspended(&t.unnamed); err == nil {
		err = serr
	}
	t.signal()
	return err
}

// finish ends the flow of an entry, if it has one, and takes the entry back.
func (c *conn) finish(e *entry) error {
	var err error
	if e.flow.Admitted() {
		o := engine.Outcome{Tag: e.tag, Affected: e.affected, Code: e.code, Message: e.message}
		if e.over != nil {
			o.Code, o.Message = sqlstate(e.over.Code), e.over.Reason
		}
		err = e.flow.Done(o)
		if e.st != nil && e.st.defines && e.code == "" {
			c.ddl(!c.terms.Own || e.st.facts.Complete)
		}
	}
	c.q.put(e)
	return err
}

// overrule stops a result that the target goes on with.
func (t targetCore) overrule(e *entry, r *postern.Refusal) {
	if e.over == nil {
		e.over = r
	}
}

func (t targetCore) showOver(e *entry) {
	t.down.Set(errorOf(e.over, "ERROR").append(t.down.Grow(), 'E'))
}

// overruled makes the rest of a segment fail for the client, where the target knows of
// no error: what was sent already is hidden, what follows is skipped, and the target's
// transaction is made to fail before the Sync.
func (t targetCore) overruled() {
	for i := 1; i < t.q.n; i++ {
		later := t.q.at(i)
		if later.kind == kindSync {
			t.wasOver = true
			return
		}
		later.hidden = true
	}
	t.skip, t.poison = skipTarget, true
}

// parameterStatus passes on what a client may know of the target's settings. A pinned
// setting that changes ends the session: statements were judged under its value.
func (t targetCore) parameterStatus(msg []byte) error {
	c := wire.Read(msg[headerLen:])
	name, value := c.CString(), c.CString()
	if c.Done() != nil {
		return unasked('S')
	}
	want, pinned := t.pinned[string(name)]
	same := want == string(value) || string(name) == "search_path" && slices.Equal(schemas(want), schemas(string(value))) // with quotes or without
	if pinned && !same && !hole.Is("wire-pinned") {
		return &postern.Refusal{Code: postern.CodeKilled, Reason: "the setting " + string(name) + " is held fixed and has changed", Hint: "connect again"}
	}
	if t.login.pool != nil {
		t.login.status[string(name)] = string(value)
	}
	if !shownStatus[string(name)] {
		return nil
	}
	if string(name) == "application_name" && bytes.HasPrefix(value, []byte(programPrefix)) {
		// A reset gives it our own name back; to the client that is what it said itself.
		t.down.Set(appendStatus(t.down.Grow(), "application_name", clean(t.program)))
	} else {
		t.down.Pass(msg)
	}
	return t.s.Note("setting", string(name)+"="+string(value))
}

func (t targetCore) notice(body []byte) {
	e := t.q.first()
	if e != nil && (e.hidden || e.over != nil || e.report != nil) {
		return
	}
	var st *statement
	if e != nil {
		st = e.st
	}
	t.down.Set(t.scrubOf(st).append(t.down.Grow(), 'N', body))
}

// scrubOf says what may be shown of the errors and notices of a statement. Where none
// is known, or it ends a transaction, it is what the strictest one of the session allows: what
// came before it may show there, whatever the target has last said of the transaction.
func (t targetCore) scrubOf(st *statement) scrub {
	if t.terms.Own {
		return scrub{all: true}
	}
	if st == nil || st.turns {
		return scrub{quotes: t.quotesSeen, rows: t.changeSeen}
	}
	open := t.status != 'I' // what came before may show now, as at a commit
	return scrub{
		quotes: st.quotes || (t.quotesSeen && open), rows: st.changes || (t.changeSeen && open),
		generic: st.masking != nil, position: st.own,
	}
}

// intern returns p as a string without allocating one for each of the few tags and
// codes that a session sees over and over.
func (c *conn) intern(p []byte) string {
	if s, ok := c.interned[string(p)]; ok {
		return s
	}
	if len(c.interned) >= maxInterned {
		clear(c.interned)
	}
	s := string(p)
	c.interned[s] = s
	return s
}

const maxInterned = 128
