package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

const sessionColumns = `id, subject, grant_id, task, resource, protocol, node, region, client_address, client_program,
	epoch, revision, start_us, end_us, end_reason, statements, denied, row_count, bytes, recording, next`

func scanSession(scan func(...any) error) (*typesv1.Session, error) {
	s := &typesv1.Session{Version: &typesv1.Version{}}
	var start, end int64
	err := scan(&s.Id, &s.Subject, &s.Grant, &s.Task, &s.Resource, &s.Protocol, &s.Node, &s.Region, &s.ClientAddress, &s.ClientProgram,
		&s.Version.Epoch, &s.Version.Revision, &start, &end, &s.EndReason, &s.Statements, &s.Denied, &s.Rows, &s.Bytes, &s.Recording, &s.Chunks)
	s.StartTime = timestamppb.New(time.UnixMicro(start))
	if end != 0 {
		s.EndTime = timestamppb.New(time.UnixMicro(end))
	}
	return s, err
}

// Session implements index.Index.
func (x *Index) Session(ctx context.Context, id postern.SessionID) (*typesv1.Session, error) {
	s, err := scanSession(x.reader.QueryRowContext(ctx, `SELECT `+sessionColumns+` FROM session WHERE id = ?`, string(id)).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, index.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("index: session %s: %w", id, err)
	}
	return s, nil
}

// Sessions implements index.Index.
func (x *Index) Sessions(ctx context.Context, f index.Filter) ([]*typesv1.Session, error) {
	var where []string
	var args []any
	add := func(when bool, clause string, values ...any) {
		if when {
			where = append(where, clause)
			args = append(args, values...)
		}
	}
	add(f.Subject != "", "subject = ?", f.Subject)
	add(f.Task != "", "task = ?", f.Task)
	add(f.Resource != "", "resource = ?", f.Resource)
	add(f.Live, "end_us = 0")
	add(!f.Since.IsZero(), "start_us >= ?", f.Since.UnixMicro())
	add(!f.Until.IsZero(), "start_us < ?", f.Until.UnixMicro())
	if f.Before != nil {
		add(true, "(start_us, id) < (?, ?)", f.Before.Start.UnixMicro(), f.Before.ID)
	}
	query := `SELECT ` + sessionColumns + ` FROM session`
	if len(where) > 0 {
		query += ` WHERE ` + strings.Join(where, ` AND `)
	}
	args = append(args, max(1, min(f.Limit, index.MaxPage)))
	rows, err := x.reader.QueryContext(ctx, query+` ORDER BY start_us DESC, id DESC LIMIT ?`, args...)
	if err != nil {
		return nil, fmt.Errorf("index: list sessions: %w", err)
	}
	defer rows.Close()
	var list []*typesv1.Session
	for rows.Next() {
		s, err := scanSession(rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("index: list sessions: %w", err)
		}
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("index: list sessions: %w", err)
	}
	return list, nil
}

// Statements implements index.Index.
func (x *Index) Statements(ctx context.Context, id postern.SessionID, after uint64, limit int) ([]index.Row, error) {
	rows, err := x.reader.QueryContext(ctx, `SELECT number, seq, time_us, text, verdict, rule, reason, touched,
		settled, coalesce(row_count,0), coalesce(affected,0), coalesce(code,''), coalesce(tag,''), coalesce(duration_us,0)
		FROM statement WHERE session = ? AND number > ? ORDER BY number LIMIT ?`, string(id), int64(after), max(1, min(limit, index.MaxPage)))
	if err != nil {
		return nil, fmt.Errorf("index: statements of session %s: %w", id, err)
	}
	defer rows.Close()
	var list []index.Row
	for rows.Next() {
		var r index.Row
		var o index.Outcome
		var at, took int64
		var touched string
		var settled sql.NullInt64
		if err := rows.Scan(&r.Number, &r.Seq, &at, &r.Text, &r.Verdict, &r.Rule, &r.Reason, &touched,
			&settled, &o.Rows, &o.Affected, &o.Code, &o.Tag, &took); err != nil {
			return nil, fmt.Errorf("index: statements of session %s: %w", id, err)
		}
		r.Time = time.UnixMicro(at).UTC()
		if err := json.Unmarshal([]byte(touched), &r.Touched); err != nil {
			return nil, fmt.Errorf("index: statement %d of session %s: %w", r.Number, id, err)
		}
		if settled.Valid {
			o.Number, o.Verdict, o.Duration = r.Number, postern.Verdict(settled.Int64), time.Duration(took)*time.Microsecond
			r.Outcome = &o
		}
		list = append(list, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("index: statements of session %s: %w", id, err)
	}
	return list, nil
}
