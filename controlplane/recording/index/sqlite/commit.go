package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/index"
)

// Commit implements index.Index.
func (x *Index) Commit(ctx context.Context, u *index.Update) (err error) {
	tx, err := x.writer.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("index: commit: %w", err)
	}
	defer func() {
		if err != nil {
			_ = tx.Rollback() // the error that led here says more
		}
	}()
	if err := putSession(ctx, tx, u); err != nil {
		return err
	}
	for _, part := range []func(context.Context, *sql.Tx, *index.Update) error{putChunk, putStatements, putOutcomes, putTouches} {
		if err := part(ctx, tx, u); err != nil {
			return fmt.Errorf("index: commit chunk %d of session %s: %w", u.Head.Next-1, u.Session.GetId(), err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("index: commit: %w", err)
	}
	return nil
}

func micro(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return t.AsTime().UnixMicro()
}

// putSession makes or changes the row, if the chain stands just before the update.
func putSession(ctx context.Context, tx *sql.Tx, u *index.Update) error {
	s, h := u.Session, u.Head
	res, err := tx.ExecContext(ctx, `INSERT INTO session (id, subject, grant_id, task, resource, protocol, node, region, client_address,
			client_program, epoch, revision, start_us, end_us, end_reason, statements, denied, row_count, bytes, recording,
			next, previous, span_first, span_last, span_open, open_from, sealed, shipper, events, last_statement, node_key)
		SELECT ?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,?24,?25,?26,?27,?28,?29,?30,?31
		WHERE ?21 = 1 OR EXISTS (SELECT 1 FROM session WHERE id = ?1)
		ON CONFLICT (id) DO UPDATE SET subject=?2, grant_id=?3, task=?4, resource=?5, protocol=?6, node=?7, region=?8, client_address=?9,
			client_program=?10, epoch=?11, revision=?12, start_us=?13, end_us=?14, end_reason=?15, statements=?16, denied=?17, row_count=?18,
			bytes=?19, recording=?20, next=?21, previous=?22, span_first=?23, span_last=?24, span_open=?25, open_from=?26, sealed=?27,
			shipper=?28, events=?29, last_statement=?30, node_key=?31
		WHERE next = ?21 - 1`,
		s.GetId(), s.GetSubject(), s.GetGrant(), s.GetTask(), s.GetResource(), s.GetProtocol(), s.GetNode(), s.GetRegion(), s.GetClientAddress(),
		s.GetClientProgram(), s.GetVersion().GetEpoch(), s.GetVersion().GetRevision(), micro(s.GetStartTime()), micro(s.GetEndTime()), s.GetEndReason(),
		h.Tally.Statements, h.Tally.Denied, h.Tally.Rows, h.Tally.Bytes, s.GetRecording(),
		h.Next, h.Previous[:], int64(h.Span.First), int64(h.Span.Last), h.Span.Open, h.OpenFrom, h.Sealed, string(h.Node),
		h.Tally.Events, int64(h.Tally.Statement), nonNil(h.NodeKey))
	if err != nil {
		return fmt.Errorf("index: session %s: %w", s.GetId(), err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return index.ErrConflict
	}
	return nil
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func putChunk(ctx context.Context, tx *sql.Tx, u *index.Update) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO chunk (session, number, hash, size) VALUES (?,?,?,?)`,
		u.Session.GetId(), u.Head.Next-1, u.Hash[:], u.Size)
	return err
}

// putStatements writes the statements of the chunk, those that ended in it with their
// outcome at once, since most do.
func putStatements(ctx context.Context, tx *sql.Tx, u *index.Update) error {
	if len(u.Statements) == 0 {
		return nil
	}
	st, err := tx.PrepareContext(ctx, `INSERT INTO statement (session, number, seq, time_us, text, verdict, rule, reason, touched,
			settled, row_count, affected, code, tag, duration_us)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT (session, number) DO UPDATE SET verdict=excluded.verdict, rule=excluded.rule, reason=excluded.reason,
			touched=CASE excluded.touched WHEN 'null' THEN touched ELSE excluded.touched END,
			text=CASE excluded.text WHEN '' THEN text ELSE excluded.text END,
			settled=coalesce(excluded.settled, settled), row_count=coalesce(excluded.row_count, row_count),
			affected=coalesce(excluded.affected, affected), code=coalesce(excluded.code, code), tag=coalesce(excluded.tag, tag),
			duration_us=coalesce(excluded.duration_us, duration_us)`)
	if err != nil {
		return err
	}
	defer st.Close()
	ended := map[uint64]*index.Outcome{}
	for i := range u.Outcomes {
		ended[u.Outcomes[i].Number] = &u.Outcomes[i]
	}
	for i := range u.Statements {
		s := &u.Statements[i]
		touched, err := json.Marshal(s.Touched)
		if err != nil {
			return err
		}
		args := append(make([]any, 0, 15), u.Session.GetId(), int64(s.Number), int64(s.Seq), s.Time.UnixMicro(), s.Text, int(s.Verdict), s.Rule, s.Reason, string(touched))
		if o := ended[s.Number]; o != nil {
			args = append(args, outcome(o)...)
		} else {
			args = append(args, nil, nil, nil, nil, nil, nil)
		}
		if _, err := st.ExecContext(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func outcome(o *index.Outcome) []any {
	return []any{int(o.Verdict), o.Rows, o.Affected, o.Code, o.Tag, int64(o.Duration / time.Microsecond)}
}

// putOutcomes writes those of statements that began in an earlier chunk.
func putOutcomes(ctx context.Context, tx *sql.Tx, u *index.Update) error {
	began := map[uint64]bool{}
	for i := range u.Statements {
		began[u.Statements[i].Number] = true
	}
	for i := range u.Outcomes {
		o := &u.Outcomes[i]
		if began[o.Number] {
			continue
		}
		if _, err := tx.ExecContext(ctx, `UPDATE statement SET settled=?, row_count=?, affected=?, code=?, tag=?, duration_us=? WHERE session=? AND number=?`,
			append(outcome(o), u.Session.GetId(), int64(o.Number))...); err != nil {
			return err
		}
	}
	return nil
}

func putTouches(ctx context.Context, tx *sql.Tx, u *index.Update) error {
	if len(u.Touches) == 0 {
		return nil
	}
	st, err := tx.PrepareContext(ctx, `INSERT INTO touch (name, session, role, mask, first_us, last_us, statements) VALUES (?,?,?,?,?,?,?)
		ON CONFLICT (name, session, mask) DO UPDATE SET role = role | excluded.role, last_us = max(last_us, excluded.last_us),
			statements = statements + excluded.statements`)
	if err != nil {
		return err
	}
	defer st.Close()
	for _, t := range u.Touches {
		if _, err := st.ExecContext(ctx, t.Column, u.Session.GetId(), int(t.Role), t.Mask, t.First.UnixMicro(), t.Last.UnixMicro(), t.Statements); err != nil {
			return err
		}
	}
	return nil
}
