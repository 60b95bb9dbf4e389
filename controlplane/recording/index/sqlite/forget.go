package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/query"
	"github.com/posterngate/postern/pkg/postern"
)

// Hold implements index.Index.
func (x *Index) Hold(ctx context.Context, id postern.SessionID, reason string) error {
	err := x.commit.alone(ctx, func(tx *sql.Conn) error {
		res, err := tx.ExecContext(ctx, `UPDATE session SET legal_hold=? WHERE id=?`, reason, string(id))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, index.ErrNotFound)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("index: hold session %s: %w", id, err)
	}
	return nil
}

// End implements index.Index.
func (x *Index) End(ctx context.Context, id postern.SessionID, next uint32, reason string) error {
	err := x.commit.alone(ctx, func(tx *sql.Conn) error {
		res, err := tx.ExecContext(ctx, x.Ending(), reason, string(id), int64(next))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n != 1 {
			return errors.Join(err, index.ErrConflict)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("index: end session %s: %w", id, err)
	}
	return nil
}

// Forget implements index.Index.
func (x *Index) Forget(ctx context.Context, ids []postern.SessionID) ([]postern.SessionID, error) {
	var gone []postern.SessionID
	err := x.commit.alone(ctx, func(tx *sql.Conn) error {
		if _, err := tx.ExecContext(ctx, `CREATE TEMP TABLE IF NOT EXISTS gone (no INTEGER PRIMARY KEY, day INTEGER NOT NULL)`); err != nil {
			return err
		}
		// What was said is not to stay in pages that nothing is in any more. It costs writes,
		// and so is for this alone.
		if _, err := tx.ExecContext(ctx, `PRAGMA secure_delete=ON`); err != nil {
			return err
		}
		defer func() { _, _ = tx.ExecContext(ctx, `PRAGMA secure_delete=FAST`) }() // else writing is slower
		for _, id := range ids {
			res, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO gone SELECT no, day FROM session s WHERE id=? AND end_us<>0 AND `+query.NotHeld, string(id))
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil {
				return err
			} else if n == 1 {
				gone = append(gone, id)
			}
		}
		for _, text := range []string{
			`DELETE FROM chunk WHERE session_no IN (SELECT no FROM gone)`,
			`DELETE FROM statement WHERE session_no IN (SELECT no FROM gone)`,
			`DELETE FROM pack_word WHERE rowid IN (SELECT no FROM pack WHERE session_no IN (SELECT no FROM gone))`,
			`DELETE FROM pack WHERE session_no IN (SELECT no FROM gone)`,
			`DELETE FROM span WHERE session_no IN (SELECT no FROM gone)`,
			`DELETE FROM said WHERE session_no IN (SELECT no FROM gone)`,
			`DELETE FROM touch WHERE session_no IN (SELECT no FROM gone)`,
			`DELETE FROM session WHERE no IN (SELECT no FROM gone)`,
			`DELETE FROM gone WHERE day IN (SELECT day FROM session)`, // its texts are still used
			`DELETE FROM word WHERE rowid IN (SELECT no FROM wording WHERE day IN (SELECT day FROM gone))`,
			`DELETE FROM wording WHERE day IN (SELECT day FROM gone)`,
			`DELETE FROM gone`,
			mergeWords("word"), mergeWords("pack_word"),
		} {
			if _, err := tx.ExecContext(ctx, text); err != nil {
				return err
			}
		}
		clear(x.commit.wordings)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("index: forget %d sessions: %w", len(ids), err)
	}
	return gone, nil
}

// mergeWords has FTS5 write anew what is left of those parts of a table of which a tenth is
// gone, so that no words stay there of what is: at most so many pages at a time, for all who
// write wait.
func mergeWords(table string) string {
	return fmt.Sprintf(`INSERT INTO %[1]s (%[1]s, rank) VALUES ('merge', 10000)`, table)
}
