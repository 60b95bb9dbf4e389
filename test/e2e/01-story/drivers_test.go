package story

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/test/e2e/house"
)

// TestDrivers: the protocol beyond plain questions.
func TestDrivers(t *testing.T) {
	t.Parallel()
	h := house.Start(t)
	t.Run("values are the same in every mode", func(t *testing.T) {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
			c := h.Connect(t, "alice", "sales-report", func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = mode })
			for range 3 {
				var name, email, card string
				var at time.Time
				err := c.QueryRow(t.Context(), "SELECT name, email, card, created_at FROM customers WHERE id = $1", 900001).Scan(&name, &email, &card, &at)
				if err != nil || name != "Canary" || email != "***" || card != "************2222" || time.Since(at) > time.Hour {
					t.Errorf("%v: %s %s %s %s: %v", mode, name, email, card, at, err)
				}
			}
			if s := state(t.Context(), c, "SELECT nothing FROM customers"); s != "42703" {
				t.Errorf("%v: an unknown column: %s", mode, s)
			}
			if s := state(t.Context(), c, "SELECT FROM WHERE"); s != "42601" {
				t.Errorf("%v: bad syntax: %s", mode, s)
			}
		}
	})
	t.Run("names that do not exist", func(t *testing.T) {
		c := h.Connect(t, "alice", "sales-report")
		said := func(sql string) pgconn.PgError {
			t.Helper()
			_, err := c.Exec(t.Context(), sql)
			var e *pgconn.PgError
			if !errors.As(err, &e) {
				t.Fatalf("%s: %v", sql, err)
			}
			return *e
		}
		e := said("SELECT id, emial FROM customers")
		if e.Code != "42703" || e.Message != `column "emial" does not exist` || e.Position != 12 || e.Hint != "perhaps column email of sales.customers is meant" {
			t.Errorf("a mistyped column: %+v", e)
		}
		if e := said("SELECT phon FROM customers"); e.Code != "42703" || strings.Contains(e.Hint+e.Detail, "phone") {
			t.Errorf("near a column that is not listed: %+v", e)
		}
		e = said("SELECT id FROM custmers")
		if e.Code != "42P01" || e.Message != `relation "custmers" does not exist` || e.Position != 16 || e.Hint != "perhaps table sales.customers is meant" {
			t.Errorf("a mistyped table: %+v", e)
		}
		for sql, code := range map[string]string{
			"SELECT id FROM hr.nope": "42P01", "SELECT c.id FROM customers": "42P01", "SELECT lowr(name) FROM customers": "42883", "SELECT 'x'::nope": "42704",
		} {
			if e := said(sql); e.Code != code {
				t.Errorf("%s: %+v", sql, e)
			}
		}
		// Of a table that is not listed nothing is told, its columns included.
		if is, not := said("SELECT salary FROM hr.salaries"), said("SELECT nope FROM hr.salaries"); is != not || is.Code != "42501" {
			t.Errorf("the columns of a table that is not listed can be told apart:\n%+v\n%+v", is, not)
		}
	})
	t.Run("many rows, a cursor, a portal by pieces", func(t *testing.T) {
		c := h.Connect(t, "alice", "sales-report")
		tx := house.Must(c.Begin(t.Context()))(t)
		if s := state(t.Context(), c, "DECLARE c CURSOR FOR SELECT id, email FROM customers"); s != "" {
			t.Fatal(s)
		}
		rows, err := tx.Query(t.Context(), "FETCH 50 FROM c")
		n := 0
		for err == nil && rows.Next() {
			if v := rows.RawValues(); string(v[1]) != "***" {
				t.Fatalf("a cursor shows %q", v[1])
			}
			n++
		}
		if n != 50 || rows.Err() != nil {
			t.Errorf("%d rows, %v", n, rows.Err())
		}
		if err := tx.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		f := c.PgConn().Frontend()
		f.Send(&pgproto3.Parse{Query: "SELECT id FROM orders"})
		f.Send(&pgproto3.Bind{})
		f.Send(&pgproto3.Execute{MaxRows: 7})
		f.Send(&pgproto3.Execute{MaxRows: 0})
		f.Send(&pgproto3.Sync{})
		if err := f.Flush(); err != nil {
			t.Fatal(err)
		}
		got, suspended := 0, 0
		for done := false; !done; {
			m := house.Must(f.Receive())(t)
			switch m := m.(type) {
			case *pgproto3.DataRow:
				got++
			case *pgproto3.PortalSuspended:
				suspended = got
			case *pgproto3.ErrorResponse:
				t.Errorf("%+v", m)
			case *pgproto3.ReadyForQuery:
				done = true
			}
		}
		if suspended != 7 || got != house.Orders+1 {
			t.Errorf("%d rows before the pause, %d in all", suspended, got)
		}
	})
	t.Run("COPY out is masked", func(t *testing.T) {
		c := h.Connect(t, "alice", "sales-report").PgConn()
		for _, q := range []string{"COPY (SELECT id, email, card FROM customers WHERE id = 900001) TO STDOUT", "COPY customers (id, email, card) TO STDOUT"} {
			var out bytes.Buffer
			if _, err := c.CopyTo(t.Context(), &out, q); err != nil {
				t.Errorf("%s: %v", q, err)
			}
			if !strings.Contains(out.String(), "900001\t***\t************2222") || len(house.Leaks(out.String())) > 0 {
				t.Errorf("%s: %s", q, out.String())
			}
		}
		for _, q := range []string{"COPY hr.salaries TO STDOUT", "COPY customers TO PROGRAM 'cat'", "COPY customers TO '/tmp/out'", "COPY orders FROM STDIN"} {
			if _, err := c.CopyTo(t.Context(), &bytes.Buffer{}, q); house.State(err) != "42501" {
				t.Errorf("%s: %v", q, err)
			}
		}
		r := h.Psql(t, "alice", "sales-report", "\\copy (SELECT email FROM customers LIMIT 2) TO STDOUT\n")
		if r.Out != "***\n***\n" {
			t.Errorf("%+v", r)
		}
	})
	t.Run("COPY in", func(t *testing.T) {
		c := h.Connect(t, "nightly", "audit-writer").PgConn()
		tag, err := c.CopyFrom(t.Context(), strings.NewReader("nightly\tload\t{\"n\": 1}\nnightly\tload\t\\N\n"), "COPY audit.log (actor, action, detail) FROM STDIN")
		if err != nil || tag.RowsAffected() != 2 {
			t.Errorf("%v, %v", tag, err)
		}
		if got := h.Target(t, "SELECT count(*) FROM audit.log"); got[0][0] != "2" {
			t.Errorf("%v", got)
		}
		// What is refused takes no data, and the session goes on.
		if _, err := c.CopyFrom(t.Context(), strings.NewReader("1\tx\n"), "COPY sales.regions FROM STDIN"); house.State(err) != "42501" {
			t.Errorf("%v", err)
		}
		if _, err := c.CopyFrom(t.Context(), strings.NewReader("1\n"), "COPY audit.log (id) FROM STDIN"); house.State(err) != "42501" {
			t.Errorf("a column that may not be written: %v", err)
		}
		if res := c.ExecParams(t.Context(), "INSERT INTO audit.log (actor, action) VALUES ('nightly', 'end')", nil, nil, nil, nil).Read(); res.Err != nil {
			t.Error(res.Err)
		}
		if res := c.ExecParams(t.Context(), "SELECT actor FROM audit.log", nil, nil, nil, nil).Read(); house.State(res.Err) != "42501" {
			t.Errorf("reading back: %v", res.Err)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		c := h.Connect(t, "alice", "sales-report")
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), "SELECT count(*) FROM generate_series(1, 2000000000)")
			done <- err
		}()
		house.Eventually(t, func() string { return "the statement runs" }, func() bool { return running(t, h) == "1" })
		if err := c.PgConn().CancelRequest(t.Context()); err != nil {
			t.Error(err)
		}
		if err := outcome(t, done); house.State(err) != "57014" {
			t.Errorf("%v", err)
		}
		if s := state(t.Context(), c, "SELECT 1"); s != "" {
			t.Errorf("the session is gone: %s", s)
		}
		s := h.StartPsql(t, "alice", "sales-report")
		s.Say("SELECT count(*) FROM generate_series(1, 2000000000);")
		house.Eventually(t, func() string { return "psql's statement runs" }, func() bool { return running(t, h) == "1" })
		s.Signal(os.Interrupt)
		s.Expect("57014")
	})
	t.Run("what is not for clients", func(t *testing.T) {
		c := h.Connect(t, "alice", "sales-report")
		for _, q := range []string{
			"LISTEN x", "NOTIFY x", "SET ROLE postgres", "SET SESSION AUTHORIZATION postgres", "SET search_path = hr", "SELECT set_config('search_path', 'hr', false)",
			"DO $$ BEGIN END $$", "CALL x()", "VACUUM", "SELECT pg_read_file('/etc/passwd')", "SELECT pg_sleep(1)", "SELECT lo_import('/etc/passwd')", "LOCK TABLE orders",
			"SELECT * FROM orders FOR UPDATE", "CREATE TEMP TABLE x AS SELECT 1", "SELECT 1 INTO x", "PREPARE TRANSACTION 'x'", "GRANT SELECT ON orders TO PUBLIC",
			"SELECT pg_terminate_backend(1)", "SELECT query FROM pg_stat_activity", "SELECT * FROM pg_shadow", "SELECT passwd FROM pg_authid", "ALTER SYSTEM SET work_mem = '1GB'",
		} {
			if s := state(t.Context(), c, q); s != "42501" {
				t.Errorf("%s: %q", q, s)
			}
		}
	})
	t.Run("function calls", func(t *testing.T) {
		c := h.Connect(t, "alice", "sales-report").PgConn()
		f := c.Frontend()
		f.Send(&pgproto3.FunctionCall{Function: 1598}) // random()
		if err := f.Flush(); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := f.Receive()
			if err != nil {
				t.Fatalf("the session ended without a word: %v", err)
			}
			if _, ok := m.(*pgproto3.FunctionCallResponse); ok {
				t.Fatal("the function was called")
			}
			if e, ok := m.(*pgproto3.ErrorResponse); ok {
				t.Logf("%s %s", e.Code, e.Message)
				break
			}
		}
	})
	t.Run("replication and options", func(t *testing.T) {
		for name, value := range map[string]string{"replication": "database", "options": "-c role=postgres", "search_path": "hr", "client_encoding": "LATIN1", "session_authorization": "postgres"} {
			cfg := h.Config(t, h.DataToken(t, "alice"), "sales-report")
			cfg.RuntimeParams[name] = value
			ctx, cancel := context.WithTimeout(t.Context(), house.Patience)
			c, err := pgx.ConnectConfig(ctx, cfg)
			cancel()
			if err == nil {
				_ = c.Close(t.Context())
				t.Errorf("%s=%s was taken", name, value)
			} else if len(house.State(err)) != 5 {
				t.Errorf("%s=%s: %v", name, value, err)
			}
		}
	})
	t.Run("another database", func(t *testing.T) {
		cfg := h.Config(t, h.DataToken(t, "alice"), "sales-report")
		cfg.Database = "postgres"
		if _, err := pgx.ConnectConfig(t.Context(), cfg); house.State(err) != "3D000" && house.State(err) != "42501" && house.State(err) != "28000" {
			t.Errorf("%v", err)
		}
	})
	t.Run("no TLS", func(t *testing.T) {
		cfg := h.Config(t, h.DataToken(t, "alice"), "sales-report")
		cfg.TLSConfig, cfg.Fallbacks = nil, nil
		if _, err := pgx.ConnectConfig(t.Context(), cfg); len(house.State(err)) != 5 {
			t.Errorf("plain text: %v", err)
		}
	})
}
