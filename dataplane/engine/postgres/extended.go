package postgres

import (
	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
)

// parse judges a statement that is to be prepared. It is admitted when it is executed.
func (c clientCore) parse(msg []byte) (pump.Next, error) {
	m, err := decodeParse(msg[headerLen:])
	if err != nil {
		return pump.Next{}, err
	}
	if r := cut(m.name); r != nil {
		return pump.Next{}, c.refuse(kindParse, r)
	}
	st, want := c.judge(m.text)
	if want.Park != nil {
		return want, nil
	}
	if st == nil {
		if len(m.name) == 0 && !hole.Is("wire-stale-unnamed") {
			c.statements[""] = named[prepared]{segment: c.segment}
		}
		return pump.Next{}, c.refuseWith(kindParse, c.ready.no)
	}
	if !c.terms.Own && !m.each(c.slot.catalog.Load().parameter) {
		return pump.Next{}, c.refuseWith(kindParse, c.denied(st.text, &postern.Refusal{Reason: "a parameter has a type that could run code", Hint: "use a built-in type and cast it in the statement"}))
	}
	size := 0 // a statement without a name makes room for the next one
	if len(m.name) > 0 {
		size = st.size
	}
	if r := c.full(1, size); r != nil {
		return pump.Next{}, c.refuse(kindParse, r)
	}
	e := c.q.get(kindParse)
	e.st, e.unnamed, e.size = st, len(m.name) == 0, st.size
	c.enqueue(e)
	prep := &prepared{st: st}
	prep.noteTypes(m.types)
	c.setStatement(e, string(m.name), prep)
	if st.own {
		c.up.Pass(msg)
	} else {
		c.up.Set(appendParse(c.up.Grow(), string(m.name), st.adm.Forward, m.types))
	}
	c.open = true
	return pump.Next{}, nil
}

// miscounted is a Bind whose parts are not as many as it says: drivers count in 16 bits. The
// message is as long as it says, and so the session goes on, as at the target.
var miscounted = postern.Refusal{Code: postern.CodeProtocol, Reason: "invalid Bind message", Hint: "a statement has at most 65535 parameters: send it in parts"}

// bind keeps the parameters until they are executed. Where people must say yes they are asked here, for
// the target plans what is bound.
func (c clientCore) bind(msg []byte) (pump.Next, error) {
	name, statement, params, err := decodeBind(msg[headerLen:])
	if err != nil {
		return pump.Next{}, c.refuseWith(kindBind, errorOf(&miscounted, "ERROR"))
	}
	if r := cut(name, statement); r != nil {
		return pump.Next{}, c.refuse(kindBind, r)
	}
	prep, certain := c.statements.get(statement, c.segment, c.done)
	switch {
	case !certain:
		return c.drain(), nil
	case prep == nil:
		return pump.Next{}, c.refuseWith(kindBind, undefined('S', string(statement)))
	case c.ready.no.code != "":
		return pump.Next{}, c.refuseWith(kindBind, c.ready.no)
	}
	c.renew(prep)
	if _, want := c.currently(prep.st, true); want.Park != nil { // the target plans it, which runs functions
		return want, nil
	}
	if prep.st.adm.Decision.Verdict == postern.VerdictHold && !c.ready.yes { // and so people are asked first
		if c.q.n > 0 {
			return c.drain(), nil
		}
		c.ready.yes = true
		return c.hold(prep.st, c.bound(params, prep.types)), nil
	}
	p := &c.unnamed
	if len(name) > 0 {
		if r := c.full(1, len(params)); r != nil {
			return pump.Next{}, c.refuse(kindBind, r)
		}
		p = &portal{}
	}
	e := c.q.get(kindBind)
	e.st = prep.st
	c.enqueue(e)
	if err := c.setPortal(e, string(name), p); err != nil {
		return pump.Next{}, err
	}
	p.prep, p.params, p.types = prep, append(p.params[:0], params...), prep.types
	c.up.Pass(msg)
	c.open = true
	return pump.Next{}, nil
}

func (c clientCore) describe(msg []byte) (pump.Next, error) {
	what, name, err := decodeTarget(msg[headerLen:])
	if err != nil {
		return pump.Next{}, err
	}
	if r := cut(name); r != nil {
		return pump.Next{}, c.refuse(kindDescribe, r)
	}
	var prep *prepared
	var certain bool
	if what == 'S' {
		prep, certain = c.statements.get(name, c.segment, c.done)
	} else {
		var p *portal
		if p, certain = c.portals.get(name, c.segment, c.done); p != nil {
			prep = p.prep
		}
	}
	switch {
	case !certain:
		return c.drain(), nil
	case prep == nil:
		return pump.Next{}, c.refuseWith(kindDescribe, undefined(what, string(name)))
	}
	if c.ready.no.code != "" {
		return pump.Next{}, c.refuseWith(kindDescribe, c.ready.no)
	}
	c.renew(prep)
	st := prep.st
	cat, want := c.currently(st, true)
	if want.Park != nil {
		return want, nil
	}
	// What EXECUTE or FETCH returns is what its object returns.
	if body, no, certain := c.body(st); !certain {
		return c.drain(), nil
	} else if no != nil {
		return pump.Next{}, c.refuseWith(kindDescribe, *no)
	} else if body != nil {
		if want, no := c.current(body, st); want.Park != nil {
			return want, nil
		} else if no != nil {
			return pump.Next{}, c.refuseWith(kindDescribe, *no)
		}
		st = body.st
	}
	st.asked = c.segment
	e := c.q.get(kindDescribe)
	e.st, e.catalog = st, cat
	if what == 'S' {
		e.prep = prep
	}
	c.enqueue(e)
	c.up.Pass(msg)
	c.open = true
	return pump.Next{}, nil
}

// askColumns asks for the columns of a portal that the client did not ask for: without
// them nothing of a masked result can pass.
func (c clientCore) askColumns(st *statement, cat *catalog, portal []byte) {
	e := c.q.get(kindDescribe)
	e.st, e.catalog, e.hidden, e.own = st, cat, true, true
	c.enqueue(e)
	up, at := begin(c.up.Grow(), 'D')
	up = append(append(append(up, 'P'), portal...), 0)
	c.up.Set(end(up, at))
}

// execute admits one execution, with the parameters that were bound.
func (c clientCore) execute(msg []byte) (pump.Next, error) {
	name, rows, err := decodeExecute(msg[headerLen:])
	if err != nil {
		return pump.Next{}, err
	}
	if r := cut(name); r != nil {
		return pump.Next{}, c.refuse(kindExecute, r)
	}
	p, certain := c.portals.get(name, c.segment, c.done)
	switch {
	case !certain:
		return c.drain(), nil
	case p == nil:
		return pump.Next{}, c.refuseWith(kindExecute, undefined('P', string(name)))
	}
	if e := p.suspended; e != nil {
		// More rows of an execution that was admitted already.
		p.suspended = nil
		c.enqueue(e)
		c.up.Pass(msg)
		c.open = true
		return pump.Next{}, nil
	}
	prep := p.prep
	c.renew(prep)
	st := prep.st
	guard := st
	body, no, certain := c.body(st)
	switch {
	case !certain, st.turns && c.q.cuts > 0:
		return c.drain(), nil
	case no != nil:
		return pump.Next{}, c.refuseWith(kindExecute, *no)
	case body != nil:
		if want, no := c.current(body, st); want.Park != nil {
			return want, nil
		} else if no != nil {
			return pump.Next{}, c.refuseWith(kindExecute, *no)
		}
		guard = body.st
	}
	if guard.maxAffected >= 0 && rows > 0 {
		// The target makes all changes before the first row, and tells their number with the last.
		return pump.Next{}, c.refuseWith(kindExecute, c.denied(st.text, &postern.Refusal{
			Rule: st.adm.Decision.Rule, Reason: "a statement whose changes are counted must be executed as a whole", Hint: "do not fetch its rows in parts",
		}))
	}
	if want, no := c.settled(st, guard); want.Park != nil {
		return want, nil
	} else if no != nil {
		return pump.Next{}, c.refuseWith(kindExecute, *no)
	}
	e := c.q.get(kindExecute)
	want, no, err := c.admit(st, c.bound(p.params, p.types), e, true)
	if want.Park != nil || no != nil || err != nil {
		c.q.put(e)
		if no != nil {
			err = c.refuseWith(kindExecute, *no)
		}
		return want, err
	}
	if guard.masking != nil && guard.plan == nil && guard.asked != c.segment {
		c.askColumns(guard, e.catalog, name)
	}
	e.st, e.portal, e.bound = guard, p, p.bound
	c.pipeline.note(e, st, guard)
	e.formats = append(e.formats, c.args.results...)
	c.defines(st)
	c.enqueue(e)
	if err := c.objects(e, st); err != nil {
		return pump.Next{}, err
	}
	c.up.Pass(msg)
	c.open = true
	if guard.maxAffected >= 0 {
		// Nothing may follow until the number of changes is known.
		e.wrapped = &wrapped{}
		c.up.Set(appendEmpty(c.up.Grow(), 'H'))
		c.exclusive = true
	}
	return pump.Next{}, nil
}

// bound is what a Bind gives its statement, as it is shown to people and recorded.
func (c *conn) bound(params []byte, types []uint32) engine.Args {
	c.args.set(params)
	c.argTypes = types
	return engine.Args{Formats: c.args.formats, Values: c.args.values, Null: c.argNull, Text: c.argShow}
}

// renew puts what was judged anew for the message at hand in the place of what was before.
func (c clientCore) renew(p *prepared) {
	if c.ready.st != nil && c.ready.st.text == p.st.text {
		p.st = c.ready.st
	}
}

func (c clientCore) closeObject(msg []byte) (pump.Next, error) {
	what, name, err := decodeTarget(msg[headerLen:])
	if err != nil {
		return pump.Next{}, err
	}
	if r := cut(name); r != nil {
		return pump.Next{}, c.refuse(kindClose, r)
	}
	e := c.q.get(kindClose)
	c.enqueue(e)
	if what == 'S' {
		c.setStatement(e, string(name), nil)
	} else if err := c.setPortal(e, string(name), nil); err != nil {
		return pump.Next{}, err
	}
	c.up.Pass(msg)
	c.open = true
	return pump.Next{}, nil
}

func (c clientCore) sync(msg []byte) (pump.Next, error) {
	if c.skip == skipLocal {
		c.skip = skipNone
		c.reply = appendReady(c.reply, c.status)
		return pump.Next{}, nil
	}
	if c.pipeline.commits(c.status) && c.q.n > 0 {
		return c.drain(), nil
	}
	c.skip = skipNone
	e := c.q.get(kindSync)
	c.enqueue(e)
	c.up.Pass(msg)
	c.closeSegment()
	return pump.Next{}, nil
}
