package postgres

import (
	"fmt"

	"github.com/posterngate/postern/pkg/postern"
)

// wrapped is a statement whose changes are counted before they may stand. A simple
// query is sent as Parse, Bind, Describe, Execute and Flush, so that its transaction
// stays open until the number is known; only then comes the Sync that commits. In the
// extended protocol that is how it is anyway. Either way, too many changes make the
// transaction fail at the target, which undoes them.
type wrapped struct {
	extended bool
	complete []byte // the CommandComplete that is kept back until the commit
	synced   bool
}

// sendWrapped sends a simple query of one statement.
func (c clientCore) sendWrapped(e *entry, st *statement) {
	e.wrapped = &wrapped{}
	up := appendParse(c.up.Grow(), "", st.adm.Forward, noTypes)
	up = append(up, 'B', 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0)
	up = append(up, 'D', 0, 0, 0, 6, 'P', 0)
	up = append(up, 'E', 0, 0, 0, 9, 0, 0, 0, 0, 0)
	c.up.Set(appendEmpty(up, 'H'))
	c.exclusive = true
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
