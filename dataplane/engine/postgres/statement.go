package postgres

import (
	"context"
	"errors"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/sql"
	pgsql "github.com/posterngate/postern/pkg/sql/postgres"
)

// A statement is a text that was judged and not denied, as this session keeps it. It is
// immutable but for what the target's pump notes of its result.
type statement struct {
	text        string
	adm         *engine.Admission
	facts       *sql.Facts
	catalog     mark // of the one that it was judged by
	own         bool // the client's bytes pass as they came
	masked      bool
	quotes      bool     // its errors and notices may quote what nobody may read
	masking     *masking // of values on their way back, at level result; nil for none
	defines     bool
	alters      bool  // it may change something
	changes     bool  // and the task does not allow everything
	returns     bool  // it may return rows
	turns       bool  // it may begin or end a transaction
	maxAffected int64 // -1 means no bound
	maxRows     int64 // -1 means no bound
	size        int   // roughly how many bytes it keeps

	desc    []byte // the last RowDescription that was checked
	columns []engine.ResultColumn
	plan    *plan  // for its rows; nil without a masking, or while none was checked
	asked   uint64 // the segment in which the client asked for a RowDescription

	like *statement // of whose shape it is, and which has what was noted too; nil where it was judged itself
}

func newStatement(text string, adm *engine.Admission, cat *catalog, keys tokens) (*statement, error) {
	st := &statement{text: text, adm: adm, catalog: cat.mark, own: adm.Own, maxAffected: -1, maxRows: -1}
	if adm.Analysis != nil {
		st.facts, _ = adm.Analysis.Facts().(*sql.Facts)
	}
	if st.facts == nil {
		return nil, errors.New("postgres: an admission without facts")
	}
	if st.size = len(text) + st.facts.Size(); !st.own {
		st.size += len(adm.Forward)
	}
	effect := st.facts.Effect()
	st.defines = effect == postern.EffectDefine || effect == postern.EffectUnknown
	st.alters = effect != postern.EffectRead && effect != postern.EffectNone
	st.changes = st.alters && adm.Decision.Level != postern.LevelNone
	st.returns, st.turns = returns(st.facts), turns(st.facts)
	later := false // something is changed on its way back, whatever the level
	for _, o := range adm.Decision.Obligations {
		switch {
		case o.Table != nil:
			for _, col := range o.Table.Columns {
				st.masked = st.masked || col.Mask != nil
				later = later || col.Mask.Token()
			}
		case o.Blank != "": // met in what is sent
		case o.MaxAffected > 0:
			st.maxAffected = o.MaxAffected
		case o.MaxRows > 0:
			st.maxRows = o.MaxRows
		default:
			return nil, &postern.Refusal{Rule: adm.Decision.Rule, Reason: "the task asks for something that this gateway does not understand"}
		}
	}
	st.quotes = st.masked || (adm.Decision.Level != postern.LevelNone && st.runsCode(cat))
	var err error
	switch level := adm.Decision.Level; {
	case level == postern.LevelResult || later:
		st.masking, err = newMasking(cat.Catalog, st.facts, &adm.Decision, keys)
	case st.masked && level < postern.LevelSource:
		err = errors.New("no level of guarantee holds")
	}
	if err != nil {
		return nil, &postern.Refusal{Rule: adm.Decision.Rule, Reason: "the masks of this task cannot be kept: " + err.Error(), Hint: "tell the operators"}
	}
	return st, nil
}

// runsCode reports whether the statement runs functions or triggers that are the
// resource's own. What they say is theirs to choose.
func (st *statement) runsCode(cat *catalog) bool {
	for i := range st.facts.Statements {
		s := &st.facts.Statements[i]
		for _, f := range s.Functions {
			if f.Schema != "pg_catalog" && f.Schema != "information_schema" {
				return true
			}
		}
		for j := range s.Tables {
			t := &s.Tables[j]
			if rel := cat.Relations[sql.Name{Schema: t.Schema, Name: t.Name}]; t.Target && (rel == nil || rel.HasTriggers) {
				return true
			}
		}
	}
	return false
}

// rule is the obligation about a table, or nil.
func (st *statement) rule(schema, table string) *postern.TableRule {
	for _, o := range st.adm.Decision.Obligations {
		if t := o.Table; t != nil && t.Schema == schema && t.Table == table {
			return t
		}
	}
	return nil
}

// viewed is the obligation about the table that this is the view of, or nil.
func (st *statement) viewed(view sql.Name) *postern.TableRule {
	for _, o := range st.adm.Decision.Obligations {
		if t := o.Table; t != nil && t.View != nil && t.View.Schema == view.Schema && t.View.Name == view.Name {
			return t
		}
	}
	return nil
}

// unmade names a view that a decision reads through and the catalogue does not have;
// nil where it has all.
func unmade(cat *catalog, d *postern.Decision) *postern.View {
	for _, o := range d.Obligations {
		if o.Table != nil && o.Table.View != nil && cat.Relations[sql.Name{Schema: o.Table.View.Schema, Name: o.Table.View.Name}] == nil {
			return o.Table.View
		}
	}
	return nil
}

// uses reports whether the statement was judged as using the table.
func (st *statement) uses(schema, table string) bool {
	for i := range st.facts.Statements {
		for j := range st.facts.Statements[i].Tables {
			if t := &st.facts.Statements[i].Tables[j]; t.Schema == schema && t.Name == table {
				return true
			}
		}
	}
	return false
}

// build makes the Statement for a text, against the catalogue as it is now.
func (e *Engine) build(cat *catalog, names resolution, keys tokens, text string) *engine.Statement {
	return &engine.Statement{
		Text:    text,
		Context: cat.Version + "\x00" + names.key(),
		Analyse: func(ctx context.Context) (engine.Analysis, error) {
			a, err := pgsql.Analyze(ctx, e.cfg.Parser, cat.Catalog, pgsql.Settings{SearchPath: names.path, User: names.user}, text)
			var syntax *sql.SyntaxError
			if errors.As(err, &syntax) {
				return nil, &postern.Refusal{Reason: syntax.Message, Cause: syntax}
			}
			if err != nil {
				return nil, &postern.Refusal{Reason: "the statement could not be analysed safely", Hint: "try it in smaller parts", Cause: err}
			}
			return a, nil
		},
		Meets: func(an engine.Analysis, d *postern.Decision) error {
			facts, ok := an.Facts().(*sql.Facts)
			if !ok {
				return errors.New("nothing is known of it")
			}
			_, err := newMasking(cat.Catalog, facts, d, keys)
			return err
		},
	}
}

// asked is the Statement for a text of the session, against the catalogue as it is now.
func (c *conn) asked(cat *catalog, text string) *engine.Statement {
	st := c.e.build(cat, c.names, c.tokens, text)
	st.Estimate = c.estimate
	return st
}

// doubted is like asked. Where the catalogue does not have a name, and may have it by now, the
// statement is not judged.
func (c *conn) doubted(cat *catalog, text string) *engine.Statement {
	st, sl := c.asked(cat, text), c.e.catalogs.slot(catalogKey(c.terms))
	analyse := st.Analyse
	st.Analyse = func(ctx context.Context) (engine.Analysis, error) {
		an, err := analyse(ctx)
		if err != nil {
			return nil, err
		}
		if facts, ok := an.Facts().(*sql.Facts); ok && facts.Undefined != nil && sl.doubtful() {
			return nil, engine.ErrOutdated
		}
		return an, nil
	}
	return st
}

// prepare has a text judged.
func (c *conn) prepare(ctx context.Context, text string) (*statement, error) {
	cat, err := c.e.catalogs.get(ctx, catalogKey(c.terms), c.s)
	if err != nil {
		return nil, err
	}
	adm, err := c.s.Prepare(ctx, c.doubted(cat, text))
	if errors.Is(err, engine.ErrOutdated) {
		if cat, err = c.e.catalogs.again(ctx, catalogKey(c.terms), c.s); err != nil {
			return nil, err
		}
		adm, err = c.s.Prepare(ctx, c.asked(cat, text))
	}
	if err != nil {
		return nil, err
	}
	if unmade(cat, &adm.Decision) != nil {
		// They may have been made since.
		c.e.catalogs.expire(catalogKey(c.terms))
		if cat, err = c.e.catalogs.get(ctx, catalogKey(c.terms), c.s); err != nil {
			return nil, err
		}
		if adm, err = c.s.Prepare(ctx, c.asked(cat, text)); err != nil {
			return nil, err
		}
		if v := unmade(cat, &adm.Decision); v != nil {
			return nil, &postern.Refusal{
				Rule: adm.Decision.Rule, Reason: "what this task may see at the resource is not made yet", Detail: "missing: view " + v.Name + " in schema " + v.Schema,
				Hint: "try again in a moment; if it stays, tell the operators: postern doctor " + string(c.terms.Task),
			}
		}
	}
	st, err := newStatement(text, adm, cat, c.tokens)
	if err != nil {
		return nil, err
	}
	template := c.template(ctx, st, cat)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.see(st)
	if adm.Decision.Deps.Cacheable() && len(text) <= maxCachedText && st.size <= maxCachedSize {
		c.keepText(st)
		c.keepShape(st, template)
	}
	return st, nil
}

// keepText remembers what was judged for the next time. The caller holds mu.
func (c *conn) keepText(st *statement) {
	if len(c.texts) >= maxTexts {
		clear(c.texts)
	}
	c.texts[st.text] = st
}

// see notes what a statement of the session may do. The caller holds mu.
func (c *conn) see(st *statement) {
	c.quotesSeen = c.quotesSeen || st.quotes
	c.changeSeen = c.changeSeen || st.changes
}

// A session keeps so many texts of so many bytes that it has had judged, and of which no more
// than that is known, which saves a copy and a lookup in the gate for what it sends over and over.
const (
	maxTexts      = 128
	maxCachedText = 2 << 10
	maxCachedSize = 64 << 10
)

// judge finds the statement for a text, perhaps after a Park. Both results are empty
// where it was refused, with the error in ready.no.
func (c clientCore) judge(text []byte) (*statement, pump.Next) {
	if c.ready.st != nil {
		return c.ready.st, pump.Next{}
	}
	if c.ready.no.code != "" {
		return nil, pump.Next{}
	}
	if c.undecided() && c.q.n > 0 { // what is under way may end the transaction
		return nil, c.drain()
	}
	if c.recheck {
		return nil, c.refresh()
	}
	if st := c.texts[string(text)]; st != nil && st.catalog == c.slot.catalog.Load().mark && !c.s.Stale(st.adm) {
		return st, pump.Next{}
	}
	if st := c.ofShape(text); st != nil {
		c.see(st) // it may have been judged in an earlier session
		return st, pump.Next{}
	}
	copied := string(text)
	return nil, c.later(func(ctx context.Context) error {
		st, err := c.prepare(ctx, copied)
		c.ready.st = st
		return err
	})
}

// later parks for something that may be refused.
func (c clientCore) later(fn func(context.Context) error) pump.Next {
	undecided := c.undecided()
	return pump.Next{Park: func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, c.e.limits.Prepare)
		defer cancel()
		err := run.Apart(func() error { return fn(ctx) }) // judging takes a deep stack, waiting for the client none
		if err == nil {
			return nil
		}
		if p := (*run.Panic)(nil); errors.As(err, &p) {
			return err
		}
		if why := context.Cause(c.s.Context()); why != nil { // what came of that is not what the client is to be told
			return why
		}
		r := postern.AsRefusal(err)
		var syntax *sql.SyntaxError
		if r.Cause != nil && !errors.As(err, &syntax) { // which quotes the statement
			c.log.Debug("statement refused", "error", r.Cause)
		}
		if fatal(r) {
			return r
		}
		if undecided && r.Code == postern.CodeUndefined { // but perhaps in this transaction
			r = &undecidedNames
		}
		c.ready.no = errorOf(r, "ERROR")
		if errors.As(err, &syntax) {
			c.ready.no = report{severity: "ERROR", code: "42601", message: syntax.Message, position: syntax.Position}
		}
		return nil
	}}
}

// refresh looks whether the catalogue has changed.
func (c clientCore) refresh() pump.Next {
	return c.later(func(ctx context.Context) error {
		if _, err := c.e.catalogs.get(ctx, catalogKey(c.terms), c.s); err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.recheck = false
		return nil
	})
}

// currently is the catalogue as it is, where st was judged by it; else something is to be done
// first. What is under way in a session has one catalogue in common, so that no queue keeps many:
// what was judged by the next one waits until the target has answered.
func (c clientCore) currently(st *statement, kept bool) (*catalog, pump.Next) {
	if c.recheck {
		return nil, c.refresh()
	}
	cat := c.slot.catalog.Load()
	if st.catalog != cat.mark {
		return nil, c.rejudge(st, kept)
	}
	if c.judgedBy != cat.mark {
		if c.q.others(cat) {
			return nil, c.drain()
		}
		c.judgedBy = cat.mark
	}
	return cat, pump.Next{}
}

// rejudge has a statement judged again, because policy or catalogue have changed. Where
// the target has prepared it already, what may be sent must still be just that.
func (c clientCore) rejudge(st *statement, kept bool) pump.Next {
	delete(c.texts, st.text)
	c.ready.st, c.ready.body = nil, nil
	return c.later(func(ctx context.Context) error {
		again, err := c.prepare(ctx, st.text)
		if err != nil {
			return err
		}
		if kept && again.adm.Forward != st.adm.Forward {
			return stale()
		}
		c.ready.st = again
		return nil
	})
}

// current makes sure that the statement behind an EXECUTE or FETCH was judged by the
// same policy and catalogue as that itself.
func (c clientCore) current(p *prepared, by *statement) (pump.Next, *report) {
	if c.ready.no.code != "" {
		no := c.ready.no
		return pump.Next{}, &no
	}
	if c.ready.body != nil {
		p.st = c.ready.body
		return pump.Next{}, nil
	}
	if p.st.adm.Decision.Version == by.adm.Decision.Version && p.st.catalog == by.catalog {
		return pump.Next{}, nil
	}
	old := p.st
	c.ready.st = by
	return c.later(func(ctx context.Context) error {
		again, err := c.prepare(ctx, old.text)
		if err != nil {
			return err
		}
		if again.adm.Forward != old.adm.Forward || again.adm.Decision.Verdict != old.adm.Decision.Verdict {
			return stale()
		}
		c.ready.body = again
		return nil
	}), nil
}

func stale() error {
	return &postern.Refusal{Code: postern.CodeStale, Reason: "what this task allows has changed since the statement was prepared", Hint: "prepare the statement again"}
}
