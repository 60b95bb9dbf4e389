package postgres

import (
	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
)

// early reports whether COPY data has come before the target has answered the statement
// that it may belong to. It waits then; drivers do not.
func (c clientCore) early() bool { return !c.copying && c.skip == skipNone && c.q.n > 0 }

// copyMessage deals with CopyData, CopyDone and CopyFail. Outside of a COPY they are
// dropped, as the target would: the client may not yet know that its COPY has failed.
func (c clientCore) copyMessage(typ byte, msg []byte) error {
	if !c.copying {
		return nil
	}
	if typ == 'd' {
		ok, err := c.copyIn(msg, len(msg))
		if ok {
			c.up.Pass(msg)
		}
		return err
	}
	c.copying = false
	c.up.Pass(msg)
	return nil
}

// copyLarge begins a CopyData that is larger than the buffer and so goes on in parts.
func (c clientCore) copyLarge(part []byte, size int) error {
	c.stream, c.streaming = size, c.copying
	if c.streaming {
		ok, err := c.copyIn(nil, size)
		if err != nil {
			return err
		}
		c.streaming = ok
	}
	return c.copyPart(part)
}

// copyPart passes on a part of a large CopyData.
func (c clientCore) copyPart(part []byte) error {
	c.stream -= len(part)
	if !c.streaming {
		return nil
	}
	c.up.Pass(part)
	if !c.copying {
		return nil // the COPY has failed meanwhile; the message must still end
	}
	if e := c.q.first(); e != nil && e.flow.Admitted() {
		return e.flow.Chunk(engine.ToTarget, part)
	}
	return nil
}

// copyIn accounts for one CopyData of size bytes to the COPY under way, and reports
// whether it may be sent.
func (c clientCore) copyIn(msg []byte, size int) (bool, error) {
	e := c.q.first()
	if e == nil || !e.flow.Admitted() {
		return false, broken("COPY data without a COPY")
	}
	e.rows++
	e.bytes += int64(size)
	rows, bytes := e.flow.Room(e.rows, e.bytes)
	if e.rows > rows || e.bytes > bytes {
		e.over = limitOf(e.rows > rows)
		c.copying = false
		up, at := begin(c.up.Grow(), 'f')
		c.up.Set(end(appendCString(up, "a limit of the gateway is reached"), at))
		return false, nil
	}
	if len(msg) == 0 {
		return true, nil
	}
	return true, e.flow.Chunk(engine.ToTarget, msg)
}

// limitOf is the refusal of more rows or bytes than the budget has.
func limitOf(rows bool) *postern.Refusal {
	what := "bytes"
	if rows {
		what = "rows"
	}
	return &postern.Refusal{
		Code: postern.CodeLimit, Reason: "the limit of " + what + " is reached; the result ends here",
		Hint: "ask for less, or for a task with a higher limit",
	}
}

// beginCopyIn follows the target into the state in which it reads CopyData. There it
// drops Sync, and so whatever Sync is on its way will not be answered; anything else
// would be read as a broken COPY.
func (c *conn) beginCopyIn(e *entry) error {
	for c.q.n > 1 {
		later := c.q.at(1)
		if e.kind != kindExecute || later.kind != kindSync {
			return broken("messages follow a COPY that has not ended")
		}
		c.segment, c.open = later.segment, true
		c.q.put(c.q.drop(1))
	}
	if e.kind == kindExecute {
		c.segment, c.open = e.segment, true
	}
	c.copying = true
	c.signal()
	return nil
}
