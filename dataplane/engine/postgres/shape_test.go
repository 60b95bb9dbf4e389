package postgres

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
)

// TestShapes: texts that differ in literals are judged once, recorded each as it was,
// and masked as policy says at that moment.
func TestShapes(t *testing.T) {
	h := newHouse(t)
	mask := func(value string) func(p *enginetest.Policy) {
		rule := &postern.TableRule{Schema: "sales", Table: "orders", Columns: []postern.ColumnRule{
			{Name: "id"}, {Name: "email", Mask: &postern.MaskRule{Name: "email", Method: postern.MaskRedact, Value: value}},
		}}
		return func(p *enginetest.Policy) {
			p.Version++
			p.Decide = func(string, any) postern.Decision {
				return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource, Obligations: []postern.Obligation{{Table: rule}}}
			}
		}
	}
	h.door.Set(mask("***"))
	w := h.wire(t)
	judged := func() int { return len(h.door.Last().Prepared()) }
	sent := 0
	for _, policy := range []string{"***", "1000000001"} {
		h.door.Set(mask(policy))
		before := judged()
		for i := 1; i <= 20; i++ {
			text := fmt.Sprintf("select email from orders where id = %d and email <> 'it''s %[1]d'", i)
			if got := w.say(1, q(text)); got != "T D:"+policy+" C:SELECT 1 Z:I" {
				t.Fatalf("%s: %s", text, got)
			}
			if got := w.say(1, parse("", text), bind("", ""), execute("", 0), sync_); got != "1 2 D:"+policy+" C:SELECT 1 Z:I" {
				t.Fatalf("%s: %s", text, got)
			}
			sent += 2
		}
		if n := judged() - before; n > 3 { // as it is, and once more to see where the literals go
			t.Errorf("%d texts of one shape were judged", n)
		}
	}
	all := h.door.Last().Executions()
	if len(all) != sent {
		t.Fatalf("%d executions, want %d", len(all), sent)
	}
	for i, e := range all {
		if want := fmt.Sprintf("id = %d and", i%40/2+1); !strings.Contains(e.Text, want) {
			t.Fatalf("execution %d is recorded as %s", i, e.Text)
		}
	}

	// A text that people must see is never judged by its shape.
	h.door.Set(func(p *enginetest.Policy) {
		p.Version++
		p.Decide = func(string, any) postern.Decision {
			return postern.Decision{Verdict: postern.VerdictHold, Level: postern.LevelSource}
		}
	})
	before := judged()
	for i := range 4 {
		w.say(1, q(fmt.Sprintf("select id from orders where id = %d", i)))
	}
	if n := judged() - before; n != 4 {
		t.Errorf("of 4 held texts %d were judged", n)
	}

	// Nor is one where a literal names something.
	h.door.Set(func(p *enginetest.Policy) { p.Version++; p.Decide = nil })
	before = judged()
	for _, text := range []string{"select id, email from orders order by 1", "select id, email from orders order by 2", "set work_mem = '1MB'", "set work_mem = '2MB'", "/* 1 */ select 1", "/* 1 */ select 2"} {
		w.say(1, q(text))
	}
	if n := judged() - before; n != 6 {
		t.Errorf("of 6 texts whose literals matter %d were judged", n)
	}
}

// TestShapesKeepPositions: two minuses make a position of a number again.
func TestShapesKeepPositions(t *testing.T) {
	start(t)
	shared.pg.SQL(t, peopleTables)
	c := atLevel(t, "l1").connect(t, "").PgConn()
	for _, order := range []string{"- -", "-(-", "- - - -"} {
		end := strings.Repeat(")", strings.Count(order, "("))
		for _, position := range []string{"1", "2"} {
			out := ask(t, c, "simple", "SELECT id, email FROM people ORDER BY "+order+position+end)
			if masked := position == "2"; (out.code != "") != masked {
				t.Errorf("ORDER BY %s%s: %s", order, position, out)
			}
		}
	}
}

// TestAShapeIsJudgedOnceForAGrant: the next session of the grant need not have judged what
// differs in literals alone, unless policy has changed; another grant's must.
func TestAShapeIsJudgedOnceForAGrant(t *testing.T) {
	h := newHouse(t)
	number := 0
	one := func() (judged int, err error) {
		number++
		ctx := testContext(t)
		c, err := pgx.Connect(ctx, h.dsn(""))
		if err != nil {
			t.Fatal(err)
		}
		s := h.door.Last()
		text := fmt.Sprintf("select email from orders where id = %d", number)
		_, err = c.Exec(ctx, text)
		_ = c.Close(ctx)
		_ = s.Closed()
		if all := s.Executions(); err == nil && (len(all) != 1 || all[0].Text != text) {
			t.Errorf("recorded: %v", all)
		}
		return len(s.Prepared()), err
	}
	want := func(what string, want int) {
		t.Helper()
		if n, err := one(); n != want || err != nil {
			t.Errorf("%s had %d texts judged, want %d: %v", what, n, want, err)
		}
	}
	want("the first session", 1)
	want("the second", 0)
	want("the third", 0)
	h.door.Terms(func(tm *engine.Terms) { tm.Grant = "g-other" })
	want("one of another grant", 1)
	h.door.Terms(func(tm *engine.Terms) { tm.Pins = []engine.Setting{{Name: "search_path", Value: "sales, pg_catalog"}} })
	want("one to which names may mean something else", 1)
	h.door.Set(func(p *enginetest.Policy) { p.Version++ })
	want("one under another policy", 1)
	h.door.Set(func(p *enginetest.Policy) {
		p.Version++
		p.Decide = func(string, any) postern.Decision { return postern.Decision{} }
	})
	if _, err := one(); err == nil {
		t.Error("what is denied now went through by what was allowed before")
	}
}

func TestShelf(t *testing.T) {
	var s shelf
	some := func(n int) map[string]*shaped {
		m := map[string]*shaped{}
		for i := range n {
			m[fmt.Sprint(i)] = nil
		}
		return m
	}
	s.put("a", some(1))
	s.put("a", some(2))
	s.put("b", nil)
	if s.take("b") != nil || len(s.take("a")) != 2 || len(s.take("a")) != 1 || s.take("a") != nil || s.n != 0 || len(s.left) != 0 {
		t.Errorf("left: %v, %d", s.left, s.n)
	}
	s.put("d", some(3))
	if s.clear(); s.take("d") != nil || s.n != 0 {
		t.Errorf("left: %v, %d", s.left, s.n)
	}
	for range 2 * maxShelved / maxShapes {
		s.put("c", some(maxShapes))
		if s.n > maxShelved {
			t.Fatalf("%d shapes are kept", s.n)
		}
	}
}
