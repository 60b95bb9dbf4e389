package main

import (
	"testing"

	"github.com/posterngate/postern/test/servers"
)

// TestFillGoesOn: a first start that was broken off while the sample database was filled does not
// keep the next one from filling it.
func TestFillGoesOn(t *testing.T) {
	w := &warehouse{pg: servers.Postgres(t)}
	for _, s := range []string{"CREATE ROLE warehouse_rw NOLOGIN", "CREATE DATABASE filling"} {
		if _, err := w.pg.Exec(t.Context(), "postgres", s); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.pg.Exec(t.Context(), "filling", "CREATE SCHEMA sales"); err != nil {
		t.Fatal(err)
	}
	if err := w.fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows, err := w.pg.Exec(t.Context(), "warehouse", "SELECT 1 FROM sales.orders LIMIT 1"); err != nil || len(rows) != 1 {
		t.Errorf("%v, %v", rows, err)
	}
}
