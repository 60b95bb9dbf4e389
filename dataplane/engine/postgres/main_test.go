package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/pkg/sql/worker"
	"github.com/posterngate/postern/test/servers"
	"github.com/posterngate/postern/test/wait"
)

// shared is what the tests of this package have in common: one PostgreSQL and one
// parser, started by the first test that needs them.
var shared struct {
	once  sync.Once
	err   error
	stop  []func()
	pg    *servers.PG
	pool  *worker.Pool
	loops *pump.Loops
}

const schema = `
CREATE ROLE app LOGIN PASSWORD 'backend-secret';
CREATE SCHEMA sales;
CREATE TYPE sales.mood AS ENUM ('good', 'bad');
CREATE DOMAIN sales.odd AS int CHECK (VALUE % 2 = 1);
CREATE TABLE sales.orders (id int PRIMARY KEY, email text, amount numeric(12,2), note text);
INSERT INTO sales.orders SELECT i, 'user' || i || '@example.com', i, 'n' FROM generate_series(1, 1000) i;
CREATE TABLE sales.unique_ones (email text UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE sales.load (id int, note text);
GRANT USAGE ON SCHEMA sales TO app;
GRANT ALL ON ALL TABLES IN SCHEMA sales TO app;
GRANT CREATE ON SCHEMA sales TO app;
`

func TestMain(m *testing.M) {
	worker.Main()
	code := m.Run()
	for _, stop := range slices.Backward(shared.stop) {
		stop()
	}
	os.Exit(code)
}

func start(t testing.TB) {
	t.Helper()
	shared.once.Do(func() { shared.err = startShared() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
}

func startShared() error {
	dir, err := os.MkdirTemp("", "pgengine")
	if err != nil {
		return err
	}
	shared.stop = append(shared.stop, func() { _ = servers.RemoveData(dir); _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithCancel(context.Background())
	pg, stop, err := servers.StartPostgres(ctx, dir, servers.PGOptions{
		HBA:      []string{"hostnossl all app 127.0.0.1/32 scram-sha-256"},
		Settings: map[string]string{"autovacuum": "off"}, // it rewrites rows of the catalogue when it likes
	}, func(string) {})
	if err != nil {
		cancel()
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	shared.stop = append(shared.stop, stop)
	shared.pg = pg
	shared.pool = worker.New(worker.Config{Processes: 1})
	g := run.New(ctx)
	g.Go("parser", shared.pool.Run)
	if shared.loops, err = pump.NewLoops(2); err != nil {
		cancel()
		return err
	}
	g.Go("loops", shared.loops.Run)
	shared.stop = append(shared.stop, func() {
		cancel()
		_ = g.Wait()
	})
	_, err = pg.Exec(ctx, "postgres", schema)
	return err
}

// house is an engine behind a Door to the shared PostgreSQL.
type house struct {
	door   *enginetest.Door
	engine *Engine
	addr   string
}

// target is without TLS, so that tests can see what is sent; TestBackendLogins is with.
func target() engine.Terms {
	pg := shared.pg
	return engine.Terms{
		Task: "t", Resource: "target", Host: pg.Host, Port: pg.Port, Database: "postgres",
		TLS:  engine.TLSTerms{Mode: "disable"},
		Pins: []engine.Setting{{Name: "search_path", Value: "sales"}},
	}
}

// loops is the driver of most tests; POSTERN_TEST_LOOPS=none chooses the other.
func loops() *pump.Loops {
	if os.Getenv("POSTERN_TEST_LOOPS") == "none" {
		return nil
	}
	return shared.loops
}

func credential(engine.Purpose) engine.Credential {
	return engine.Credential{Account: "app", Password: secret.FromString("backend-secret")}
}

func newHouse(t testing.TB, change ...func(*Config)) *house {
	t.Helper()
	start(t)
	cfg := Config{AllowPlaintext: true, Parser: shared.pool, Loops: loops(), Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, c := range change {
		c(&cfg)
	}
	h := &house{door: enginetest.NewDoor(t, target(), credential), engine: New(cfg)}
	h.addr = enginetest.Serve(t, h.engine, h.door)
	return h
}

func (h *house) dsn(extra string) string {
	host, port, _ := net.SplitHostPort(h.addr)
	return fmt.Sprintf("host=%s port=%s user=t.target password=%s dbname=postgres sslmode=disable %s", host, port, enginetest.Token, extra)
}

func (h *house) connect(t testing.TB, extra string) *pgx.Conn {
	t.Helper()
	ctx := testContext(t)
	c, err := pgx.Connect(ctx, h.dsn(extra))
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	t.Cleanup(cancel)
	return ctx
}
