package truth

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/test/twoworlds"
)

// crowd adds 50,000 relations of five columns each to a catalogue, as rows and without
// files: they are only ever read about.
const crowd = `
SET allow_system_table_mods = on;
CREATE TABLE app.model (a int, b text, c numeric(10,2), d timestamptz, e jsonb);
DO $$ DECLARE columns text; BEGIN
  SELECT string_agg(CASE attname WHEN 'oid' THEN '(1000000 + i)::oid' WHEN 'relname' THEN '(''crowd_'' || i)::name' WHEN 'reltype' THEN '0::oid'
    WHEN 'reltoastrelid' THEN '0::oid' ELSE 'c.' || quote_ident(attname) END, ', ' ORDER BY attnum) INTO columns
    FROM pg_attribute WHERE attrelid = 'pg_class'::regclass AND attnum > 0;
  EXECUTE 'INSERT INTO pg_class SELECT ' || columns || ' FROM pg_class c, generate_series(1, 50000) i WHERE c.oid = ''app.model''::regclass';
  SELECT string_agg(CASE attname WHEN 'attrelid' THEN '(1000000 + i)::oid' ELSE 'a.' || quote_ident(attname) END, ', ' ORDER BY attnum) INTO columns
    FROM pg_attribute WHERE attrelid = 'pg_attribute'::regclass AND attnum > 0;
  EXECUTE 'INSERT INTO pg_attribute SELECT ' || columns || ' FROM pg_attribute a, generate_series(1, 50000) i WHERE a.attrelid = ''app.model''::regclass AND a.attnum > 0';
END $$;
`

// TestHazards sends what kills parsers, or is only very large, in a database of 50,000
// relations. Each is answered, in time and once; the session goes on, and so does another.
func TestHazards(t *testing.T) {
	w := twoworlds.Start(t, twoworlds.Options{Customers: 20, Orders: 50, Levels: []twoworlds.Level{twoworlds.Source}, SQL: crowd})
	client := twoworlds.Client{Task: "sales-browse", Level: twoworlds.Source}
	open := func() *twoworlds.Pair {
		p, _, err := w.Open(t.Context(), t, client)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		return p
	}
	witness, p := open(), open()
	many := func(s string, n int) string { return strings.Repeat(s, n) }
	const runs, refused, either = "runs", "refused", "either"
	for _, c := range []struct{ name, want, text string }{
		{"60 KB of terms", refused, "SELECT " + many("1+", 30_000) + "1"},
		{"terms that just fit", runs, "SELECT " + many("1+", 2_000) + "1"},
		{"brackets", refused, "SELECT " + many("(", 50_000) + "1" + many(")", 50_000)},
		{"brackets that fit", runs, "SELECT " + many("(", 150) + "1" + many(")", 150)},
		{"NOT", refused, "SELECT " + many("NOT ", 10_000) + "true"},
		{"minus", refused, "SELECT " + many("- ", 10_000) + "1"},
		{"CASE", refused, "SELECT " + many("CASE WHEN true THEN ", 5_000) + "1" + many(" END", 5_000)},
		{"UNION", refused, "SELECT 1" + many(" UNION SELECT 1", 5_000)},
		{"joins", either, "SELECT 1 FROM sales.orders_pub a0" + many(" CROSS JOIN sales.orders_pub", 3_000)},
		{"sub-selects", refused, "SELECT * FROM " + many("(SELECT * FROM ", 2_000) + "sales.orders" + many(") x", 2_000)},
		{"WITH in WITH", refused, many("WITH a AS (", 2_000) + "SELECT 1" + many(") SELECT 1", 2_000)},
		{"casts", either, "SELECT 1" + many("::int", 4_000)},
		{"field selection", either, "SELECT o" + many(".id", 4_000) + " FROM sales.orders o"},
		{"AND", either, "SELECT 1 WHERE true" + many(" AND true", 2_000)},
		{"subscripts", either, "SELECT (ARRAY[1])" + many("[1]", 2_000)},
		{"one operator", either, "SELECT 1 " + many("+", 60_000) + " 1"},
		{"COLLATE", either, "SELECT 'a'" + many(` COLLATE "C"`, 2_000)},
		{"a list of 1 MB", either, "SELECT count(*) FROM sales.orders WHERE id IN (1" + many(",1234567", 120_000) + ")"},
		{"a literal of nearly 1 MB", runs, "SELECT length('" + many("x", 1<<20-100) + "')"},
		{"a literal of more", refused, "SELECT length('" + many("x", 1<<20) + "')"},
		{"15 MB", refused, "SELECT length('" + many("x", 15<<20) + "')"},
		{"a comment of nearly 1 MB", runs, "SELECT /*" + many("/* */", 200_000) + "*/ 1"},
		{"a name of 100 KB", refused, "SELECT " + many("x", 100_000)},
		{"columns", either, "SELECT 1" + many(",1", 20_000)},
		{"10,000 statements", either, many("SELECT 1;", 10_000)},
		{"100,000 statements", either, many("SELECT 1;", 100_000)},
		{"10,000 statements, the last denied", refused, many("SELECT 1;", 9_999) + "DELETE FROM sales.orders"},
		{"100,000 empty statements", either, many(";", 100_000)},
		{"parameter 100,000", refused, "SELECT $100000"},
		{"a zero byte", refused, "SELECT 1 ' || chr(0)"},
		{"a backslash and quotes", either, many(`\'`, 10_000)},
		{"quotes", either, "SELECT " + many("'", 9_999)},
		{"dollars", either, many("$a", 10_000)},
		{"a wide character", runs, "SELECT '" + many("\U0001F600", 10_000) + "'"},
		{"the last of 50,000 relations", refused, "SELECT a FROM app.crowd_50000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			o, err := p.Run(t.Context(), twoworlds.Query(c.text))
			if err != nil || p.Over() {
				t.Fatalf("%v; the session has ended: %v %.300s", err, p.Over(), o[0])
			}
			t.Logf("%s, %d errors", time.Since(began).Round(time.Millisecond), len(o[0].Errors()))
			if d := o.Difference(); d != "" && c.want != either { // time decides, too
				t.Errorf("the worlds differ: %s", d)
			}
			errs := o[0].Errors()
			if (len(errs) > 0) != (c.want == refused) && c.want != either {
				t.Errorf("wanted that it %s: %.300s", c.want, refusal(o[0]))
			}
			if len(errs) > 0 && o[0].Count("DC") > 0 {
				t.Errorf("a part of it ran: %.300s", o[0])
			}
			alive(t, "the session", p)
			alive(t, "another session", witness)
		})
	}
	t.Run("65,535 parameters", func(t *testing.T) {
		values := make([][]byte, 65_535)
		var list strings.Builder
		for i := range values {
			values[i] = []byte("1")
			if i > 0 {
				list.WriteByte(',')
			}
			fmt.Fprintf(&list, "$%d", i+1)
		}
		o, err := p.Run(t.Context(), twoworlds.Step{Send: []pgproto3.FrontendMessage{
			&pgproto3.Parse{Query: "SELECT count(*) FROM sales.orders WHERE id IN (" + list.String() + ")"},
			&pgproto3.Bind{Parameters: values}, &pgproto3.Execute{}, &pgproto3.Sync{},
		}})
		if err != nil || p.Over() {
			t.Fatalf("%v %.300s", err, refusal(o[0]))
		}
		if errs := o[0].Errors(); len(errs) == 0 && o[0].String() != "1 2 D:1 C:SELECT 1 Z:I" || len(errs) > 1 {
			t.Errorf("%.300s", o[0])
		}
		alive(t, "the session", p)
		alive(t, "another session", witness)
	})
	t.Run("as many statements by name as there may be", func(t *testing.T) {
		mine := open()
		for batch := range 20 {
			var s twoworlds.Step
			for i := range 500 {
				s.Send = append(s.Send, &pgproto3.Parse{Name: fmt.Sprint("s", batch, "-", i), Query: "SELECT 1"}, &pgproto3.Sync{})
			}
			o, err := mine.Run(t.Context(), s)
			if err != nil || mine.Over() {
				t.Fatalf("batch %d: %v %.300s", batch, err, refusal(o[0]))
			}
		}
		alive(t, "the session", mine)
		alive(t, "another session", witness)
	})
	if strings.Contains(w.House.Log(), "panic") {
		t.Error("something panicked; see the log")
	}
}

func alive(t *testing.T, who string, p *twoworlds.Pair) {
	t.Helper()
	o, err := p.Run(t.Context(), twoworlds.Query("SELECT count(*) FROM sales.orders"))
	if err != nil || o.Difference() != "" || len(o[0].Errors()) > 0 || o[0].Count("D") != 1 {
		t.Fatalf("%s is harmed: %v %s %.300s", who, err, o.Difference(), refusal(o[0]))
	}
}
