package postgres

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

func denyUndefined(_ string, facts any) postern.Decision {
	switch f := facts.(*sql.Facts); {
	case f.Undefined != nil:
		return postern.Decision{Reason: f.Incomplete, Rule: "t/undefined", Undefined: f.Undefined.Kind}
	case !f.Complete:
		return postern.Decision{Reason: f.Incomplete, Rule: "t/facts"}
	}
	return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
}

// late is a house whose target has an empty schema of that name, and a client of it.
func late(t *testing.T) (*house, *wireClient) {
	t.Helper()
	start(t)
	shared.pg.SQL(t, "drop schema if exists late cascade; create schema late; grant all on schema late to app")
	t.Cleanup(func() { shared.pg.SQL(t, "drop schema late cascade") })
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) { p.Decide = denyUndefined })
	return h, h.wire(t)
}

// TestUndefinedNames: what does not exist is told by the target's own codes, once it has been
// looked for there; what others have defined meanwhile is found.
func TestUndefinedNames(t *testing.T) {
	h, w := late(t)
	for _, c := range []struct {
		define string // around the session
		text   string
		before string // while the catalogue is believed
		after  string
	}{
		{"create table late.t (id int); grant all on late.t to app", "select id from late.t", "E:42P01 Z:I", "T C:SELECT 0 Z:I"},
		{"alter table late.t add more int", "select more from late.t", "E:42703 Z:I", "T C:SELECT 0 Z:I"},
		{"create function late.f() returns int language sql as 'select 7'", "select late.f()", "E:42883 Z:I", "T D:7 C:SELECT 1 Z:I"},
		{"create type late.mood as enum ('glad')", "select 'glad'::late.mood", "E:42704 Z:I", "T D:glad C:SELECT 1 Z:I"},
		{"drop table late.t", "select id from late.nowhere", "E:42P01 Z:I", "E:42P01 Z:I"},
	} {
		shared.pg.SQL(t, c.define)
		h.ageCatalog(-time.Hour)
		if got := w.say(1, q(c.text)); got != c.before {
			t.Errorf("%s, believed: %s, want %s", c.text, got, c.before)
		}
		h.ageCatalog(catalogDoubt)
		if got := w.say(1, q(c.text)); got != c.after {
			t.Errorf("%s, doubted: %s, want %s", c.text, got, c.after)
		}
	}
}

// TestUndefinedInATransactionThatDefines: what a session has defined and not committed is not said
// to be missing, and is there after a COMMIT that is under way.
func TestUndefinedInATransactionThatDefines(t *testing.T) {
	_, w := late(t)
	const create, read = "create table late.t (id int)", "select id from late.t"
	for _, c := range []struct {
		ready int
		msgs  []pgproto3.FrontendMessage
		want  string
	}{
		{3, []pgproto3.FrontendMessage{q("begin"), q(create), q(read)}, "C:BEGIN Z:T C:CREATE TABLE Z:T E:42501 Z:E"},
		{1, []pgproto3.FrontendMessage{q(create + "; " + read)}, "E:42501 Z:I"},
		{4, []pgproto3.FrontendMessage{q("begin"), q(create), q("commit"), q(read)}, "C:BEGIN Z:T C:CREATE TABLE Z:T C:COMMIT Z:I T C:SELECT 0 Z:I"},
		{3, []pgproto3.FrontendMessage{
			parse("", "begin"), bind("", ""), execute("", 0), parse("", create), bind("", ""), execute("", 0), sync_,
			parse("", "commit"), bind("", ""), execute("", 0), sync_, parse("", read), bind("", ""), execute("", 0), sync_,
		}, "1 2 C:BEGIN 1 2 C:CREATE TABLE Z:T 1 2 C:COMMIT Z:I 1 2 C:SELECT 0 Z:I"},
	} {
		if got := w.say(2, q("rollback"), q("drop table if exists late.t")); !strings.HasSuffix(got, "C:DROP TABLE Z:I") {
			t.Fatal(got)
		}
		if got := w.say(c.ready, c.msgs...); got != c.want {
			t.Errorf("got %s\nwant %s", got, c.want)
		}
	}
}

// TestADoubtIsAskedOnce: who misses names again and again costs the target one comparison a while,
// and a target that cannot be asked costs nobody the catalogue.
func TestADoubtIsAskedOnce(t *testing.T) {
	start(t)
	h := newHouse(t)
	_ = h.connect(t, "")
	s := &cutOff{Session: h.door.Last()}
	cs, key := h.engine.catalogs, catalogKey(s.Terms())
	h.ageCatalog(-time.Hour)
	known, err := cs.get(testContext(t), key, s)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if c, err := cs.again(testContext(t), key, s); c != known || err != nil || s.dials.Load() != 0 {
			t.Fatalf("a fresh one: %v, %d dials", err, s.dials.Load())
		}
	}
	h.ageCatalog(catalogDoubt)
	if c, err := cs.again(testContext(t), key, s); c != known || err != nil || s.dials.Load() != 1 {
		t.Fatalf("one that is doubted: %v, %d dials", err, s.dials.Load())
	}
	sl := cs.slot(key)
	sl.mu.Lock()
	sl.failed = time.Now().Add(time.Hour)
	sl.mu.Unlock()
	if c, err := cs.again(testContext(t), key, s); c != known || err != nil || s.dials.Load() != 1 {
		t.Errorf("once it could not be compared: %v, %d dials", err, s.dials.Load())
	}
	cs.expire(key)
	h.ageCatalog(catalogAge)
	if _, err := cs.again(testContext(t), key, s); !errors.As(err, new(*postern.Refusal)) {
		t.Errorf("one that is too old: %v", err)
	}
}
