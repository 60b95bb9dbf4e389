package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/query"
	"github.com/posterngate/postern/pkg/postern"
)

// Hold implements index.Index.
func (x *Index) Hold(ctx context.Context, id postern.SessionID, reason string) error {
	tag, err := x.pool.Exec(ctx, `UPDATE session SET legal_hold=$1 WHERE id=$2`, reason, string(id))
	if err == nil && tag.RowsAffected() != 1 {
		err = index.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("index: hold session %s: %w", id, err)
	}
	return nil
}

// End implements index.Index.
func (x *Index) End(ctx context.Context, id postern.SessionID, next uint32, reason string) error {
	tag, err := x.pool.Exec(ctx, x.Ending(), reason, string(id), int64(next))
	if err == nil && tag.RowsAffected() != 1 {
		err = index.ErrConflict
	}
	if err != nil {
		return fmt.Errorf("index: end session %s: %w", id, err)
	}
	return nil
}

// Forget implements index.Index. The partitions of a day that has no session any more
// are dropped; where one is held, the rows of the others are deleted.
func (x *Index) Forget(ctx context.Context, ids []postern.SessionID) ([]postern.SessionID, error) {
	gone, err := x.forget(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("index: forget %d sessions: %w", len(ids), err)
	}
	return gone, nil
}

func (x *Index) forget(ctx context.Context, ids []postern.SessionID) ([]postern.SessionID, error) {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	tx, err := x.pool.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	// Dropping waits for readers of the partition, and must not make others wait for long.
	if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '5s'`); err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, partitionLock); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `DELETE FROM session s WHERE id = ANY($1) AND end_us <> 0 AND `+query.NotHeld+` RETURNING id, no, day`, names)
	if err != nil {
		return nil, err
	}
	type gone struct {
		ID  string
		No  int64
		Day int32
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[gone])
	if err != nil {
		return nil, err
	}
	byDay := map[int32][]int64{}
	out := make([]postern.SessionID, 0, len(list))
	for _, g := range list {
		out = append(out, postern.SessionID(g.ID))
		byDay[g.Day] = append(byDay[g.Day], g.No)
	}
	for day, numbers := range byDay {
		if err := forgetDay(ctx, tx, day, numbers); err != nil {
			return nil, err
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.days)
	clear(x.wordings)
	return out, nil
}

func forgetDay(ctx context.Context, tx pgx.Tx, day int32, numbers []int64) error {
	var more bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM session WHERE day = $1)`, day).Scan(&more); err != nil {
		return err
	}
	for _, table := range partitioned {
		var err error
		switch {
		case more && table == "wording": // the others of the day may use it
		case more:
			_, err = tx.Exec(ctx, `DELETE FROM `+table+` WHERE day = $1 AND session_no = ANY($2)`, day, numbers)
		default:
			if _, err = tx.Exec(ctx, `DROP TABLE IF EXISTS `+partitionOf(table, index.Day(day))); err == nil {
				_, err = tx.Exec(ctx, `DELETE FROM `+table+` WHERE day = $1`, day) // what has no partition of its own
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
