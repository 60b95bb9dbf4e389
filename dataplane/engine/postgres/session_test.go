package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/test/wait"
)

func psql(t *testing.T, h *house, extra string, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(testContext(t), shared.pg.Psql, append([]string{"-X", "-A", "-t", h.dsn(extra)}, args...)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+enginetest.Token)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestPsql(t *testing.T) {
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) { p.Decide = denyDrops })
	shared.pg.SQL(t, "truncate sales.load")
	out, err := psql(t, h, "", `
		select id, amount from orders where id < 3 order by id;
		DROP TABLE orders;
		select 'still here';
		begin; drop table orders; select 1; commit;
		\copy (select id from orders where id <= 3 order by id) to stdout
		\copy load from stdin
1	one
2	two
\.
		select count(*) from load;
		prepare s(int) as select id from orders where id = $1;
		execute s(7);
		deallocate s;
		execute s(7);
		begin; declare c cursor for select id from orders order by id; fetch 2 from c; commit;
	`)
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	for _, want := range []string{
		"1|1.00\n2|2.00\n", `ERROR:  postern: task "t" does not allow DROP TABLE`, "DETAIL:  rule t/permit", "HINT:  ask for another task",
		"still here", "current transaction is aborted", "ROLLBACK\n1\n2\n3\n", "COPY 2\n2\n", "PREPARE\n7\nDEALLOCATE\n",
		`prepared statement "s" does not exist`, "DECLARE CURSOR\n1\n2\nCOMMIT",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}

func TestSessionSettings(t *testing.T) {
	h := newHouse(t)
	h.door.Terms(func(tm *engine.Terms) { tm.ReadOnly, tm.StatementTimeout = true, 1500*time.Millisecond })
	c := h.connect(t, "application_name=mytool timezone=Europe/Berlin")
	ctx := testContext(t)
	for name, want := range map[string]string{
		"search_path": "sales", "statement_timeout": "1500ms", "default_transaction_read_only": "on", "TimeZone": "Europe/Berlin",
		"standard_conforming_strings": "on", "application_name": "postern/s1",
	} {
		var got string
		if err := c.QueryRow(ctx, "show "+name, pgx.QueryExecModeSimpleProtocol).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if strings.Trim(got, `"`) != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := h.door.Claim().ClientProgram; got != "mytool" {
		t.Errorf("client program %q", got)
	}
	if got := c.PgConn().ParameterStatus("session_authorization"); got != "" {
		t.Errorf("the client is told of the account %q", got)
	}
	if got := c.PgConn().ParameterStatus("application_name"); got != "mytool" {
		t.Errorf("application_name %q", got)
	}
}

func TestHold(t *testing.T) {
	h := newHouse(t)
	held := make(chan struct{}, 1)
	answer := make(chan error)
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(text string, _ any) postern.Decision {
			d := postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
			if strings.Contains(text, "delete") {
				d.Verdict = postern.VerdictHold
			}
			return d
		}
		p.Await = func(ctx context.Context, progress func(string)) error {
			progress("waiting for leads to approve")
			held <- struct{}{}
			select {
			case err := <-answer:
				return err
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	count := func() string {
		return shared.pg.SQL(t, "select count(*) from sales.orders where id = 900")[0][0]
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		t.Run(mode.String(), func(t *testing.T) {
			shared.pg.SQL(t, "insert into sales.orders values (900) on conflict do nothing")
			cfg, err := pgx.ParseConfig(h.dsn(""))
			if err != nil {
				t.Fatal(err)
			}
			notices := make(chan string, 10)
			cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices <- n.Message }
			ctx := testContext(t)
			c, err := pgx.ConnectConfig(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close(context.Background()) }()
			done := make(chan error, 1)
			ask := func() {
				go func() {
					_, err := c.Exec(ctx, "delete from orders where id = $1", mode, 900)
					done <- err
				}()
				<-held
			}
			ask()
			if count() != "1" {
				t.Fatal("deleted before the yes")
			}
			answer <- &postern.Refusal{Code: postern.CodeCancelled, Reason: "bob said no"}
			pe := wantCode(t, <-done, "57014")
			if !strings.Contains(pe.Message, "bob said no") || <-notices != "postern: waiting for leads to approve" {
				t.Fatalf("%+v", pe)
			}
			ask()
			if err := c.PgConn().CancelRequest(ctx); err != nil {
				t.Fatal(err)
			}
			wantCode(t, <-done, "57014")
			if count() != "1" {
				t.Fatal("deleted after a cancel")
			}
			ask()
			answer <- nil
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if count() != "0" {
				t.Fatal("not deleted after the yes")
			}
			last := h.door.Last().Executions()
			if got := last[len(last)-1]; got.Outcome.Affected != 1 || got.Outcome.Tag != "DELETE 1" {
				t.Fatalf("%+v", got)
			}

			shared.pg.SQL(t, "insert into sales.orders values (900)")
			ask()
			_ = c.PgConn().Conn().Close() // the client is gone while it waits
			<-done
			_ = h.door.Last().Closed()
			if count() != "1" {
				t.Fatal("a statement ran whose client was gone")
			}
		})
	}
}

func TestSessionHold(t *testing.T) {
	h := newHouse(t)
	h.door.Terms(func(tm *engine.Terms) { tm.Hold = true })
	said, asked := make(chan error, 1), make(chan struct{}, 3)
	h.door.Set(func(p *enginetest.Policy) {
		p.Await = func(ctx context.Context, progress func(string)) error {
			progress("waiting")
			asked <- struct{}{}
			select {
			case err := <-said:
				return err
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	said <- nil
	c := h.connect(t, "")
	if _, err := c.Exec(testContext(t), "select 1"); err != nil {
		t.Fatal(err)
	}
	said <- &postern.Refusal{Code: postern.CodeCancelled, Reason: "nobody said yes in time"}
	_, err := pgx.Connect(testContext(t), h.dsn(""))
	wantCode(t, err, "57014")
	<-asked
	<-asked
	ctx, leave := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	go func() {
		_, err := pgx.Connect(ctx, h.dsn(""))
		done <- err
	}()
	<-asked
	leave()
	if err := <-done; err == nil {
		t.Fatal("connected without a yes")
	}
	if err := h.door.Last().Closed(); err == nil || !strings.Contains(err.Error(), "gave up") {
		t.Fatalf("closed because %v", err)
	}
}

func TestLimits(t *testing.T) {
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) { p.Rows = 10 })
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		t.Run(mode.String(), func(t *testing.T) {
			c := h.connect(t, "")
			ctx := testContext(t)
			read := func(text string) (n int, err error) {
				rows, err := c.Query(ctx, text, mode)
				if err != nil {
					return 0, err
				}
				for rows.Next() {
					n++
				}
				return n, rows.Err()
			}
			for _, text := range []string{"select id from orders", "select generate_series(1, 100000000)"} {
				n, err := read(text)
				wantCode(t, err, "53400")
				if n != 10 {
					t.Fatalf("%d rows of %q", n, text)
				}
			}
			if n, err := read("select id from orders limit 10"); err != nil || n != 10 {
				t.Fatalf("%d rows, %v", n, err)
			}
			tx, err := c.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_, err = read("select id from orders")
			wantCode(t, err, "53400")
			if s := c.PgConn().TxStatus(); s != 'E' {
				t.Fatalf("transaction status %c after the limit", s)
			}
			_, err = tx.Exec(ctx, "select 1", mode)
			wantCode(t, err, "25P02")
			if err := tx.Rollback(ctx); err != nil {
				t.Fatal(err)
			}
			for _, e := range h.door.Last().Executions() {
				if e.Rows > 10 {
					t.Errorf("%q passed %d rows", e.Text, e.Rows)
				}
			}
		})
	}
	h.door.Set(func(p *enginetest.Policy) { p.Rows, p.Bytes = 0, 1000 })
	out, err := psql(t, h, "", "copy orders to stdout;\nselect 'alive';\n")
	if err != nil || !strings.Contains(out, "limit of bytes") || !strings.Contains(out, "alive") || len(out) > 1400 {
		t.Fatalf("%v %d\n%s", err, len(out), out)
	}
	out, err = psql(t, h, "", "copy load from stdin;\n"+strings.Repeat("5\tlong enough a line\n", 200)+"\\.\nselect 'alive', count(*) from load where id = 5;\n")
	if err != nil || !strings.Contains(out, "limit of bytes") || !strings.Contains(out, "alive|0") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestTooLongToKeep: a statement over the limit passes by and is refused; the record has
// its size and its hash.
func TestTooLongToKeep(t *testing.T) {
	h := newHouse(t)
	text := "select '" + strings.Repeat("x", 20<<20) + "'"
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		c := h.connect(t, "")
		_, err := c.Exec(testContext(t), text, mode)
		wantCode(t, err, "08P01")
		notes := h.door.Last().Notes()
		if len(notes) == 0 || !strings.HasPrefix(notes[len(notes)-1], "unread ") {
			t.Fatalf("%s: notes %q", mode, notes)
		}
		if want := fmt.Sprintf("unread %d %x ", len(text), sha256.Sum256([]byte(text))); mode == pgx.QueryExecModeSimpleProtocol && !strings.HasPrefix(notes[len(notes)-1], want) {
			t.Errorf("%q, want %q", notes[len(notes)-1], want)
		}
	}
}

func TestLargeRows(t *testing.T) {
	h := newHouse(t)
	c := h.connect(t, "")
	ctx := testContext(t)
	shared.pg.SQL(t, "truncate sales.load")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		var s string
		if err := c.QueryRow(ctx, "select repeat('x', 3000000)", mode).Scan(&s); err != nil || len(s) != 3000000 {
			t.Fatalf("%d %v", len(s), err)
		}
		if mode == pgx.QueryExecModeSimpleProtocol {
			continue // the value would be part of a text that is too long to judge
		}
		var n int
		if err := c.QueryRow(ctx, "select length($1::text)", mode, s).Scan(&n); err != nil || n != 3000000 {
			t.Fatalf("%d %v", n, err)
		}
	}
	big := strings.Repeat("y", 500_000)
	tag, err := c.CopyFrom(ctx, pgx.Identifier{"load"}, []string{"id", "note"}, pgx.CopyFromRows([][]any{{int32(77), big}, {int32(77), big}}))
	if err != nil || tag != 2 {
		t.Fatalf("copy: %d %v", tag, err)
	}
	if got := shared.pg.SQL(t, "select sum(length(note)) from sales.load where id = 77")[0][0]; got != "1000000" {
		t.Fatalf("copied %s bytes", got)
	}
	h.door.Set(func(p *enginetest.Policy) { p.Bytes = 100_000 })
	var s string
	wantCode(t, c.QueryRow(ctx, "select repeat('x', 3000000)", pgx.QueryExecModeExec).Scan(&s), "53400")
}

func TestCancel(t *testing.T) {
	h := newHouse(t)
	c := h.connect(t, "")
	ctx := testContext(t)
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, "select pg_sleep(15)")
		done <- err
	}()
	wait.For(t, "the statement is admitted", func() bool { return len(h.door.Last().Executions()) == 1 })
	if err := c.PgConn().CancelRequest(ctx); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-done, "57014")
	if _, err := c.Exec(ctx, "select 1"); err != nil {
		t.Fatal(err)
	}
}

func TestKillShowsItsCause(t *testing.T) {
	h := newHouse(t)
	kill := &postern.Refusal{Code: postern.CodeKilled, Reason: "grant revoked by ada"}
	for _, text := range []string{"", "select pg_sleep(3600)", "select generate_series(1, 1000000000000)"} {
		c := h.connect(t, "")
		ctx := testContext(t)
		s := h.door.Last()
		done := make(chan error, 1)
		go func() {
			if text == "" {
				done <- c.PgConn().WaitForNotification(ctx)
				return
			}
			_, err := c.Exec(ctx, text, pgx.QueryExecModeSimpleProtocol)
			done <- err
		}()
		if text != "" {
			wait.For(t, "the statement is admitted", func() bool { return len(s.Executions()) == 1 })
		}
		s.Kill(kill)
		pe := wantCode(t, <-done, "57P01")
		if pe.Message != "postern: grant revoked by ada" || pe.Severity != "FATAL" {
			t.Fatalf("%+v", pe)
		}
		_ = s.Closed() // though the statement would go on
	}
	wait.For(t, "the server works no more", func() bool {
		return shared.pg.SQL(t, "select count(*) from pg_stat_activity where usename = 'app' and state = 'active'")[0][0] == "0"
	})
}

func TestIdle(t *testing.T) {
	h := newHouse(t)
	h.door.Terms(func(tm *engine.Terms) { tm.Idle = 400 * time.Millisecond })
	c := h.connect(t, "")
	ctx := testContext(t)
	if _, err := c.Exec(ctx, "select pg_sleep(0.8)"); err != nil {
		t.Fatalf("a running statement is not idling: %v", err)
	}
	wantCode(t, c.PgConn().WaitForNotification(ctx), "57P05")
}

func TestUnrecordable(t *testing.T) {
	h := newHouse(t)
	c := h.connect(t, "")
	h.door.Set(func(p *enginetest.Policy) { p.Unrecordable = true })
	_, err := c.Exec(testContext(t), "update orders set note = 'x' where id = 5")
	wantCode(t, err, "58000")
	if h.door.Last().Sent("set note = 'x'") && len(h.door.Last().Executions()) > 0 {
		t.Fatal("executed without a record")
	}
}

// TestHangsUp: who breaks the protocol is told, and hung up on.
func TestHangsUp(t *testing.T) {
	h := newHouse(t)
	c := h.connect(t, "")
	hijacked, err := c.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	nc := hijacked.Conn
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	if _, err := nc.Write([]byte{'~', 0, 0, 0, 4}); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(nc)
	if err != nil || !bytes.Contains(said, []byte("SFATAL\x00")) {
		t.Errorf("%q, %v", said, err)
	}
}

// TestKillWhileTheTargetReadsNothing: what is still to be written to the target does not
// keep a session that must end.
func TestKillWhileTheTargetReadsNothing(t *testing.T) {
	start(t)
	for name, loops := range map[string]*pump.Loops{"loops": loops(), "goroutines": nil} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, func(c *Config) { c.Loops = loops })
			c := h.connect(t, "")
			s := h.door.Last()
			hijacked, err := c.PgConn().Hijack()
			if err != nil {
				t.Fatal(err)
			}
			nc := hijacked.Conn
			defer func() { _ = nc.Close() }()
			encode := func(messages ...pgproto3.FrontendMessage) (b []byte) {
				for _, m := range messages {
					if b, err = m.Encode(b); err != nil {
						t.Fatal(err)
					}
				}
				return b
			}
			first := encode(&pgproto3.Parse{Query: "select pg_sleep(3600)"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Parse{Name: "long", Query: "select $1::text"})
			more := encode(&pgproto3.Bind{PreparedStatement: "long", Parameters: [][]byte{bytes.Repeat([]byte("x"), 8<<20)}}, &pgproto3.Execute{})
			sent := make(chan error, 1)
			var taken atomic.Int64
			go func() { // without an end: how much fits into the buffers on the way is the kernel's affair
				_, err := nc.Write(first)
				for rest := more; err == nil; {
					var n int
					n, err = nc.Write(rest[:min(len(rest), 64<<10)])
					taken.Add(int64(n))
					if rest = rest[n:]; len(rest) == 0 {
						rest = more
					}
				}
				sent <- err
			}()
			wait.For(t, "the statement is admitted", func() bool { return len(s.Executions()) > 0 })
			last, since := int64(0), time.Now()
			wait.For(t, "nothing more is taken", func() bool {
				if n := taken.Load(); n != last || n == 0 {
					last, since = n, time.Now()
				}
				return time.Since(since) > 300*time.Millisecond
			})
			s.Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "enough"})
			_ = nc.SetDeadline(time.Now().Add(wait.Patience))
			if said, err := io.ReadAll(nc); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%q, %v", said, err)
			}
			<-sent // which only the end of the connection can fail
		})
	}
}
