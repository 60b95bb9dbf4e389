package postgres

import (
	"fmt"

	"github.com/posterngate/postern/pkg/postern"
)

// wrapped is a statement whose changes are counted before they may stand, or whose rows may
// be cut short. A simple query is sent as Parse, Bind, Describe, Execute and Flush, so that
// its transaction stays open until the number is known; only then comes the Sync that
// commits. In the extended protocol that is how it is anyway. Either way, too many changes
// or rows make the transaction fail at the target, which undoes them.
type wrapped struct {
	complete []byte // the CommandComplete that is kept back until the commit
	synced   bool
}

// sendWrapped sends a simple query of one statement.
func (c clientCore) sendWrapped(e *entry, st *statement) {
	e.wrapped = &wrapped{}
	c.up.Set(appendEmpty(appendRun(c.up.Grow(), st.adm.Forward), 'H'))
	c.exclusive = true
}

// appendRun appends what runs a text, which must be one statement, and describes its result.
func appendRun(dst []byte, text string) []byte {
	dst = appendParse(dst, "", text, noTypes)
	dst = append(dst, 'B', 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = append(dst, 'D', 0, 0, 0, 6, 'P', 0)
	return append(dst, 'E', 0, 0, 0, 9, 0, 0, 0, 0, 0)
}

// commitWrapped ends the transaction of a wrapped query, or makes it fail.
func (t targetCore) commitWrapped(e *entry, msg []byte) {
	if e.over == nil {
		e.wrapped.complete = append(e.wrapped.complete[:0], msg...)
	} else {
		t.back = appendParse(t.back, poisonName, poisonText, noTypes)
	}
	t.endWrapped(e)
}

// endWrapped sends the Sync that the client did not, once.
func (t targetCore) endWrapped(e *entry) {
	if !e.wrapped.synced {
		e.wrapped.synced = true
		t.back = appendEmpty(t.back, 'S')
	}
}

func affectedTooMany(e *entry) *postern.Refusal {
	return &postern.Refusal{
		Code: postern.CodeLimit, Rule: e.st.adm.Decision.Rule,
		Reason: fmt.Sprintf("the statement would change %d rows, and may change %d; nothing was changed", e.affected, e.st.maxAffected),
		Hint:   "narrow its WHERE clause",
	}
}
