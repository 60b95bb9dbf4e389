package postgres

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
)

// TestCutShort: where the client is told that a result was cut short, nothing of its transaction
// stands, although the target knows of no failure.
func TestCutShort(t *testing.T) {
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) { p.Rows = 3 })
	type msgs = []pgproto3.FrontendMessage
	run := func(texts ...string) (out msgs) {
		for _, text := range texts {
			out = append(out, parse("", text), bind("", ""), execute("", 0))
		}
		return out
	}
	const (
		many      = "select id from orders order by id"
		change    = "insert into load values (71, 'x')"
		returning = "insert into load select 71, 'x' from generate_series(1, 5) returning id"
		few       = "insert into load values (71, 'x') returning id"
	)
	for _, c := range []struct {
		name   string
		ready  int
		msgs   msgs
		want   string // how the conversation ends
		stands string // rows of the change
	}{
		{"a change behind it", 1, append(run(many, change), sync_), "D:3 E:53400 Z:I", "0"},
		{"a change before it", 1, append(run(change, many), sync_), "D:3 E:53400 Z:I", "0"},
		{"a change that returns", 1, append(run(returning), sync_), "D:71 E:53400 Z:I", "0"},
		{"the same in a query", 1, msgs{q(returning)}, "D:71 E:53400 Z:I", "0"},
		{"by name", 2, msgs{q("prepare cut as " + returning), q("execute cut")}, "D:71 E:53400 Z:I", "0"},
		{"in parts", 1, msgs{parse("", returning), bind("", ""), execute("", 1), execute("", 0), sync_}, "s D:71 D:71 D:71 E:53400 Z:I", "0"},
		{"a COMMIT in the pipeline", 1, append(run("begin", returning, "commit"), sync_), "D:71 E:53400 Z:E", "0"},

		{"a COMMIT in the next one", 3, append(append(append(run("begin"), sync_), append(run(returning), sync_)...), append(run("commit"), sync_)...), "E:53400 Z:E 1 2 C:ROLLBACK Z:I", "0"},
		{"a change after the COMMIT of another", 2, append(append(run("begin"), sync_), append(run("commit", returning), sync_)...), "C:COMMIT 1 2 D:71 D:71 D:71 E:53400 Z:I", "0"},
		{"a query that is no part of it", 2, msgs{parse("", returning), bind("", ""), execute("", 0), sync_, q(change)}, "C:INSERT 0 1 Z:I", "1"},
		{"what fits", 1, append(run(few, change), sync_), "C:INSERT 0 1 1 2 C:INSERT 0 1 Z:I", "2"},
		{"what fits, in a query", 1, msgs{q(few)}, "T D:71 C:INSERT 0 1 Z:I", "1"},
		{"what fits, of several", 1, msgs{q(few + "; " + change)}, "T D:71 C:INSERT 0 1 C:INSERT 0 1 Z:I", "2"},
		{"several that only read", 2, msgs{q("select 1; " + many), q("select 2")}, "D:1 D:2 E:53400 Z:I T D:2 C:SELECT 1 Z:I", "0"},
		{"a slow query behind it", 2, msgs{q(many), q("select 2 from pg_sleep(0.3)")}, "E:53400 Z:I T D:2 C:SELECT 1 Z:I", "0"},
		// The target commits a text of several by itself, and so nobody may be told that it failed alone.
		{"several, one before", 1, msgs{q(change + "; " + many)}, "D:3 E:53400 closed", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			shared.pg.SQL(t, "delete from sales.load where id = 71")
			got := h.wire(t).say(c.ready, c.msgs...)
			n := shared.pg.SQL(t, "select count(*) from sales.load where id = 71")[0][0]
			if !strings.HasSuffix(got, c.want) {
				t.Errorf("got %s, want it to end with %s", got, c.want)
			}
			if n != c.stands && !strings.HasSuffix(got, "closed") {
				t.Errorf("%s rows were changed, want %s", n, c.stands)
			}
		})
	}
}
