package postgres

import (
	"context"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"

	"github.com/posterngate/postern/pkg/hole"
)

// What the target is sent in place of a refused message where a transaction or a
// pipeline is open: it cannot be parsed, so the target's transaction fails just as the
// client's does, and its error, which comes at the right place among the answers, is
// replaced by ours.
const (
	poisonText = "refused by postern"
	poisonName = "postern"
)

// denied is a refusal of ours as the client is told it, once it is on the record like one of
// policy's. The caller holds mu.
func (c *conn) denied(text string, r *postern.Refusal) report {
	_, err := c.s.Prepare(c.s.Context(), &engine.Statement{
		Text: text, Private: true, Analyse: func(context.Context) (engine.Analysis, error) { return nil, r },
	})
	if err == nil { // nobody denies it, and yet it is denied
		err = r
	}
	return errorOf(postern.AsRefusal(err), "ERROR")
}

// refuse answers the message at hand with a refusal.
func (c clientCore) refuse(k kind, r *postern.Refusal) error {
	if fatal(r) {
		return r
	}
	return c.refuseWith(k, errorOf(r, "ERROR"))
}

// refuseWith answers a query, or a message of the extended protocol, with an error.
// Where the target has nothing open, and the client has every answer that came before,
// the target never hears of it.
func (c clientCore) refuseWith(k kind, r report) error {
	if c.status == 'I' && c.q.n == 0 && !c.open && !c.unsent.Load() {
		c.reply = r.append(c.reply, 'E')
		if k == kindQuery {
			c.reply = appendReady(c.reply, 'I')
		} else {
			c.skip = skipLocal
			if hole.Is("wire-no-skip") {
				c.skip = skipNone
			}
		}
		return nil
	}
	if k != kindQuery {
		k = kindParse
	}
	e := c.q.get(k)
	e.report = &r
	c.enqueue(e)
	if k == kindQuery {
		c.up.Set(appendQuery(c.up.Grow(), poisonText))
		c.closeSegment()
		return nil
	}
	c.up.Set(appendParse(c.up.Grow(), poisonName, poisonText, noTypes))
	c.open, c.skip = true, skipTarget
	return nil
}

// sendPoison makes the target's transaction fail where the client was told of an error
// that the target does not know of. The client sees nothing of it.
func (c clientCore) sendPoison() {
	c.poison = false
	e := c.q.get(kindQuery)
	if c.open {
		e.kind = kindParse
	}
	e.hidden = true
	c.enqueue(e)
	if e.kind == kindParse {
		c.up.Set(appendParse(c.up.Grow(), poisonName, poisonText, noTypes))
		return
	}
	c.up.Set(appendQuery(c.up.Grow(), poisonText))
	c.closeSegment()
}
