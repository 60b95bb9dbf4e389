package postgres

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// wireClient speaks messages, for what no driver would say.
type wireClient struct {
	t    *testing.T
	conn net.Conn
	fe   *pgproto3.Frontend
}

func (h *house) wire(t *testing.T) *wireClient {
	t.Helper()
	c := h.connect(t, "")
	hj, err := c.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hj.Conn.Close() })
	return &wireClient{t, hj.Conn, pgproto3.NewFrontend(hj.Conn, hj.Conn)}
}

// say sends messages in one write and returns what comes back up to the given number of
// ReadyForQuery, in short form.
func (w *wireClient) say(ready int, msgs ...pgproto3.FrontendMessage) string {
	w.t.Helper()
	for _, m := range msgs {
		w.fe.Send(m)
	}
	if err := w.fe.Flush(); err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for ready > 0 {
		m, err := w.fe.Receive()
		if err != nil {
			return strings.Join(append(out, "closed"), " ")
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			out = append(out, "E:"+m.Code)
		case *pgproto3.ReadyForQuery:
			out = append(out, "Z:"+string(m.TxStatus))
			ready--
		case *pgproto3.CommandComplete:
			out = append(out, "C:"+string(m.CommandTag))
		case *pgproto3.DataRow:
			out = append(out, "D:"+string(m.Values[0]))
		case *pgproto3.ParseComplete:
			out = append(out, "1")
		case *pgproto3.BindComplete:
			out = append(out, "2")
		case *pgproto3.CloseComplete:
			out = append(out, "3")
		case *pgproto3.PortalSuspended:
			out = append(out, "s")
		case *pgproto3.RowDescription:
			out = append(out, "T")
		case *pgproto3.ParameterDescription:
			out = append(out, "t")
		case *pgproto3.NoData:
			out = append(out, "n")
		default:
			out = append(out, fmt.Sprintf("%T", m))
		}
	}
	return strings.Join(out, " ")
}

func parse(name, text string) *pgproto3.Parse { return &pgproto3.Parse{Name: name, Query: text} }
func bind(portal, name string) *pgproto3.Bind {
	return &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name}
}
func describe(what byte, name string) *pgproto3.Describe {
	return &pgproto3.Describe{ObjectType: what, Name: name}
}
func execute(portal string, rows uint32) *pgproto3.Execute {
	return &pgproto3.Execute{Portal: portal, MaxRows: rows}
}
func q(text string) *pgproto3.Query { return &pgproto3.Query{String: text} }

var sync_ = &pgproto3.Sync{}

func TestConversations(t *testing.T) {
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) { p.Decide = denyDrops })
	w := h.wire(t)
	type msgs = []pgproto3.FrontendMessage
	for _, tc := range []struct {
		name  string
		ready int
		msgs  msgs
		want  string
	}{
		{"unknown statement", 1, msgs{bind("", "nope"), execute("", 0), sync_}, "E:26000 Z:I"},
		{"unknown portal", 1, msgs{execute("nope", 0), sync_}, "E:34000 Z:I"},
		{"denied Parse leaves no statement behind", 2, msgs{parse("", "select 7"), sync_, parse("", "drop table orders"), bind("", ""), execute("", 0), sync_}, "1 Z:I E:42501 Z:I"},
		{"nor an older one", 1, msgs{bind("", ""), execute("", 0), sync_}, "E:26000 Z:I"},
		{"a failed Parse takes the unnamed statement along", 3, msgs{parse("", "select 7"), sync_, parse("", "select nonexistent"), sync_, bind("", ""), execute("", 0), sync_}, "1 Z:I E:42703 Z:I E:26000 Z:I"},
		{"a Parse that was skipped changes nothing", 3, msgs{parse("", "select 7"), sync_, bind("", "nope"), parse("", "select 8"), sync_, bind("", ""), execute("", 0), sync_}, "1 Z:I E:26000 Z:I 2 D:7 C:SELECT 1 Z:I"},
		{"names are shared with SQL", 5, msgs{parse("one", "select 1"), sync_, q("deallocate one"), q("prepare one as select 2"), bind("", "one"), execute("", 0), sync_, q("execute one")}, "1 Z:I C:DEALLOCATE Z:I C:PREPARE Z:I 2 D:2 C:SELECT 1 Z:I T D:2 C:SELECT 1 Z:I"},
		{"a second statement of one name fails", 3, msgs{parse("two", "select 1"), sync_, parse("two", "select 2"), sync_, bind("", "two"), execute("", 0), sync_}, "1 Z:I E:42P05 Z:I 2 D:1 C:SELECT 1 Z:I"},
		{"a skipped Close closes nothing", 3, msgs{bind("", "nope"), &pgproto3.Close{ObjectType: 'S', Name: "two"}, sync_, parse("two", "select 2"), sync_, bind("", "two"), execute("", 0), sync_}, "E:26000 Z:I E:42P05 Z:I 2 D:1 C:SELECT 1 Z:I"},
		{"after Close the name is free", 3, msgs{&pgproto3.Close{ObjectType: 'S', Name: "two"}, sync_, parse("two", "select 2"), sync_, bind("", "two"), execute("", 0), sync_}, "3 Z:I 1 Z:I 2 D:2 C:SELECT 1 Z:I"},
		{"EXECUTE of an unknown name", 1, msgs{q("execute nope")}, "E:26000 Z:I"},
		{"cursors are portals", 1, msgs{q("begin")}, "C:BEGIN Z:T"},
		{"declare", 1, msgs{q("declare c cursor for select id from orders order by id")}, "C:DECLARE CURSOR Z:T"},
		{"execute the cursor", 1, msgs{execute("c", 2), sync_}, "D:1 D:2 s Z:T"},
		{"fetch the rest", 1, msgs{q("fetch 1 from c")}, "T D:3 C:FETCH 1 Z:T"},
		{"denied in the middle", 2, msgs{q("drop table orders"), q("rollback")}, "E:42501 Z:E C:ROLLBACK Z:I"},
		{"portals in parts", 1, msgs{parse("", "select generate_series(1, 5)"), bind("p", ""), execute("p", 2), execute("p", 2), execute("p", 2), sync_}, "1 2 D:1 D:2 s D:3 D:4 s D:5 C:SELECT 1 Z:I"},
		{"a portal ends with its transaction", 1, msgs{execute("p", 0), sync_}, "E:34000 Z:I"},
		{"function call", 2, msgs{&pgproto3.FunctionCall{Function: 1598}, q("select 1")}, "E:42501 Z:I T D:1 C:SELECT 1 Z:I"},
		{"stray COPY data is dropped", 1, msgs{&pgproto3.CopyData{Data: []byte("x")}, &pgproto3.CopyDone{}, q("select 1")}, "T D:1 C:SELECT 1 Z:I"},
		{"empty query", 1, msgs{q("")}, "*pgproto3.EmptyQueryResponse Z:I"},
		{"query between Parse and Sync", 2, msgs{parse("", "select 1"), q("select 2"), bind("", ""), sync_}, "1 T D:2 C:SELECT 1 Z:I E:26000 Z:I"},
		{"several statements", 1, msgs{q("select 1; select 2")}, "T D:1 C:SELECT 1 T D:2 C:SELECT 1 Z:I"},
		{"several, one denied: none runs", 1, msgs{q("select 1; drop table orders")}, "E:42501 Z:I"},
		{"pipelined simple queries", 3, msgs{q("select 1"), q("drop table x"), q("select 3")}, "T D:1 C:SELECT 1 Z:I E:42501 Z:I T D:3 C:SELECT 1 Z:I"},
		{"parameter of a domain", 1, msgs{&pgproto3.Parse{Query: "select $1", ParameterOIDs: []uint32{domainOID(t)}}, sync_}, "E:42501 Z:I"},
	} {
		if got := w.say(tc.ready, tc.msgs...); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
	}
}

// The target keeps 63 bytes of a name, so that longer ones could be one there and two here.
func TestLongNames(t *testing.T) {
	w := newHouse(t).wire(t)
	long := strings.Repeat("n", maxName)
	other := strings.Repeat("m", maxName)
	a, b := other+"a", other+"b"
	drop := func(what byte, name string) pgproto3.FrontendMessage {
		return &pgproto3.Close{ObjectType: what, Name: name}
	}
	if got := w.say(1, parse(long, "select 1"), bind(long, long), execute(long, 0), sync_); got != "1 2 D:1 C:SELECT 1 Z:I" {
		t.Fatal(got)
	}
	if got := w.say(4, parse(a, "select 1"), sync_, drop('S', b), sync_, parse(b, "select 2"), sync_, bind("", a), execute("", 0), sync_); strings.Contains(got, "D:2") || strings.Count(got, "E:53400") != 4 {
		t.Errorf("one statement ran under the name of another: %s", got)
	}
	for _, m := range []pgproto3.FrontendMessage{bind(b, long), bind("", b), execute(b, 0), drop('P', b), &pgproto3.Describe{ObjectType: 'S', Name: b}, parse("é", "select 1")} {
		if got := w.say(1, m, sync_); got != "E:53400 Z:I" {
			t.Errorf("%T: %s", m, got)
		}
	}
	if got := w.say(3, q("begin"), bind(long, long), drop('P', b), sync_, q("rollback")); got != "C:BEGIN Z:T 2 E:53400 Z:E C:ROLLBACK Z:I" {
		t.Error(got)
	}
}

// What a transaction has freed a name of means something else in it than the catalogue says.
func TestNamesOfAnOpenTransaction(t *testing.T) {
	start(t)
	shared.pg.SQL(t, "create schema if not exists front; grant all on schema front to app; drop table if exists front.orders")
	h := newHouse(t)
	h.door.Terms(func(tm *engine.Terms) { tm.Pins = []engine.Setting{{Name: "search_path", Value: "front, sales"}} })
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(_ string, facts any) postern.Decision {
			f := facts.(*sql.Facts)
			if !f.Complete {
				return postern.Decision{Reason: "not understood", Rule: "t/facts"}
			}
			for _, st := range f.Statements {
				for _, tb := range st.Tables {
					if tb.Schema == "sales" {
						return postern.Decision{Reason: "not this one", Rule: "t/permit"}
					}
				}
			}
			return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
		}
	})
	w := h.wire(t)
	const leak = "select note || '' from orders where id = 1"
	for _, c := range []struct {
		ready int
		msgs  []pgproto3.FrontendMessage
		want  string
	}{
		{3, []pgproto3.FrontendMessage{q("begin"), q("drop table front.orders"), q(leak)}, "C:BEGIN Z:T C:DROP TABLE Z:T E:42501 Z:E"},
		{1, []pgproto3.FrontendMessage{q("drop table front.orders; " + leak)}, "E:42501 Z:I"},
		{2, []pgproto3.FrontendMessage{q("drop table front.orders"), q(leak)}, "C:DROP TABLE Z:I E:42501 Z:I"},
		{4, []pgproto3.FrontendMessage{q("begin"), q("drop table front.orders"), q("commit"), q(leak)}, "C:BEGIN Z:T C:DROP TABLE Z:T C:COMMIT Z:I E:42501 Z:I"},
		{1, []pgproto3.FrontendMessage{parse("", "drop table front.orders"), bind("", ""), execute("", 0), parse("", leak), bind("", ""), execute("", 0), sync_}, "1 2 C:DROP TABLE 1 2 E:42501 Z:I"},
		{3, []pgproto3.FrontendMessage{q("begin"), q("drop table front.orders"), q("drop table orders")}, "C:BEGIN Z:T C:DROP TABLE Z:T E:42501 Z:E"},
		{4, []pgproto3.FrontendMessage{q("prepare p as " + leak), q("begin"), q("drop table front.orders"), q("execute p")}, "C:PREPARE Z:I C:BEGIN Z:T C:DROP TABLE Z:T E:42501 Z:E"},
		{3, []pgproto3.FrontendMessage{q("begin"), q("create table front.more (id int)"), q("drop table front.more")}, "C:BEGIN Z:T C:CREATE TABLE Z:T C:DROP TABLE Z:T"},
	} {
		if got := w.say(2, q("rollback"), q("create table if not exists front.orders (id int, note text)")); !strings.HasSuffix(got, "C:CREATE TABLE Z:I") {
			t.Fatal(got)
		}
		if got := w.say(1, q(leak)); got != "T C:SELECT 0 Z:I" {
			t.Fatal(got)
		}
		if got := w.say(c.ready, c.msgs...); got != c.want {
			t.Errorf("got %s\nwant %s", got, c.want)
		}
	}
	w.say(2, q("rollback"), q("drop table front.orders"))
}

// A change that fails must not take back what a later message did to the same name.
func TestUndoOfOneOfSeveralChanges(t *testing.T) {
	c := &conn{statements: names[prepared]{}, portals: names[portal]{}}
	before := &prepared{}
	c.statements["s"] = named[prepared]{value: before}
	var entries [3]*entry
	var made [3]*prepared
	for i := range entries {
		entries[i], made[i] = &entry{segment: uint64(i + 1)}, &prepared{}
		c.q.push(entries[i])
		c.setStatement(entries[i], "s", made[i])
	}
	c.undo(entries[0])
	if got, _ := c.statements.get([]byte("s"), 9, 9); got != made[2] {
		t.Error("the last change is gone")
	}
	c.undo(entries[2])
	if got, _ := c.statements.get([]byte("s"), 9, 9); got != made[1] {
		t.Error("the name does not mean what the second made of it")
	}
	c.undo(entries[1])
	if got, _ := c.statements.get([]byte("s"), 9, 9); got != before {
		t.Error("the name does not mean what it meant before")
	}

	w := newHouse(t).wire(t)
	for range 2 { // the second time nothing waits for the parser
		if got := w.say(6, q("begin"), q("declare k cursor for select 1 from nonexistent"), q("rollback"), q("begin"), q("declare k cursor for select 3"), q("fetch 1 from k")); got != "C:BEGIN Z:T E:42P01 Z:E C:ROLLBACK Z:I C:BEGIN Z:T C:DECLARE CURSOR Z:T T D:3 C:FETCH 1 Z:T" {
			t.Error(got)
		}
		if got := w.say(6, q("rollback"), q("begin"), q("declare k cursor for select 'x'::int from orders"), q("rollback"), q("begin"), q("declare k cursor for select 3")); got != "C:ROLLBACK Z:I C:BEGIN Z:T E:22P02 Z:E C:ROLLBACK Z:I C:BEGIN Z:T C:DECLARE CURSOR Z:T" {
			t.Error(got)
		}
		if got := w.say(2, q("fetch 1 from k"), q("rollback")); got != "T D:3 C:FETCH 1 Z:T C:ROLLBACK Z:I" {
			t.Error(got)
		}
	}
}

func domainOID(t *testing.T) uint32 {
	t.Helper()
	var n uint32
	_, err := fmt.Sscan(shared.pg.SQL(t, "select oid::int8 from pg_type where typname = 'odd'")[0][0], &n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStale(t *testing.T) {
	h := newHouse(t)
	w := h.wire(t)
	if got := w.say(1, parse("s", "select 1"), sync_); got != "1 Z:I" {
		t.Fatal(got)
	}
	run := func() string { return w.say(1, bind("", "s"), execute("", 0), sync_) }
	h.door.Set(func(p *enginetest.Policy) { p.Version++ })
	if got := run(); got != "2 D:1 C:SELECT 1 Z:I" {
		t.Fatalf("unchanged text under a new policy: %s", got)
	}
	h.door.Set(func(p *enginetest.Policy) {
		p.Version++
		p.Decide = func(string, any) postern.Decision {
			return postern.Decision{Reason: "no more", Rule: "t/permit"}
		}
	})
	if got := run(); got != "2 E:42501 Z:I" {
		t.Fatalf("denied under a new policy: %s", got)
	}
	if got := w.say(1, q("select 1")); got != "E:42501 Z:I" {
		t.Fatalf("a text that was judged before: %s", got)
	}
}

func TestMasksAndColumns(t *testing.T) {
	h := newHouse(t)
	mask := &postern.MaskRule{Name: "email", Method: postern.MaskRedact, Value: "***"}
	rule := &postern.TableRule{Schema: "sales", Table: "orders", Columns: []postern.ColumnRule{{Name: "id"}, {Name: "email", Mask: mask}, {Name: "amount"}}}
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(text string, _ any) postern.Decision {
			return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource, Obligations: []postern.Obligation{{Table: rule}}}
		}
	})
	c := h.connect(t, "")
	ctx := testContext(t)
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		var id int
		var email string
		if err := c.QueryRow(ctx, "select id, email from orders where id = $1", mode, 4).Scan(&id, &email); err != nil || email != "***" {
			t.Fatalf("%v: %q %v", mode, email, err)
		}
	}
	if h.door.Last().Sent("user4@") {
		t.Fatal("impossible")
	}
	last := h.door.Last().Executions()
	cols := last[len(last)-1].Columns
	if len(cols) != 2 || cols[0].Name != "id" || cols[0].Masked || !cols[1].Masked {
		t.Fatalf("columns %+v", cols)
	}
	// A detail quotes stored values; with masks in force it is dropped.
	_, err := c.Exec(ctx, "insert into orders (id) values (4)", pgx.QueryExecModeSimpleProtocol)
	if pe := wantCode(t, err, "23505"); pe.Detail != "" || pe.ConstraintName != "" || pe.File != "" || pe.Routine != "" {
		t.Fatalf("%+v", pe)
	}

	// What the analyser missed, the description of the result gives away.
	h.door.Set(func(p *enginetest.Policy) {
		p.Version++
		p.Decide = func(text string, _ any) postern.Decision {
			return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
		}
	})
	w := h.wire(t)
	h.ageCatalog(-time.Hour)
	shared.pg.SQL(t, "alter table sales.orders rename to kept; alter table sales.load rename to orders")
	got := w.say(1, q("select id from orders limit 1"))
	shared.pg.SQL(t, "alter table sales.orders rename to load; alter table sales.kept rename to orders")
	if got != "E:42501 Z:I" {
		t.Fatalf("a table that is not what was judged: %s", got)
	}
	if got := w.say(1, q("select id from orders where id = 1")); got != "T D:1 C:SELECT 1 Z:I" {
		t.Fatal(got)
	}
}

func TestMaxAffected(t *testing.T) {
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(text string, _ any) postern.Decision {
			d := postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
			if strings.HasPrefix(text, "update") || strings.HasPrefix(text, "insert") {
				d.Obligations = []postern.Obligation{{MaxAffected: 3}}
			}
			return d
		}
	})
	note := func(id int) string {
		return shared.pg.SQL(t, fmt.Sprintf("select note from sales.orders where id = %d", id))[0][0]
	}
	w := h.wire(t)
	for _, ext := range []bool{false, true} {
		run := func(text string) string {
			if ext {
				return w.say(1, parse("", text), bind("", ""), execute("", 0), sync_)
			}
			return w.say(1, q(text))
		}
		want := func(got, simple, extended string) {
			t.Helper()
			if ext {
				simple = extended
			}
			if got != simple {
				t.Fatalf("extended=%v: got %s, want %s", ext, got, simple)
			}
		}
		shared.pg.SQL(t, "update sales.orders set note = 'n' where id > 100 and id < 200")
		want(run("update orders set note = 'm' where id in (101, 102, 103)"), "C:UPDATE 3 Z:I", "1 2 C:UPDATE 3 Z:I")
		want(run("update orders set note = 'x' where id > 110 and id < 120"), "E:53400 Z:I", "1 2 E:53400 Z:I")
		want(run("update orders set note = 'r' where id = 104 returning id"), "T D:104 C:UPDATE 1 Z:I", "1 2 D:104 C:UPDATE 1 Z:I")
		if note(101) != "m" || note(111) != "n" || note(104) != "r" {
			t.Fatalf("%s %s %s", note(101), note(111), note(104))
		}
		if ext { // all is changed before the first row, and counted with the last
			got := w.say(1, parse("", "update orders set note = 'p' where id > 110 and id < 120 returning id"), bind("", ""), execute("", 1), sync_)
			if got != "1 2 E:42501 Z:I" || note(111) != "n" {
				t.Fatalf("in parts: %s, %s", got, note(111))
			}
		}
		want(run("update nonexistent set a = 1"), "E:42P01 Z:I", "E:42P01 Z:I")
		want(run("select 1"), "T D:1 C:SELECT 1 Z:I", "1 2 D:1 C:SELECT 1 Z:I")
		want(run("begin"), "C:BEGIN Z:T", "1 2 C:BEGIN Z:T")
		want(run("update orders set note = 'y' where id = 105"), "C:UPDATE 1 Z:T", "1 2 C:UPDATE 1 Z:T")
		want(run("update orders set note = 'y' where id > 110 and id < 120"), "E:53400 Z:E", "1 2 E:53400 Z:E")
		want(run("commit"), "C:ROLLBACK Z:I", "1 2 C:ROLLBACK Z:I")
		if note(105) != "n" {
			t.Fatal("a transaction with too many changes was committed")
		}
		// A constraint that is checked at the commit.
		shared.pg.SQL(t, "truncate sales.unique_ones")
		want(run("insert into unique_ones values ('a'), ('a')"), "E:23505 Z:I", "1 2 C:INSERT 0 2 E:23505 Z:I")
		want(run("select 1"), "T D:1 C:SELECT 1 Z:I", "1 2 D:1 C:SELECT 1 Z:I")
	}
}

func TestBrokenMessagesEndTheSession(t *testing.T) {
	h := newHouse(t)
	raw := func(typ byte, body string) []byte {
		b := append([]byte{typ}, 0, 0, 0, 0)
		binary.BigEndian.PutUint32(b[1:], uint32(4+len(body)))
		return append(b, body...)
	}
	for name, msg := range map[string][]byte{
		"text with a zero byte":   raw('Q', "select 1\x00; drop table orders\x00"),
		"unterminated text":       raw('Q', "select 1"),
		"unknown message":         raw('!', ""),
		"password again":          raw('p', "x\x00"),
		"short length":            {'Q', 0, 0, 0, 3},
		"length beyond the limit": {'Q', 0x20, 0, 0, 0}, // and nothing follows
		"length beyond all":       {'Q', 0x7f, 0, 0, 0},
	} {
		w := h.wire(t)
		if _, err := w.conn.Write(msg); err != nil {
			t.Fatal(err)
		}
		if got := w.say(1); got != "E:08P01 closed" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// Drivers count values in 16 bits: of 70,000 they say that they are 4,464. As at the target,
// that is an error of the statement, and the session goes on.
func TestBindOfTooMany(t *testing.T) {
	w := newHouse(t).wire(t)
	body := append([]byte{0, 0, 0, 0}, binary.BigEndian.AppendUint16(nil, 70_000-1<<16)...)
	for range 70_000 {
		body = append(body, 0, 0, 0, 1, '1')
	}
	msg := binary.BigEndian.AppendUint32([]byte{'B'}, uint32(4+len(body)+2)) //nolint:gosec // a test's
	msg = append(append(msg, body...), 0, 0)
	for _, c := range []struct {
		before pgproto3.FrontendMessage
		want   string
	}{{q("select 1"), "E:08P01 Z:I T D:1 C:SELECT 1 Z:I"}, {q("begin"), "E:08P01 Z:E E:25P02 Z:E"}} {
		w.say(1, c.before)
		if _, err := w.conn.Write(msg); err != nil {
			t.Fatal(err)
		}
		if got := w.say(2, execute("", 0), sync_, q("select 1")); got != c.want {
			t.Errorf("got %s\nwant %s", got, c.want)
		}
	}
}

// A session has so many names, however they are made; one that is given back is free.
func TestNamesAreCounted(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.Names = 6 })
	w := h.wire(t)
	q := func(text string) string { return w.say(1, &pgproto3.Query{String: text}) }
	for i := range 20 {
		if got := q(fmt.Sprintf("PREPARE p%d AS SELECT 1", i)) + q(fmt.Sprintf("DEALLOCATE p%d", i)); got != "C:PREPARE Z:IC:DEALLOCATE Z:I" {
			t.Fatalf("the %dth: %s", i, got)
		}
	}
	if got := q("PREPARE a AS SELECT 1; PREPARE b AS SELECT 1; PREPARE c AS SELECT 1; PREPARE d AS SELECT 1; PREPARE e AS SELECT 1; PREPARE f AS SELECT 1; PREPARE g AS SELECT 1"); got != "E:53400 Z:I" {
		t.Errorf("too many in one text: %s", got)
	}
	all := ""
	for i := range 8 {
		all = q(fmt.Sprintf("PREPARE p%d AS SELECT 1", i))
	}
	if all != "E:53400 Z:I" {
		t.Errorf("too many one by one: %s", all)
	}
	if got := q("BEGIN") + q("DECLARE c CURSOR FOR SELECT 1"); got != "C:BEGIN Z:TE:53400 Z:E" {
		t.Errorf("a cursor: %s", got)
	}
	if got := q("ROLLBACK") + q("DEALLOCATE ALL") + q("PREPARE p AS SELECT 1"); got != "C:ROLLBACK Z:IC:DEALLOCATE ALL Z:IC:PREPARE Z:I" {
		t.Errorf("given back: %s", got)
	}
}

// A transaction that defines something goes on with tables that this does not touch, as
// migrations note in the same one that they were made.
func TestDefinedAndNoted(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `create table sales.migrations (version int); create table sales.crew (id int, note text); create table sales.above (id int);
		create table sales.beneath () inherits (sales.above); create view sales.seen as select id from sales.crew; create table sales."two words" (id int);
		grant all on sales.migrations, sales.crew, sales.above, sales.beneath, sales.seen, sales."two words" to app;
		alter table sales.crew owner to app; alter table sales.above owner to app; alter table sales.beneath owner to app`)
	defer shared.pg.SQL(t, `drop table sales.migrations, sales.crew, sales.above, sales.beneath, sales."two words" cascade`)
	h := newHouse(t)
	note := func(v string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{parse("", "insert into migrations values ("+v+")"), bind("", ""), execute("", 0), sync_}
	}
	const noted, no = "C:INSERT 0 1 Z:T", "E:42501 Z:E"
	for _, c := range []struct {
		define, then string
		want         string
	}{
		{"alter table crew add column more int", "", noted},
		{"create table fresh (id int primary key, at timestamptz default now())", "", noted},
		{"create table fresh (id int); create index on fresh (id); comment on table fresh is 'new'", "", noted},
		{"create index on crew (id)", "select count(*) from sales.migrations m, pg_catalog.pg_class c where c.relname = 'x'", "T D:0 C:SELECT 1 Z:T"},
		// What they name, in whatever way.
		{"alter table crew add column more int", "select 1 from crew", no},
		{"alter table CREW rename to migrations_too", "select 1 from migrations, crew", no},
		{"alter table crew rename column note to migrations", "", no},
		{`alter table U&"cr\0065w" add column more int`, "select 1 from crew", no},
		{`create table "migrations of crew" (id int)`, "", no},
		{"comment on table crew is 'migrations'", "", no},
		{"create index on crew (id)", `select 1 from "two words"`, no},
		// What hangs together with others.
		{"alter table above add column more int", "select 1 from beneath", no},
		{"create table fresh (id int)", "select 1 from above", no},
		{"create table fresh (id int)", "select id from seen", no},
		// What does not say all that it changes, or reads.
		{"create view fresh as select 1", "", no},
		{"create type fresh as enum ('a')", "", no},
		{"create table fresh as select 1 as id", "", no},
		{"create table fresh (id int)", "create table fresher as select version from migrations", no},
		{"create table fresh (id int, note text default '" + strings.Repeat("x ", maxDefinitions/4) + "')", "", no},
	} {
		w := h.wire(t)
		define := w.say(2, q("begin"), q(c.define))
		if strings.Contains(define, "E:") {
			t.Fatalf("%s: %s", c.define, define)
		}
		then := note("1")
		if c.then != "" {
			then = []pgproto3.FrontendMessage{q(c.then)}
		}
		got := w.say(1, then...)
		if got = strings.TrimPrefix(got, "1 2 "); got != c.want {
			t.Errorf("%s; %s: %s", c.define, c.then, got)
		}
		// The next transaction begins anew.
		if got := w.say(3, q("rollback"), q("select 1 from crew, beneath, seen"), q("select 1")); !strings.HasSuffix(got, "T C:SELECT 0 Z:I T D:1 C:SELECT 1 Z:I") {
			t.Errorf("after %s: %s", c.define, got)
		}
	}
	h.door.Terms(func(tm *engine.Terms) { tm.Pins = []engine.Setting{{Name: "search_path", Value: "sales, public"}} })
	w := h.wire(t)
	if got := w.say(3, q("begin"), q("alter table crew add column more int"), q("insert into migrations values (1)")); got != "C:BEGIN Z:T C:ALTER TABLE Z:T E:42501 Z:E" {
		t.Errorf("along a path of two schemas: %s", got)
	}
}
