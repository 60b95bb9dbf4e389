package postgres

import (
	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
)

// kind says what an entry of the queue waits for.
type kind uint8

const (
	kindQuery    kind = iota // results and errors up to ReadyForQuery
	kindParse                // ParseComplete
	kindBind                 // BindComplete
	kindDescribe             // ParameterDescription, and RowDescription or NoData
	kindExecute              // rows up to CommandComplete, EmptyQuery or PortalSuspended
	kindClose                // CloseComplete
	kindSync                 // ReadyForQuery
)

// An entry is one message that was sent to the target and what its answer means. It
// belongs to the queue from push to pop; conn.mu guards it.
type entry struct {
	kind    kind
	segment uint64
	flow    engine.Flow // of kindQuery and kindExecute, where admitted
	st      *statement  // what was judged; nil for a refusal and for Sync
	catalog *catalog    // by which it was judged, of what may have columns
	portal  *portal     // of kindExecute
	prep    *prepared   // of kindDescribe of a statement
	size    int         // of what it has had judged; 0 where that was for an earlier one
	formats []int16     // of kindExecute: of its result
	bound   uint64      // portal.bound when it was executed
	changes []change    // of names, to be undone if the target never gets there
	report  *report     // the target was sent what must fail; show this instead
	unnamed bool        // of kindParse, that it names no statement
	hidden  bool        // the client did not ask; it sees nothing of the answer
	own     bool        // of kindDescribe, that we asked, to know how to mask
	wrapped *wrapped    // a simple query that is run with care; see affected.go
	cut     bool        // its result may be cut short; see cut.go

	over      *postern.Refusal // the result was stopped with this
	cancelled bool             // the target was asked to stop
	rows      int64
	bytes     int64
	affected  int64
	tag       string
	code      string
	message   string
	columns   bool // whether the flow was told of the columns
}

// A queue holds what is under way, in the order in which the target answers.
type queue struct {
	ring []*entry
	head int
	n    int
	size int // of all that is in it
	cuts int // how many of it may be cut short
	free []*entry
}

// get returns an empty entry.
func (q *queue) get(k kind) *entry {
	if i := len(q.free); i > 0 {
		e := q.free[i-1]
		q.free = q.free[:i-1]
		e.kind, e.affected = k, -1
		return e
	}
	return &entry{kind: k, affected: -1}
}

// put takes back an entry that nobody refers to any more, and that keeps nothing from then on.
func (q *queue) put(e *entry) {
	if len(q.free) < 64 {
		clear(e.changes)
		*e = entry{changes: e.changes[:0], formats: e.formats[:0]}
		q.free = append(q.free, e)
	}
}

func (q *queue) push(e *entry) {
	if q.n == len(q.ring) {
		grown := make([]*entry, max(8, 2*len(q.ring)))
		for i := range q.n {
			grown[i] = q.at(i)
		}
		q.ring, q.head = grown, 0
	}
	q.ring[(q.head+q.n)%len(q.ring)] = e
	q.n++
	q.count(e, 1)
}

// count adds what an entry counts, or takes it away.
func (q *queue) count(e *entry, sign int) {
	q.size += sign * e.size
	if e.cut {
		q.cuts += sign
	}
}

func (q *queue) at(i int) *entry { return q.ring[(q.head+i)%len(q.ring)] }

// first is the entry that the target answers now, or nil.
func (q *queue) first() *entry {
	if q.n == 0 {
		return nil
	}
	return q.ring[q.head]
}

func (q *queue) pop() *entry {
	e := q.ring[q.head]
	q.ring[q.head] = nil
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	q.count(e, -1)
	return e
}

// others reports whether anything has another catalogue than cat.
func (q *queue) others(cat *catalog) bool {
	for i := range q.n {
		if c := q.at(i).catalog; c != nil && c != cat {
			return true
		}
	}
	return false
}

// drop removes the entry at i.
func (q *queue) drop(i int) *entry {
	e := q.at(i)
	for ; i+1 < q.n; i++ {
		q.ring[(q.head+i)%len(q.ring)] = q.at(i + 1)
	}
	q.n--
	q.count(e, -1)
	q.ring[(q.head+q.n)%len(q.ring)] = nil
	return e
}
