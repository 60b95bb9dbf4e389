package servers

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestPostgres(t *testing.T) {
	pg := Postgres(t, PGOptions{Settings: map[string]string{"max_connections": "33"}})
	if got := pg.SQL(t, "create table t (x int); insert into t values (1), (2); select x from t order by x"); len(got) != 2 || got[1][0] != "2" {
		t.Errorf("rows = %v, want those of the last statement", got)
	}
	if got := pg.SQL(t, "show max_connections")[0][0]; got != "33" {
		t.Errorf("max_connections = %s", got)
	}
	if _, err := pgconn.Connect(t.Context(), strings.Replace(pg.SuperDSN("postgres"), "verify-full", "disable", 1)); err == nil {
		t.Error("a login without TLS succeeded")
	}
	if _, err := pgconn.Connect(t.Context(), pg.DSN("postgres", "postgres", "wrong")); err == nil {
		t.Error("a wrong password was taken")
	}
}

func TestPostgresKeepsItsState(t *testing.T) {
	dir := folder(t, "pg")
	var port int
	for i := range 2 {
		pg, stop, err := StartPostgres(context.Background(), dir, PGOptions{}, logTo(t))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			port = pg.Port
			pg.SQL(t, "create database kept")
		} else {
			pg.SQLIn(t, "kept", "select 1")
			if pg.Port != port {
				t.Errorf("port = %d, was %d", pg.Port, port)
			}
		}
		stop()
	}
}

func TestPostgresAfterACrash(t *testing.T) {
	dir := folder(t, "pg")
	pg, _, err := StartPostgres(context.Background(), dir, PGOptions{}, logTo(t))
	if err != nil {
		t.Fatal(err)
	}
	pg.Kill()
	pg, stop, err := StartPostgres(context.Background(), dir, PGOptions{}, logTo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	pg.SQL(t, "select 1")
}

func TestPostgresInAClosedFolder(t *testing.T) {
	closed := filepath.Join(folder(t, "closed"), "home")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "pg")
	for range 2 {
		pg, stop, err := StartPostgres(context.Background(), dir, PGOptions{}, logTo(t))
		if err != nil {
			t.Fatal(err)
		}
		pg.SQL(t, "create table if not exists kept (x int)")
		stop()
	}
	if target, err := os.Readlink(filepath.Join(dir, "data")); err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(target)) })
	}
}

func TestPostgresOfAnotherMajor(t *testing.T) {
	pg := Postgres(t, PGOptions{Major: 18})
	if !strings.HasPrefix(pg.Version, "18.") {
		t.Errorf("version = %s", pg.Version)
	}
	pg.SQL(t, "select 1")
}
