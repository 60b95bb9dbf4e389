package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/wire"
)

// skip says why messages of the client are dropped until its next Sync.
type skip uint8

const (
	skipNone   skip = iota
	skipLocal       // the target knows of nothing: the Sync is answered here
	skipTarget      // the target failed and skips too: the Sync is sent on
)

// A clientCore is the way from the client to the target. What it admits it passes on as
// it came, in spans; what was refused it replaces by something that fails at the target
// in the same way, so that both sides agree on the transaction.
type clientCore struct{ *conn }

// Step implements pump.Core.
func (c clientCore) Step(in []byte) (n int, want pump.Next, err error) {
	n, want, err = c.step(in)
	return n, want, c.flush(err)
}

func (c clientCore) step(in []byte) (n int, want pump.Next, err error) {
	c.mu.Lock()
	defer c.mu.Unlock() // after a panic too, or nobody could end the session
	c.activity++
	for err == nil && want.Park == nil && n < len(in) {
		rest := in[n:]
		if c.stream > 0 {
			k := min(len(rest), c.stream)
			err = c.copyPart(rest[:k])
			n += k
			continue
		}
		if c.unread != nil {
			n += c.unread.take(rest)
			if c.unread.left == 0 {
				err = c.refuseUnread()
			}
			continue
		}
		typ, size, herr := next(rest)
		switch {
		case herr != nil:
			err = herr
		case size == 0:
			want.Bytes = headerLen
		case len(rest) < size && typ == 'd' && size > wire.Large && c.early():
			want = c.drain()
		case len(rest) < size && typ == 'd' && size > wire.Large:
			n += len(rest)
			err = c.copyLarge(rest, size)
		case c.tooLong(typ, size):
			err = c.overLimit()
		case size > c.e.limits.Message:
			n += c.pass(typ, size, rest)
		case len(rest) < size:
			want.Bytes = size
		default:
			if want, err = c.message(typ, rest[:size]); err == nil && want.Park == nil {
				c.ready = ready{}
				n += size
			}
			continue
		}
		if want.Bytes > 0 {
			break
		}
	}
	return n, want, err
}

// flush sends what the step gathered: first what the client is told, then what the
// target is asked.
func (c clientCore) flush(err error) error {
	if len(c.reply) > 0 {
		if werr := c.out.insert(c.reply); err == nil {
			err = werr
		}
		c.reply = c.reply[:0]
	}
	if up := c.up.Bytes(); len(up) > 0 {
		if _, werr := c.target.Write(up); werr != nil && err == nil {
			err = lost(werr)
		}
	}
	c.up.Reset()
	return err
}

// message deals with one whole message. It is called again with the same message after
// a Park.
func (c clientCore) message(typ byte, msg []byte) (pump.Next, error) {
	switch typ {
	case 'X':
		return pump.Next{}, pump.ErrDone
	case 'd', 'c', 'f':
		if c.early() {
			return c.drain(), nil
		}
		return pump.Next{}, c.copyMessage(typ, msg)
	}
	if c.copying {
		if typ == 'S' || typ == 'H' {
			return pump.Next{}, nil // the target ignores them too
		}
		return pump.Next{}, broken("a COPY is under way")
	}
	if c.skip != skipNone && typ != 'S' {
		return pump.Next{}, nil
	}
	if c.cancelling || (c.exclusive && c.q.n > 0) || c.q.n >= c.e.limits.Pipeline || c.q.size > c.e.limits.Underway {
		return c.drain(), nil
	}
	if c.q.cuts > 0 && !c.open {
		return c.drain(), nil
	}
	c.exclusive = false
	if c.poison {
		c.sendPoison()
	}
	switch typ {
	case 'Q':
		return c.query(msg)
	case 'P':
		return c.parse(msg)
	case 'B':
		return c.bind(msg)
	case 'D':
		return c.describe(msg)
	case 'E':
		return c.execute(msg)
	case 'C':
		return c.closeObject(msg)
	case 'S':
		return c.sync(msg)
	case 'H':
		c.up.Pass(msg)
		return pump.Next{}, nil
	case 'F':
		if hole.Is("wire-function-call") {
			c.enqueue(c.q.get(kindQuery))
			c.up.Pass(msg)
			c.closeSegment()
			return pump.Next{}, nil
		}
		body := wire.Read(msg[headerLen:])
		return pump.Next{}, c.refuseWith(kindQuery, c.denied(fmt.Sprintf("function call %d", body.Uint32()), &postern.Refusal{
			Reason: "function calls by number are not allowed", Hint: "call the function in a statement",
		}))
	}
	return pump.Next{}, broken("unexpected message of the client")
}

// query deals with a simple query.
func (c clientCore) query(msg []byte) (pump.Next, error) {
	text, err := queryText(msg[headerLen:])
	if err != nil {
		return pump.Next{}, err
	}
	if c.open && c.q.n > 0 {
		return c.drain(), nil
	}
	st, want := c.judge(text)
	if want.Park != nil {
		return want, nil
	}
	if st == nil {
		return pump.Next{}, c.refuseWith(kindQuery, c.ready.no)
	}
	prep, no, certain := c.body(st)
	switch {
	case !certain, st.turns && c.q.cuts > 0:
		return c.drain(), nil
	case no != nil:
		return pump.Next{}, c.refuseWith(kindQuery, *no)
	}
	if r := c.full(namesOf(st), st.size); r != nil {
		return pump.Next{}, c.refuse(kindQuery, r)
	}
	guard := st
	if prep != nil {
		if want, no := c.current(prep, st); want.Park != nil {
			return want, nil
		} else if no != nil {
			return pump.Next{}, c.refuseWith(kindQuery, *no)
		}
		guard = prep.st
	}
	if guard.maxAffected >= 0 && len(st.facts.Statements) > 1 {
		return pump.Next{}, c.refuseWith(kindQuery, c.denied(st.text, &postern.Refusal{
			Rule: st.adm.Decision.Rule, Reason: "a statement whose changes are counted cannot share a query with others", Hint: "send it as a query of its own",
		}))
	}
	if want, no := c.settled(st, guard); want.Park != nil {
		return want, nil
	} else if no != nil {
		return pump.Next{}, c.refuseWith(kindQuery, *no)
	}
	e := c.q.get(kindQuery)
	want, no2, err := c.admit(st, engine.Args{}, e, false)
	if want.Park != nil || no2 != nil || err != nil {
		c.q.put(e)
		if no2 != nil {
			err = c.refuseWith(kindQuery, *no2)
		}
		return want, err
	}
	e.st, e.size = guard, st.size
	c.pipeline.note(e, st, guard)
	c.defines(st)
	c.enqueue(e)
	if err := c.objects(e, st); err != nil {
		return pump.Next{}, err
	}
	c.setStatement(e, "", nil) // as at the target, whether or not the query succeeds
	e.changes = e.changes[:len(e.changes)-1]
	switch {
	case guard.maxAffected >= 0, e.cut && guard.alters && len(st.facts.Statements) == 1:
		c.sendWrapped(e, st)
	case st.own:
		c.up.Pass(msg)
	default:
		c.up.Set(appendQuery(c.up.Grow(), st.adm.Forward))
	}
	c.closeSegment()
	return pump.Next{}, nil
}

// enqueue says that e is about to be sent.
func (c *conn) enqueue(e *entry) {
	e.segment = c.segment
	c.q.push(e)
}

// closeSegment ends a segment: what follows is not skipped if something in it fails.
func (c *conn) closeSegment() {
	c.segment++
	c.open, c.pipeline = false, pipeline{}
}

// admit asks for one execution of st. Exactly one of the results is set where the
// execution may not go ahead now.
func (c clientCore) admit(st *statement, args engine.Args, e *entry, kept bool) (pump.Next, *report, error) {
	if c.ready.no.code != "" {
		no := c.ready.no
		return pump.Next{}, &no, nil
	}
	cat, want := c.currently(st, kept)
	if want.Park != nil {
		return want, nil, nil
	}
	e.catalog = cat
	if st.adm.Waits && !c.ashore {
		c.ashore = true
		return pump.Next{Park: proceed, Ashore: true}, nil, nil
	}
	err := c.s.Admit(st.adm, args, &e.flow)
	switch {
	case err == nil:
		return pump.Next{}, nil, nil
	case errors.Is(err, engine.ErrStale):
		if c.ready.tries++; c.ready.tries > maxTries {
			no := errorOf(&postern.Refusal{Code: postern.CodeStale, Reason: "policy keeps changing", Hint: "try again"}, "ERROR")
			return pump.Next{}, &no, nil
		}
		return c.rejudge(st, kept), nil, nil
	case errors.Is(err, engine.ErrHold):
		if c.q.n > 0 {
			return c.drain(), nil, nil
		}
		return c.hold(st, args), nil, nil
	}
	r := postern.AsRefusal(err)
	if fatal(r) {
		return pump.Next{}, nil, r
	}
	no := errorOf(r, "ERROR")
	return pump.Next{}, &no, nil
}

// maxTries is how often one execution is judged anew because policy changed under it.
const maxTries = 3

// hold waits for people, outside of the step, and goes on reading the client.
func (c clientCore) hold(st *statement, args engine.Args) pump.Next {
	c.ready.st = st
	return pump.Next{Watch: gaveUp, Park: func(ctx context.Context) error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		c.setHold(cancel)
		err := c.s.Await(ctx, st.adm, args, c.progress)
		c.setHold(nil)
		if err == nil {
			return nil
		}
		if errors.Is(context.Cause(ctx), errCancelled) {
			err = errCancelled
		}
		r := postern.AsRefusal(err)
		if fatal(r) {
			return r
		}
		c.ready.no = errorOf(r, "ERROR")
		return nil
	}}
}

// errCancelled is the client's own wish.
var errCancelled = &postern.Refusal{Code: postern.CodeCancelled, Reason: "canceling statement due to user request"}

func (c *conn) setHold(cancel context.CancelCauseFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holding = cancel
	c.activity++
}

// progress shows a text to the client while it waits.
func (c *conn) progress(text string) {
	if err := c.out.insert(notice(text)); err != nil {
		c.stop(err)
	}
}

// gaveUp reports whether the client said goodbye behind the message that it waits for.
func gaveUp(unread []byte) bool {
	for {
		typ, size, err := next(unread)
		if err != nil || typ == 'X' {
			return true
		}
		if size == 0 || len(unread) < size {
			return false
		}
		unread = unread[size:]
	}
}

// drain waits until the target has answered everything and no cancel is on its way.
func (c clientCore) drain() pump.Next {
	if c.open {
		c.up.Set(appendEmpty(c.up.Grow(), 'H'))
	}
	return pump.Next{Watch: gaveUp, Park: func(ctx context.Context) error {
		for {
			c.mu.Lock()
			drained := (c.q.n == 0 && !c.cancelling) || c.copying
			c.mu.Unlock()
			if drained {
				return nil
			}
			select {
			case <-c.wake:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}}
}
