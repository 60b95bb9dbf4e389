package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/test/servers"
	"github.com/posterngate/postern/test/wait"
)

// drivers runs fn with sessions that event loops carry, and with those that have
// goroutines of their own.
func drivers(t *testing.T, fn func(t *testing.T, driver func(*Config))) {
	t.Helper()
	start(t)
	for name, loops := range map[string]*pump.Loops{"loops": shared.loops, "goroutines": nil} {
		t.Run(name, func(t *testing.T) { fn(t, func(c *Config) { c.Loops = loops }) })
	}
}

// pooled is a house whose sessions have their connections one after the other, and may do
// at the target whatever they like.
func pooled(t *testing.T, change func(*engine.Terms), driver ...func(*Config)) *house {
	t.Helper()
	h := newHouse(t, driver...)
	h.door.Terms(func(tm *engine.Terms) {
		tm.Pool, tm.Own = "p-1", true
		if change != nil {
			change(tm)
		}
	})
	return h
}

// session runs fn in a session, and returns which process at the target served it once
// that is over.
func (h *house) session(t *testing.T, extra string, fn func(c *pgx.Conn)) (pid int) {
	t.Helper()
	ctx := testContext(t)
	before := h.door.Opened()
	cfg, err := pgx.ParseConfig(h.dsn(extra))
	if err != nil {
		t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	s := h.door.Last()
	fn(c)
	_ = c.Close(ctx)
	_ = s.Closed()
	if h.door.Opened() != before+1 {
		t.Fatalf("%d sessions were opened", h.door.Opened()-before)
	}
	for _, note := range s.Notes() {
		if _, err := fmt.Sscanf(note, "connection process %d at", &pid); err == nil {
			return pid
		}
	}
	t.Fatalf("no note says which connection it was: %q", s.Notes())
	return 0
}

func perform(t *testing.T, c *pgx.Conn, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := c.Exec(testContext(t), text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

func shown(t *testing.T, c *pgx.Conn, text string) string {
	t.Helper()
	var got string
	if err := c.QueryRow(testContext(t), text).Scan(&got); err != nil {
		return "error: " + err.Error()
	}
	return got
}

func TestNothingOfASessionIsLeftToTheNext(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `create role other; grant other to app; create sequence if not exists sales.counter; grant all on sequence sales.counter to app`)
	t.Cleanup(func() { shared.pg.SQL(t, `drop role other`) })
	drivers(t, nothingIsLeft)
}

func nothingIsLeft(t *testing.T, driver func(*Config)) {
	h := pooled(t, nil, driver)
	first := h.session(t, "", func(c *pgx.Conn) { perform(t, c, "select 1") })
	for _, tc := range []struct {
		name    string
		leave   []string
		ask     string
		want    string
		another bool // such a connection is not used again
	}{
		{"temporary tables", []string{"create temp table mine (x int)"}, "select coalesce(to_regclass('pg_temp.mine')::text, 'none')", "none", false},
		{"settings", []string{"set work_mem = '7MB'"}, "show work_mem", "4MB", false},
		{"settings that are reported", []string{"set timezone = 'Asia/Tokyo'", "set datestyle = 'iso, dmy'"}, "select (current_setting('timezone') <> 'Asia/Tokyo')::text", "true", false},
		{"own settings", []string{"set my.secret = 'x'"}, "select coalesce(nullif(current_setting('my.secret', true), ''), 'none')", "none", false},
		{"search path", []string{"set search_path = pg_catalog"}, "show search_path", `"sales"`, false},
		{"a role", []string{"set role other"}, "select current_user::text", "app", false},
		{"session authorisation", []string{"set session authorization app", "set role other"}, "select session_user || ' ' || current_user", "app app", false},
		{"prepared statements", []string{"prepare mine as select 1"}, "select count(*)::text from pg_prepared_statements", "0", false},
		{"cursors", []string{"begin", "declare mine cursor with hold for select 1", "commit"}, "select count(*)::text from pg_cursors where name = 'mine'", "0", false},
		{"channels", []string{"listen mine"}, "select count(*)::text from pg_listening_channels()", "0", false},
		{"advisory locks", []string{"select pg_advisory_lock(4711)"}, "select count(*)::text from pg_locks where locktype = 'advisory'", "0", false},
		{"last values", []string{"select nextval('sales.counter')"}, "select lastval()::text", "error: ERROR: lastval is not yet defined in this session (SQLSTATE 55000)", false},
		{"current values", []string{"select nextval('sales.counter')"}, "select currval('sales.counter')::text", "error: ERROR: currval of sequence \"counter\" is not yet defined in this session (SQLSTATE 55000)", false},
		{"the name", []string{"set application_name = 'mine'"}, "select application_name from pg_stat_activity where pid = pg_backend_pid()", "*", false},
		{"an open transaction", []string{"begin", "create table sales.never (x int)"}, "select coalesce(to_regclass('sales.never')::text, 'none')", "none", true},
		{"a failed transaction", []string{"begin", "create table sales.never (x int)", "select 1"}, "select coalesce(to_regclass('sales.never')::text, 'none')", "none", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			was := h.session(t, "", func(c *pgx.Conn) { perform(t, c, tc.leave...) })
			is := h.session(t, "", func(c *pgx.Conn) {
				want := tc.want
				if want == "*" {
					want = "postern/" + string(h.door.Last().ID())
				}
				if got := shown(t, c, tc.ask); got != want {
					t.Errorf("%s gives %q, want %q", tc.ask, got, want)
				}
			})
			if was == is == tc.another {
				t.Errorf("process %d served after %d", is, was)
			}
			if !tc.another && was != first {
				t.Errorf("process %d served, want %d still", was, first)
			}
			if tc.another {
				first = is
			}
		})
	}
}

// An account may act as another role from its login on, as accounts of a vault often do.
// DISCARD ALL ends that.
func TestTheNextSessionActsAsTheSameRole(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `create role narrow; grant narrow to app; alter role app set role = narrow`)
	t.Cleanup(func() { shared.pg.SQL(t, `alter role app reset role; drop role narrow`) })
	h := pooled(t, nil)
	first := 0
	for _, leave := range []string{"select 1", "set role none", "set session authorization app", "select 2"} {
		pid := h.session(t, "", func(c *pgx.Conn) {
			if got := shown(t, c, "select session_user || ' as ' || current_user"); got != "app as narrow" {
				t.Errorf("the session is of %s", got)
			}
			perform(t, c, leave)
		})
		if first == 0 {
			first = pid
		}
		if pid != first {
			t.Errorf("process %d served, want %d", pid, first)
		}
	}
}

// What a session leaves is gone before there is another one.
func TestAResetDoesNotWaitForTheNextSession(t *testing.T) {
	h := pooled(t, nil)
	h.session(t, "", func(c *pgx.Conn) { perform(t, c, "select pg_advisory_lock(4712)", "listen mine") })
	if h.door.Kept() != 1 {
		t.Fatalf("%d connections wait", h.door.Kept())
	}
	wait.For(t, "the lock is given back", func() bool {
		return counted(t, "pg_locks where locktype = 'advisory' and objid = 4712") == "0"
	})
}

func TestConnectionsThatAreNotUsedAgain(t *testing.T) { drivers(t, notUsedAgain) }

func notUsedAgain(t *testing.T, driver func(*Config)) {
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, h *house, c *pgx.Conn)
	}{
		{"a statement under way", func(t *testing.T, h *house, c *pgx.Conn) {
			b := c.PgConn().Conn()
			if _, err := b.Write(appendQuery(nil, "select pg_sleep(30)")); err != nil {
				t.Fatal(err)
			}
			wait.For(t, "the statement is admitted", func() bool { return len(h.door.Last().Executions()) > 0 })
			_ = b.Close()
		}},
		{"a segment without its Sync", func(t *testing.T, _ *house, c *pgx.Conn) {
			b := c.PgConn().Conn()
			if _, err := b.Write(appendEmpty(appendParse(nil, "", "select 1", noTypes), 'H')); err != nil {
				t.Fatal(err)
			}
			if typ, _, err := readMessage(b, 1<<10); err != nil || typ != '1' {
				t.Fatalf("%q %v", typ, err)
			}
		}},
		{"a cancel request", func(t *testing.T, h *house, c *pgx.Conn) {
			ctx, cancel := context.WithCancel(testContext(t))
			go func() {
				wait.For(t, "the statement is admitted", func() bool { return len(h.door.Last().Executions()) > 0 })
				_ = c.PgConn().CancelRequest(testContext(t))
			}()
			defer cancel()
			if _, err := c.Exec(ctx, "select pg_sleep(30)"); err == nil {
				t.Error("the statement was not cancelled")
			}
			perform(t, c, "select 1") // which waits until the request was delivered
		}},
		{"COPY that is not over", func(t *testing.T, _ *house, c *pgx.Conn) {
			b := c.PgConn().Conn()
			if _, err := b.Write(appendQuery(nil, "copy sales.load from stdin")); err != nil {
				t.Fatal(err)
			}
			if typ, _, err := readMessage(b, 1<<10); err != nil || typ != 'G' {
				t.Fatalf("%q %v", typ, err)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := pooled(t, nil, driver)
			h.session(t, "", func(c *pgx.Conn) { tc.do(t, h, c) })
			if h.door.Kept() != 0 {
				t.Error("the connection waits for another session")
			}
		})
	}
}

// A connection that is gone is replaced by a new one.
func TestABadConnectionIsThrownAway(t *testing.T) {
	h := pooled(t, nil)
	was := h.session(t, "", func(c *pgx.Conn) { perform(t, c, "select 1") })
	shared.pg.SQL(t, fmt.Sprintf("select pg_terminate_backend(%d)", was))
	wait.For(t, "the process ends", func() bool { return counted(t, fmt.Sprintf("pg_stat_activity where pid = %d", was)) == "0" })
	if is := h.session(t, "", func(c *pgx.Conn) { perform(t, c, "select 1") }); is == was {
		t.Errorf("process %d again", is)
	}
}

// What a client chose when it connected is part of what a connection is.
func TestStartupParametersArePartOfAConnection(t *testing.T) {
	h := pooled(t, nil)
	seen := map[int]string{}
	for range 2 {
		for _, tz := range []string{"Asia/Tokyo", "Europe/Berlin"} {
			pid := h.session(t, "timezone="+tz, func(c *pgx.Conn) {
				if got := shown(t, c, "show timezone"); got != tz {
					t.Errorf("the time zone is %s, want %s", got, tz)
				}
			})
			if was := seen[pid]; was != "" && was != tz {
				t.Errorf("a connection of %s served %s", was, tz)
			}
			seen[pid] = tz
		}
	}
	if len(seen) != 2 {
		t.Errorf("%d connections, want 2: %v", len(seen), seen)
	}
}

// A client that asks late to cancel what its session ran does not hit the next one's
// statement, though the same process runs it.
func TestALateCancelHitsNothing(t *testing.T) {
	h := pooled(t, nil)
	var key []byte
	was := h.session(t, "", func(c *pgx.Conn) {
		perform(t, c, "select 1")
		key = binary.BigEndian.AppendUint32(nil, c.PgConn().PID())
		key = append(key, c.PgConn().SecretKey()...)
	})
	is := h.session(t, "", func(c *pgx.Conn) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			wait.For(t, "the statement is admitted", func() bool { return len(h.door.Last().Executions()) > 0 })
			for range 20 {
				_ = h.door.Cancel(context.Background(), key)
				time.Sleep(10 * time.Millisecond)
			}
		}()
		perform(t, c, "select pg_sleep(0.5)")
		<-done
	})
	if was != is {
		t.Errorf("process %d served after %d: the test shows nothing", is, was)
	}
}

func TestReuseOverTLS(t *testing.T) {
	start(t)
	pg := servers.Postgres(t, servers.PGOptions{HBA: []string{"hostssl all app all scram-sha-256"}})
	pg.SQL(t, `create role app login password 'backend-secret'`)
	zone := 0
	drivers(t, func(t *testing.T, driver func(*Config)) {
		h := pooled(t, func(tm *engine.Terms) {
			tm.Host, tm.Port = pg.Host, pg.Port
			tm.TLS = engine.TLSTerms{Mode: "verify-full", CA: pg.CAPEM, ServerName: pg.Host}
		}, driver)
		first := h.session(t, "", func(c *pgx.Conn) { perform(t, c, "set work_mem = '7MB'") })
		for range 5 {
			is := h.session(t, "", func(c *pgx.Conn) {
				if got := shown(t, c, "show work_mem"); got != "4MB" {
					t.Errorf("work_mem is %s", got)
				}
				perform(t, c, "set work_mem = '7MB'")
			})
			if is != first {
				t.Errorf("process %d served, want %d", is, first)
			}
		}
		// One whose settings have become others while it waited is not what it was.
		zone++
		pg.SQL(t, fmt.Sprintf("alter system set timezone = 'Etc/GMT+%d'", zone))
		pg.SQL(t, "select pg_reload_conf()")
		wait.For(t, "the server has the new setting", func() bool {
			return pg.SQL(t, "show timezone")[0][0] == fmt.Sprintf("Etc/GMT+%d", zone)
		})
		if is := h.session(t, "", func(c *pgx.Conn) { perform(t, c, "select 1") }); is == first {
			t.Errorf("process %d served with other settings than it had", is)
		}
	})
}

func counted(t *testing.T, what string) string {
	t.Helper()
	return shared.pg.SQL(t, "select count(*) from "+what)[0][0]
}

// until polls for what must come.
