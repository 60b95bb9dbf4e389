package postgres

import (
	"github.com/posterngate/postern/pkg/postern"

	"github.com/posterngate/postern/pkg/hole"
)

// A prepared statement of the session, made by Parse or by SQL PREPARE: both share one
// namespace at the target, and so here.
type prepared struct {
	st    *statement // replaced by the client's pump when it was judged anew
	types []uint32   // of its parameters, where they are known; 0 is not
}

// A portal of the session, made by Bind or, as a cursor, by SQL DECLARE.
type portal struct {
	prep      *prepared
	params    []byte   // of the Bind, in wire form
	types     []uint32 // of them, as far as they were known then
	cursor    bool
	bound     uint64 // counts what the portal was bound to
	suspended *entry // an execution that stopped at its row count
}

// named is what a name means since a segment of the conversation. A nil value says that
// the name is free.
type named[T any] struct {
	value   *T
	segment uint64
}

// names maps the names of one kind of object. What a name means is set when the message
// that changes it is sent, and put back if the target never gets there. Until a segment
// is over, only messages of the same segment may rely on what it changed: if the change
// fails, the target skips them too.
type names[T any] map[string]named[T]

// get returns what name means for a message of segment now, where every segment up to
// done is over. certain is false where that depends on an answer still to come.
func (n names[T]) get(name []byte, now, done uint64) (value *T, certain bool) {
	v := n[string(name)]
	return v.value, v.segment == now || v.segment <= done
}

// purge forgets the names that are free, once every change is certain.
func (n names[T]) purge() {
	for name, v := range n {
		if v.value == nil {
			delete(n, name)
		}
	}
}

// A change is what undoes the change of one name.
type change struct {
	what   byte // 'S' for a statement, 'P' for a portal
	name   string
	prep   named[prepared]
	portal named[portal]
	forget bool // whether the name was changed in between, so that nothing is known
}

func (c *conn) setStatement(e *entry, name string, p *prepared) {
	e.changes = append(e.changes, change{what: 'S', name: name, prep: c.statements[name]})
	c.statements[name] = named[prepared]{p, e.segment}
	c.freed = c.freed || (p == nil && name != "")
}

func (c *conn) setPortal(e *entry, name string, p *portal) error {
	old := c.portals[name]
	if old.value != nil {
		old.value.bound++
		if err := c.endSuspended(old.value); err != nil {
			return err
		}
	}
	e.changes = append(e.changes, change{what: 'P', name: name, portal: old})
	c.portals[name] = named[portal]{p, e.segment}
	c.freed = c.freed || p == nil
	return nil
}

// endSuspended ends an execution that nobody will ask more rows of.
func (c *conn) endSuspended(p *portal) error {
	e := p.suspended
	if e == nil {
		return nil
	}
	p.suspended = nil
	return c.finish(e)
}

// undo puts back what e changed, because the target did not do it. A name that a later
// message has changed since is that message's: it is what that would put back that changes.
func (c *conn) undo(e *entry) {
	for i := len(e.changes) - 1; i >= 0; i-- {
		ch := &e.changes[i]
		later := c.changedSince(e, ch)
		if hole.Is("wire-undo") {
			later = nil
		}
		unknown := ch.forget || ch.what == 'P' && ch.name == ""
		switch ch.what {
		case 'S':
			old := ch.prep
			if unknown {
				old = named[prepared]{segment: e.segment}
			}
			if later != nil {
				later.prep = old
			} else {
				c.statements[ch.name] = old
			}
		default:
			old := ch.portal
			if unknown {
				old = named[portal]{segment: e.segment}
			}
			if later != nil {
				later.portal = old
			} else {
				c.portals[ch.name] = old
			}
		}
	}
	clear(e.changes)
	e.changes = e.changes[:0]
}

// changedSince is the next change of the same name in an entry behind e, or nil.
func (c *conn) changedSince(e *entry, ch *change) *change {
	behind := false
	for i := range c.q.n {
		other := c.q.at(i)
		if behind {
			for j := range other.changes {
				if o := &other.changes[j]; o.what == ch.what && o.name == ch.name {
					return o
				}
			}
		}
		behind = behind || other == e
	}
	return nil
}

// full refuses so many new names, with so many bytes of text or parameters, where the
// session would have too many.
func (c *conn) full(more, size int) *postern.Refusal {
	if more == 0 {
		return nil
	}
	if c.kept += size; c.kept > c.e.limits.Kept {
		c.kept = c.keeps() + size // what was closed since no longer counts
	}
	if len(c.statements)+len(c.portals)+more <= c.e.limits.Names && c.kept <= c.e.limits.Kept {
		return nil
	}
	return &postern.Refusal{Code: postern.CodeLimit, Reason: "the session has too many prepared statements and cursors", Hint: "deallocate some, or connect again"}
}

// keeps counts the bytes that the session's names keep, or would keep again.
func (c *conn) keeps() (n int) {
	ofStatement := func(p *prepared) {
		if p != nil {
			n += p.st.size
		}
	}
	ofPortal := func(p *portal) {
		if p != nil {
			n += cap(p.params)
		}
	}
	for _, v := range c.statements {
		ofStatement(v.value)
	}
	for _, v := range c.portals {
		ofPortal(v.value)
	}
	for i := range c.q.n {
		for _, ch := range c.q.at(i).changes {
			ofStatement(ch.prep.value)
			ofPortal(ch.portal.value)
		}
	}
	return n
}

// endTransaction drops the portals that end with a transaction. Cursors are kept, for
// they may have been declared WITH HOLD; a name that the target no longer knows is an
// error there.
func (c *conn) endTransaction() error {
	for name, v := range c.portals {
		p := v.value
		if p != nil && p.cursor {
			continue
		}
		if p != nil {
			p.bound++
			if err := c.endSuspended(p); err != nil {
				return err
			}
		}
		if name == "" {
			c.portals[name] = named[portal]{segment: v.segment}
			continue
		}
		delete(c.portals, name)
	}
	return nil
}
