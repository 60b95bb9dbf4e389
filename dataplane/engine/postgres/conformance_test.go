package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/pump"
)

type stockClient struct{ c *pgx.Conn }

func (s stockClient) Exec(ctx context.Context, text string) (int, error) {
	rows, err := s.c.Query(ctx, text)
	if err != nil {
		return 0, full(err)
	}
	n := 0
	for rows.Next() {
		n++
	}
	return n, full(rows.Err())
}

// full puts all that the client was told into one text.
func full(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return fmt.Errorf("%w; %s; %s", err, pe.Detail, pe.Hint)
	}
	return err
}

func (s stockClient) Cancel(ctx context.Context) error { return s.c.PgConn().CancelRequest(ctx) }
func (s stockClient) Close()                           { _ = s.c.Close(context.Background()) }

func TestConformance(t *testing.T) {
	start(t)
	const deadline = 500 * time.Millisecond
	conform := func(t *testing.T, loops *pump.Loops) {
		enginetest.Run(t, enginetest.Protocol{
			Engine: func(testing.TB) engine.Engine {
				return New(Config{AllowPlaintext: true, Parser: shared.pool, Loops: loops, Limits: Limits{Handshake: deadline}})
			},
			Deadline: deadline, Terms: target(), Credential: credential, Secret: "backend-secret",
			Connect: func(ctx context.Context, addr, permission, token string) (enginetest.Client, error) {
				host, port, err := net.SplitHostPort(addr)
				if err != nil {
					return nil, err
				}
				c, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=postgres sslmode=disable", host, port, permission, token))
				if err != nil {
					return nil, full(err)
				}
				return stockClient{c}, nil
			},
			Read: "select id from orders where id <= 3", Many: "select id from orders", Slow: "select pg_sleep(12)", Denied: "delete from orders",
			Garbage: [][]byte{
				[]byte("GET / HTTP/1.1\r\n\r\n"), {0}, {0, 0, 0, 8}, {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0}, {0, 0, 0, 4}, {0, 0, 0, 8, 0, 2, 0, 0},
				{0, 0, 0, 9, 0, 3, 0, 0, 0}, {0, 0, 0, 20, 0, 3, 0, 0, 'u', 's', 'e', 'r', 0}, {0x16, 3, 1, 0, 1, 0},
				{0, 0, 0, 16, 4, 0xd2, 0x16, 0x2e, 1, 2, 3, 4, 5, 6, 7, 8},
			},
		})
	}
	t.Run("loops", func(t *testing.T) { conform(t, shared.loops) })
	t.Run("goroutines", func(t *testing.T) { conform(t, nil) })
}

func TestClientTLS(t *testing.T) {
	server, roots := serverCertificate(t)
	h := newHouse(t, func(c *Config) {
		c.TLS, c.AllowPlaintext = &tls.Config{Certificates: []tls.Certificate{server}, MinVersion: tls.VersionTLS12}, false
	})
	ctx := testContext(t)
	dsn := strings.ReplaceAll(h.dsn(""), "sslmode=disable", "sslmode=verify-full sslrootcert="+roots)
	for _, extra := range []string{"", " sslnegotiation=direct"} {
		c, err := pgx.Connect(ctx, dsn+extra)
		if err != nil {
			t.Fatalf("%q: %v", extra, err)
		}
		var n int
		if err := c.QueryRow(ctx, "select count(*) from orders where id < $1", 50).Scan(&n); err != nil || n != 49 {
			t.Fatalf("%d %v", n, err)
		}
		var big string
		if err := c.QueryRow(ctx, "select repeat('z', 1000000)").Scan(&big); err != nil || len(big) != 1000000 {
			t.Fatalf("%d %v", len(big), err)
		}
		_ = c.Close(ctx)
	}
	_, err := pgx.Connect(ctx, h.dsn(""))
	if pe := wantCode(t, err, "28000"); !strings.Contains(pe.Hint, "sslmode=verify-full") {
		t.Fatalf("%+v", pe)
	}
	if len(h.door.Claim().Token.Reveal()) != 0 || h.door.Opened() != 2 {
		t.Fatal("a token was asked for without TLS")
	}
	out, err := psql(t, h, "", "select 1")
	if err == nil {
		t.Fatalf("psql without TLS: %s", out)
	}
}

func TestStartupParameters(t *testing.T) {
	h := newHouse(t)
	for extra, code := range map[string]string{
		"options='-c search_path=pg_temp'": "42501", "search_path='public,hr'": "42501", "search_path=''": "42501", "role=postgres": "42501", "replication=database": "42501",
		"client_encoding=LATIN1": "42501", "session_preload_libraries=x": "42501", "datestyle='ISO, DMY\t'": "42501",
		"datestyle=German": "42501", "client_min_messages=debug1": "42501", "statement_timeout=1.5": "42501", "statement_timeout=-1": "42501", "statement_timeout=x": "42501",
		"options='-c lock_timeout=7 -crole=postgres'": "42501", "options='--search-path=hr'": "42501", "options='-d 1'": "42501", "options='-c'": "42501", "options='-c x'": "42501",
		"options='lock_timeout=7'": "42501", "options='-c client_encoding=LATIN1'": "42501", "OPTIONS='-c role=postgres'": "42501",
	} {
		_, err := pgx.Connect(testContext(t), h.dsn(extra))
		wantCode(t, err, code)
	}
	for _, extra := range []string{"options=' '", "client_encoding=utf-8", "client_encoding=SQL_ASCII", "datestyle='ISO, MDY'", "extra_float_digits=2", "TIMEZONE=UTC", "search_path=sales", "search_path='$user, SALES'", "options='--search-path=\"sales\"'"} {
		if c, err := pgx.Connect(testContext(t), h.dsn(extra)); err != nil {
			t.Errorf("%s: %v", extra, err)
		} else {
			_ = c.Close(context.Background())
		}
	}
	if h.door.Opened() != 9+4 { // of the search path the task tells
		t.Fatalf("%d sessions", h.door.Opened())
	}
	for extra, want := range map[string]string{
		"lock_timeout=7": "7ms", "options='-c lock_timeout=8 -c jit=off'": "8ms", "options='  --lock-timeout=9s'": "9s", `options='-clock_timeout=1\\0\\s'`: "10s",
		"options='-c lock_timeout=8' lock_timeout=7": "7ms", "LOCK_TIMEOUT=5": "5ms", "client_min_messages=WARNING": "0",
	} {
		c, err := pgx.Connect(testContext(t), h.dsn(extra))
		if err != nil {
			t.Errorf("%s: %v", extra, err)
			continue
		}
		var got string
		if err := c.QueryRow(testContext(t), "SHOW lock_timeout").Scan(&got); err != nil || got != want {
			t.Errorf("%s: lock_timeout is %s (%v)", extra, got, err)
		}
		_ = c.Close(context.Background())
	}
}

// What the target does not take of a client's own parameters, the client is told; what it
// does not take of the resource's is no concern of the client's.
func TestChosenAmiss(t *testing.T) {
	h := newHouse(t)
	for extra, name := range map[string]string{
		"TimeZone=Nowhere/Nothing": "timezone", "options='-c lock_timeout=5fortnights'": "lock_timeout", "extra_float_digits=99": "extra_float_digits",
	} {
		_, err := pgx.Connect(testContext(t), h.dsn(extra))
		if pe := wantCode(t, err, "42501"); !strings.Contains(pe.Message, "does not take the startup parameter "+name) || pe.Hint == "" {
			t.Errorf("%s: %+v", extra, pe)
		}
	}
	terms := target()
	terms.Pins = append(terms.Pins, engine.Setting{Name: "TimeZone", Value: "Nowhere/Nothing"})
	h.door = enginetest.NewDoor(t, terms, credential)
	h.addr = enginetest.Serve(t, h.engine, h.door)
	_, err := pgx.Connect(testContext(t), h.dsn("TimeZone=UTC"))
	if pe := wantCode(t, err, "58000"); strings.Contains(pe.Message, "Nowhere") {
		t.Error(pe)
	}
}
