package twoworlds

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/test/servers"
)

// A target is a connection of the superuser that is kept.
type target struct {
	mu   sync.Mutex
	conn *pgconn.PgConn
}

// Targets runs SQL in both worlds as the superuser, past Postern, and returns the rows
// of each.
func (w *Worlds) Targets(ctx context.Context, sql string) (rows [2][][]string, err error) {
	err = both(ctx, func(ctx context.Context, i int) (err error) {
		rows[i], err = w.super[i].exec(ctx, w.PG[i], sql)
		return err
	})
	return rows, err
}

func (t *target) exec(ctx context.Context, pg *servers.PG, sql string) ([][]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == nil || t.conn.IsClosed() {
		conn, err := pgconn.Connect(ctx, pg.SuperDSN("warehouse"))
		if err != nil {
			return nil, fmt.Errorf("reach the target: %w", err)
		}
		t.conn = conn
	}
	results, err := t.conn.Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 {
		return nil, err
	}
	var rows [][]string
	for _, r := range results[len(results)-1].Rows {
		row := make([]string, len(r))
		for i, v := range r {
			row[i] = string(v)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (t *target) close(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn != nil {
		_ = t.conn.Close(ctx)
	}
}
