package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/test/wait"
)

// TestCatalogIsComparedBeforeItIsRead changes the target in every way that the catalogue
// would show, and in ways that it would not.
func TestCatalogIsComparedBeforeItIsRead(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `
		DROP SCHEMA IF EXISTS cat, cat2 CASCADE; CREATE SCHEMA cat;
		CREATE TABLE cat.t (id int, a text, b text); CREATE TABLE cat.child (id int, a text, b text);
		CREATE FUNCTION cat.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
		CREATE FUNCTION cat.trig() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`)
	t.Cleanup(func() { shared.pg.SQL(t, `DROP SCHEMA IF EXISTS cat, cat2 CASCADE`) })
	h := newHouse(t)
	_ = h.connect(t, "")
	s := h.door.Last()
	key := catalogKey(s.Terms())
	get := func() *catalog {
		t.Helper()
		h.engine.catalogs.expire(key)
		c, err := h.engine.catalogs.get(testContext(t), key, s)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	before := get()
	for _, change := range []string{
		`CREATE TABLE cat.new (id int)`, `ALTER TABLE cat.t RENAME a TO c; ALTER TABLE cat.t RENAME b TO a`, `ALTER TABLE cat.t ADD d int`,
		`ALTER TABLE cat.t DROP d`, `ALTER TABLE cat.t ALTER c TYPE varchar(7)`, `ALTER TABLE cat.child RENAME b TO d; ALTER TABLE cat.child RENAME a TO b; ALTER TABLE cat.child RENAME d TO c; ALTER TABLE cat.child RENAME b TO a`,
		`ALTER TABLE cat.child ALTER c TYPE varchar(7), ALTER a TYPE text; ALTER TABLE cat.child INHERIT cat.t`, `ALTER TABLE cat.child NO INHERIT cat.t`,
		`ALTER FUNCTION cat.f() VOLATILE SECURITY DEFINER`, `CREATE TRIGGER tr BEFORE INSERT ON cat.t FOR EACH ROW EXECUTE FUNCTION cat.trig()`,
		`DROP TRIGGER tr ON cat.t`, `ALTER TABLE cat.child ADD PRIMARY KEY (id)`, `CREATE RULE ru AS ON INSERT TO cat.t DO ALSO SELECT 1`, `CREATE TYPE cat.mood AS ENUM ('x')`, `CREATE DOMAIN cat.dom AS int`,
		`CREATE OPERATOR cat.@@@ (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int)`, `CREATE FUNCTION cat.level(cat.mood) RETURNS int LANGUAGE sql AS 'SELECT 1'`, `CREATE CAST (cat.mood AS int) WITH FUNCTION cat.level`,
		`CREATE VIEW cat.v AS SELECT id FROM cat.t`, `ALTER SCHEMA cat RENAME TO cat2`, `DROP TABLE cat2.new`,
	} {
		shared.pg.SQL(t, change)
		after := get()
		if after == before || after.Version == before.Version {
			t.Errorf("%s was not noticed", change)
		}
		before = after
	}
	shared.pg.SQL(t, `ANALYZE cat2.t`) // forgets that there was a child
	before = get()
	beside, err := pgx.Connect(testContext(t), shared.pg.SuperDSN("")) // so that what is temporary is still there
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = beside.Close(context.Background()) }()
	for _, nothing := range []string{
		`INSERT INTO cat2.t SELECT i FROM generate_series(1, 1000) i`, `ANALYZE cat2.t`, `VACUUM cat2.t`, `SELECT 1`, `CREATE TEMP TABLE x AS SELECT 1 AS a`, `CREATE TEMP VIEW y AS SELECT 1`,
		`CREATE TRIGGER tr BEFORE INSERT ON x FOR EACH ROW EXECUTE FUNCTION cat2.trig()`,
	} {
		_ = h.connect(t, "") // a session of its own, so that what was sent is of it alone
		s = h.door.Last()
		if _, err := beside.Exec(testContext(t), nothing); err != nil {
			t.Fatal(err)
		}
		if after := get(); after != before {
			t.Errorf("%s made another catalogue", nothing)
		}
		if !s.Sent(askState) || s.Sent(askColumns) {
			t.Errorf("%s: the whole catalogue was read", nothing)
		}
	}
}

// cutOff is a session whose target cannot be reached.
type cutOff struct {
	engine.Session
	dials atomic.Int32
}

func (c *cutOff) Dial(context.Context) (net.Conn, error) {
	c.dials.Add(1)
	return nil, errors.New("no route to host")
}

// ageCatalog has the catalogue of the last session's database read that long ago. Below zero it is
// not compared for as long, for tests of what it does not know: a machine may stand still.
func (h *house) ageCatalog(by time.Duration) {
	sl := h.engine.catalogs.slot(catalogKey(h.door.Last().Terms()))
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.read, sl.failed = time.Now().Add(-by), time.Time{}
}

// TestCatalogOutlivesATargetThatIsBusy: what could not be compared is believed for a while,
// but not what was found to be out of date, and not for ever.
func TestCatalogOutlivesATargetThatIsBusy(t *testing.T) {
	start(t)
	h := newHouse(t)
	_ = h.connect(t, "")
	s := &cutOff{Session: h.door.Last()}
	key := catalogKey(s.Terms())
	get := func() (*catalog, error) { return h.engine.catalogs.get(testContext(t), key, s) }
	h.ageCatalog(0)
	fresh, err := get()
	if err != nil || s.dials.Load() != 0 {
		t.Fatalf("a fresh one: %v, %d dials", err, s.dials.Load())
	}
	h.ageCatalog(catalogDue + time.Second)
	for range 3 {
		if c, err := get(); c != fresh || err != nil {
			t.Errorf("one that is due: %v", err)
		}
	}
	if n := s.dials.Load(); n != 1 {
		t.Errorf("it was tried %d times at once", n)
	}
	h.ageCatalog(catalogAge)
	if _, err := get(); err == nil {
		t.Error("one that is too old is believed")
	}
	h.ageCatalog(0)
	h.engine.catalogs.expire(key)
	if _, err := get(); err == nil {
		t.Error("one that was found to be out of date is believed")
	}
}

// TestCatalogKnowsExtensions shows that what an extension has brought as compiled code is
// as good as built in, and that what users define is not.
func TestCatalogKnowsExtensions(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `DROP SCHEMA IF EXISTS ext CASCADE; CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext;
		CREATE TABLE ext.t (b int, a int, c ext.citext, PRIMARY KEY (a, b));
		CREATE FUNCTION ext.mine(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
		CREATE OPERATOR ext.=== (FUNCTION = ext.mine, LEFTARG = int, RIGHTARG = int);
		CREATE FUNCTION ext.same(ext.citext, ext.citext) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true';
		CREATE OPERATOR ext.=== (FUNCTION = ext.same, LEFTARG = ext.citext, RIGHTARG = ext.citext);
		ALTER EXTENSION citext ADD OPERATOR ext.=== (ext.citext, ext.citext)`)
	t.Cleanup(func() { shared.pg.SQL(t, `DROP SCHEMA ext CASCADE`) })
	h := newHouse(t)
	_ = h.connect(t, "")
	s := h.door.Last()
	h.engine.catalogs.expire(catalogKey(s.Terms()))
	c, err := h.engine.catalogs.get(testContext(t), catalogKey(s.Terms()), s)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Types[sql.Name{Schema: "ext", Name: "citext"}].System {
		t.Error("citext is not known as compiled code of an extension")
	}
	equal := c.Operators[sql.Name{Schema: "ext", Name: "="}]
	if len(equal) != 1 || !equal[0].System {
		t.Errorf("= of citext: %+v", equal)
	}
	for _, o := range c.Operators[sql.Name{Schema: "ext", Name: "==="}] {
		if o.System {
			t.Errorf("an operator of users is as good as built in: %+v", o)
		}
	}
	if key := c.Relations[sql.Name{Schema: "ext", Name: "t"}].Key; len(key) != 2 || key[0] != "b" || key[1] != "a" {
		t.Errorf("primary key %v", key)
	}
}

// TestCatalogKnowsCasts shows that casts of users are known by the types that they are of,
// by what is made of these, and by the functions that take or return them; and that a client
// may not bring a value of such a type.
func TestCatalogKnowsCasts(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `DROP SCHEMA IF EXISTS casts CASCADE; DROP EXTENSION IF EXISTS citext CASCADE; CREATE SCHEMA casts; CREATE EXTENSION citext SCHEMA casts;
		CREATE TYPE casts.grade AS ENUM ('a', 'b'); CREATE TYPE casts.plain AS ENUM ('a', 'b'); CREATE DOMAIN casts.final AS casts.grade; CREATE DOMAIN casts.last AS casts.final[];
		CREATE TABLE casts.t (g casts.grade);
		CREATE FUNCTION casts.points(casts.grade) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'; CREATE CAST (casts.grade AS int) WITH FUNCTION casts.points AS IMPLICIT;
		CREATE FUNCTION casts.sum(casts.t) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'; CREATE CAST (casts.t AS int) WITH FUNCTION casts.sum;
		CREATE CAST (text AS casts.plain) WITH INOUT AS IMPLICIT;
		CREATE FUNCTION casts.best(int, OUT casts.last, OUT int) LANGUAGE sql AS 'SELECT NULL::casts.last, 1'`)
	t.Cleanup(func() { shared.pg.SQL(t, `DROP SCHEMA casts CASCADE`) })
	h := newHouse(t)
	w := h.wire(t)
	s := h.door.Last()
	h.engine.catalogs.expire(catalogKey(s.Terms()))
	c, err := h.engine.catalogs.get(testContext(t), catalogKey(s.Terms()), s)
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) sql.Name { return sql.Name{Schema: "casts", Name: name} }
	points, sum := in("points"), in("sum")
	want := map[sql.Name][]sql.Name{
		in("grade"): {points}, in("_grade"): {points}, in("final"): {points}, in("_final"): {points}, in("last"): {points}, in("_last"): {points},
		in("t"): {sum}, in("_t"): {sum},
	}
	if !reflect.DeepEqual(c.Casts, want) {
		t.Errorf("casts: %v", c.Casts)
	}
	for name, want := range map[string][]sql.Name{"points": {points}, "sum": {sum}, "best": {points}, "citext_eq": nil} {
		if got := c.Functions[in(name)]; len(got) != 1 || !slices.Equal(got[0].Casts, want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, want := range map[string]string{"plain": "1 Z:I", "grade": "E:42501 Z:I", "_grade": "E:42501 Z:I"} {
		if got := w.say(1, &pgproto3.Parse{Query: "select $1", ParameterOIDs: []uint32{c.Types[in(name)].OID}}, sync_); got != want {
			t.Errorf("a parameter of %s: %s, not %s", name, got, want)
		}
	}
}

// TestCatalogKnowsArrays: an array is known by its elements, and not by its name, which may be that of
// an array of something else with one more underscore, and is cut short where it is long.
func TestCatalogKnowsArrays(t *testing.T) {
	start(t)
	long := strings.Repeat("l", 63)
	shared.pg.SQL(t, `DROP SCHEMA IF EXISTS arrays CASCADE; CREATE SCHEMA arrays; CREATE TYPE arrays._x AS ENUM ('a');
		CREATE DOMAIN arrays.x AS int CHECK (VALUE > 0); CREATE TYPE arrays.`+long+` AS ENUM ('a')`)
	t.Cleanup(func() { shared.pg.SQL(t, `DROP SCHEMA arrays CASCADE`) })
	h := newHouse(t)
	w := h.wire(t)
	for of, want := range map[string]string{"x": "E:42501 Z:I", long: "1 Z:I", "_x": "1 Z:I"} {
		oid, err := strconv.ParseUint(shared.pg.SQL(t, `SELECT typarray FROM pg_type WHERE typnamespace = 'arrays'::regnamespace AND typname = '`+of+`'`)[0][0], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.say(1, &pgproto3.Parse{Query: "select $1", ParameterOIDs: []uint32{uint32(oid)}}, sync_); got != want {
			t.Errorf("a parameter that is an array of %s: %s, not %s", of, got, want)
		}
	}
}

// TestCatalogKnowsTriggersOfPartitions: a change of a table fires what one of its partitions alone has.
func TestCatalogKnowsTriggersOfPartitions(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `DROP SCHEMA IF EXISTS part CASCADE; CREATE SCHEMA part; CREATE TABLE part.t (a int, b int) PARTITION BY LIST (a);
		CREATE TABLE part.one PARTITION OF part.t FOR VALUES IN (1) PARTITION BY LIST (b); CREATE TABLE part.leaf PARTITION OF part.one DEFAULT; CREATE TABLE part.two PARTITION OF part.t FOR VALUES IN (2);
		CREATE FUNCTION part.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER f BEFORE INSERT ON part.leaf FOR EACH ROW EXECUTE FUNCTION part.f()`)
	t.Cleanup(func() { shared.pg.SQL(t, `DROP SCHEMA part CASCADE`) })
	h := newHouse(t)
	_ = h.connect(t, "")
	s := h.door.Last()
	h.engine.catalogs.expire(catalogKey(s.Terms()))
	c, err := h.engine.catalogs.get(testContext(t), catalogKey(s.Terms()), s)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"leaf": true, "one": true, "t": true, "two": false} {
		if got := c.Relations[sql.Name{Schema: "part", Name: name}].HasTriggers; got != want {
			t.Errorf("%s has triggers: %v", name, got)
		}
	}
}

// TestNothingPreparedKeepsACatalogue: what is defined around the gateway makes a catalogue each
// time, and what a session has prepared, declared or left half read by each of them keeps none.
func TestNothingPreparedKeepsACatalogue(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `DROP SCHEMA IF EXISTS many CASCADE; CREATE SCHEMA many; CREATE TABLE many.t (id int); INSERT INTO many.t SELECT generate_series(1, 3); GRANT ALL ON SCHEMA many TO app; GRANT SELECT ON many.t TO app`)
	t.Cleanup(func() { shared.pg.SQL(t, `DROP SCHEMA many CASCADE`) })
	h := newHouse(t)
	w := h.wire(t)
	key := catalogKey(h.door.Last().Terms())
	slot := h.engine.catalogs.slot(key)
	if got := w.say(1, &pgproto3.Query{String: "BEGIN"}); got != "C:BEGIN Z:T" {
		t.Fatal(got)
	}
	const changes = 8
	marks := map[mark]bool{}
	for i := range changes {
		shared.pg.SQL(t, fmt.Sprintf(`CREATE TABLE many.a%d (id int)`, i))
		h.engine.catalogs.expire(key)
		name := fmt.Sprintf("s%d", i)
		got := w.say(1, parse(name, fmt.Sprintf("SELECT id + %d FROM many.t", i)), describe('S', name), bind(name, name), execute(name, 1), sync_) +
			w.say(1, &pgproto3.Query{String: fmt.Sprintf("PREPARE p%d AS SELECT id - %d FROM many.t", i, i)}) +
			w.say(1, &pgproto3.Query{String: fmt.Sprintf("DECLARE c%d CURSOR FOR SELECT id * %d FROM many.t", i, i)})
		if want := fmt.Sprintf("1 t T 2 D:%d s Z:TC:PREPARE Z:TC:DECLARE CURSOR Z:T", 1+i); got != want {
			t.Fatalf("after change %d: %s, not %s", i, got, want)
		}
		marks[slot.catalog.Load().mark] = true
	}
	if len(marks) != changes {
		t.Fatalf("%d changes made %d catalogues", changes, len(marks))
	}
	wait.For(t, "the catalogue of now is the only one", func() bool {
		runtime.GC()
		n := 0
		for m := range marks {
			if m.Value() != nil {
				n++
			}
		}
		return n == 1
	})
	got := w.say(1, execute("s0", 0), bind("", "s0"), execute("", 0), sync_) + w.say(1, &pgproto3.Query{String: "EXECUTE p0"}) + w.say(1, &pgproto3.Query{String: "FETCH 1 FROM c0"})
	if want := "D:2 D:3 C:SELECT 2 2 D:1 D:2 D:3 C:SELECT 3 Z:TT D:1 D:2 D:3 C:SELECT 3 Z:TT D:0 C:FETCH 1 Z:T"; got != want {
		t.Errorf("what was prepared by the first: %s, not %s", got, want)
	}
}

// TestADescriptionIsJudgedAnew: what was prepared under an earlier catalogue is not described
// by what was judged then.
func TestADescriptionIsJudgedAnew(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `DROP SCHEMA IF EXISTS anew CASCADE; CREATE SCHEMA anew; CREATE TABLE anew.t (id int); GRANT USAGE ON SCHEMA anew TO app; GRANT SELECT ON anew.t TO app`)
	t.Cleanup(func() { shared.pg.SQL(t, `DROP SCHEMA anew CASCADE`) })
	h := newHouse(t)
	var judged atomic.Int32
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(text string, facts any) postern.Decision {
			d := postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
			if f := facts.(*sql.Facts); strings.Contains(text, "anew.t") {
				judged.Add(1)
				if !f.Complete || f.Statements[0].Tables[0].Kind != sql.KindTable {
					d.Verdict = postern.VerdictDeny
				}
			}
			return d
		}
	})
	w := h.wire(t)
	if got := w.say(2, parse("s", "SELECT id FROM anew.t"), sync_, bind("p", "s"), describe('S', "s"), describe('P', "p"), sync_); got != "1 Z:I 2 t T T Z:I" || judged.Load() != 1 {
		t.Fatalf("%s, judged %d times", got, judged.Load())
	}
	key := catalogKey(h.door.Last().Terms())
	shared.pg.SQL(t, `ALTER TABLE anew.t RENAME TO before; CREATE VIEW anew.t AS SELECT id FROM anew.before; GRANT SELECT ON anew.t TO app`)
	h.engine.catalogs.expire(key)
	if got := w.say(1, &pgproto3.Query{String: "SELECT 17"}); got != "T D:17 C:SELECT 1 Z:I" {
		t.Fatal(got)
	}
	if got := w.say(1, describe('S', "s"), sync_); got != "E:42501 Z:I" || judged.Load() != 2 {
		t.Errorf("the statement: %s, judged %d times", got, judged.Load())
	}
	if got := w.say(1, bind("p", "s"), describe('P', "p"), sync_); got != "E:42501 Z:I" {
		t.Errorf("its portal: %s", got)
	}
}

// TestABindIsJudgedAnew: to bind is to plan, and planning runs functions.
func TestABindIsJudgedAnew(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `DROP SCHEMA IF EXISTS bound CASCADE; CREATE SCHEMA bound; CREATE SEQUENCE bound.ran; GRANT ALL ON SCHEMA bound TO app; GRANT ALL ON bound.ran TO app;
		CREATE FUNCTION bound.f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'`)
	t.Cleanup(func() { shared.pg.SQL(t, `DROP SCHEMA bound CASCADE`) })
	h := newHouse(t)
	var closed atomic.Bool
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(text string, _ any) postern.Decision {
			if closed.Load() && strings.Contains(text, "bound.f") {
				return postern.Decision{Reason: "not this one", Rule: "t/permit"}
			}
			return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
		}
	})
	w := h.wire(t)
	if got := w.say(2, parse("s", "SELECT bound.f(1)"), sync_, bind("", "s"), execute("", 0), sync_); got != "1 Z:I 2 D:1 C:SELECT 1 Z:I" {
		t.Fatal(got)
	}
	shared.pg.SQL(t, `ALTER FUNCTION bound.f RENAME TO g;
		CREATE FUNCTION bound.f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN nextval(''bound.ran''); END'`)
	closed.Store(true)
	h.engine.catalogs.expire(catalogKey(h.door.Last().Terms()))
	if got := w.say(1, &pgproto3.Query{String: "SELECT 17"}); got != "T D:17 C:SELECT 1 Z:I" {
		t.Fatal(got)
	}
	if got := w.say(1, bind("", "s"), execute("", 0), sync_); !strings.HasSuffix(got, "E:42501 Z:I") {
		t.Error(got)
	}
	if ran := shared.pg.SQL(t, "SELECT is_called FROM bound.ran")[0][0]; ran != "false" && ran != "f" {
		t.Errorf("a function that is not permitted has run: %s", ran)
	}
}

// TestABindIsHeld: nor does the target plan what people have not said yes to, for which they are asked
// once.
func TestABindIsHeld(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `DROP SCHEMA IF EXISTS heldup CASCADE; CREATE SCHEMA heldup; CREATE SEQUENCE heldup.ran; GRANT ALL ON SCHEMA heldup TO app; GRANT ALL ON heldup.ran TO app;
		CREATE FUNCTION heldup.f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN nextval(''heldup.ran''); END'`)
	t.Cleanup(func() { shared.pg.SQL(t, `DROP SCHEMA heldup CASCADE`) })
	h := newHouse(t)
	ran := func() string { return shared.pg.SQL(t, "SELECT is_called FROM heldup.ran")[0][0] }
	var asked atomic.Int32
	var no atomic.Bool
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(text string, _ any) postern.Decision {
			d := postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
			if strings.Contains(text, "heldup.f") {
				d.Verdict = postern.VerdictHold
			}
			return d
		}
		p.Await = func(context.Context, func(string)) error {
			asked.Add(1)
			if ran() != "f" {
				t.Error("it was planned before people had answered")
			}
			if no.Load() {
				return &postern.Refusal{Code: postern.CodeCancelled, Reason: "bob said no"}
			}
			return nil
		}
	})
	w := h.wire(t)
	no.Store(true)
	if got := w.say(2, parse("s", "SELECT heldup.f(1)"), sync_, bind("", "s"), execute("", 0), sync_); got != "1 Z:I E:57014 Z:I" || ran() != "f" {
		t.Errorf("after a no: %s, planned %s", got, ran())
	}
	no.Store(false)
	if got := w.say(1, bind("", "s"), execute("", 0), sync_); got != "2 D:1 C:SELECT 1 Z:I" || asked.Load() != 2 {
		t.Errorf("after a yes: %s, asked %d times", got, asked.Load())
	}
}

// TestIdleSessionsKeepNoCatalogue: what a session has had judged by a catalogue of before goes
// while it does nothing.
func TestIdleSessionsKeepNoCatalogue(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `DROP SCHEMA IF EXISTS idle CASCADE; CREATE SCHEMA idle; GRANT ALL ON SCHEMA idle TO app`)
	t.Cleanup(func() { shared.pg.SQL(t, `DROP SCHEMA idle CASCADE`) })
	h := newHouse(t)
	h.door.Terms(func(tm *engine.Terms) { tm.Idle = 8 * time.Second })
	idle, busy := h.wire(t), h.wire(t)
	if got := idle.say(1, &pgproto3.Query{String: "SELECT 1"}); got != "T D:1 C:SELECT 1 Z:I" {
		t.Fatal(got)
	}
	before := h.engine.catalogs.slot(catalogKey(h.door.Last().Terms())).catalog.Load().mark
	if got := busy.say(2, &pgproto3.Query{String: "CREATE TABLE idle.t (id int)"}, &pgproto3.Query{String: "SELECT 2"}); got != "C:CREATE TABLE Z:I T D:2 C:SELECT 1 Z:I" {
		t.Fatal(got)
	}
	wait.For(t, "the catalogue of before is gone", func() bool {
		runtime.GC()
		return before.Value() == nil
	})
	if got := idle.say(1, &pgproto3.Query{String: "SELECT 1"}); got != "T D:1 C:SELECT 1 Z:I" {
		t.Errorf("the idle session: %s", got)
	}
}
