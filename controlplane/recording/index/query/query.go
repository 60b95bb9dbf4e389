// Package query is what both implementations of index.Index read alike: SQL that SQLite
// and PostgreSQL understand, over the same tables.
package query

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// A Reader answers questions. It is safe for concurrent use.
type Reader struct {
	DB *sql.DB
	// Words are connections to the same rows. They are asked for what statements say while
	// an answer is read from DB, so a question never waits there for another question.
	Words   *sql.DB
	Dialect Dialect

	heads prepared
}

// prepared is a statement that is asked often, and so is prepared once. The zero value is
// ready.
type prepared struct {
	mu   sync.Mutex
	stmt *sql.Stmt // nil before the first use; it ends with its DB
}

func (p *prepared) on(ctx context.Context, db *sql.DB, q string) (*sql.Stmt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stmt != nil {
		return p.stmt, nil
	}
	stmt, err := db.PrepareContext(ctx, q)
	if err == nil {
		p.stmt = stmt
	}
	return stmt, err
}

// Dialect is what differs.
type Dialect struct {
	// Numbered places in a statement are $1, $2, ...; otherwise they are question marks.
	Numbered bool
	// StatementOf, PackOf and WordingOf join statement st, pack k and wording w to session s,
	// beside the session's and the statement's own numbers.
	StatementOf, PackOf, WordingOf string
	// ID is a wording's id as an argument.
	ID func(index.WordingID) any
	// Matching selects the wordings that match its one argument, which Match makes of
	// the terms of a question.
	Matching string
	// MatchingIDs selects the ids of these.
	MatchingIDs string
	// MatchingPacks selects the packs whose words match the same argument.
	MatchingPacks string
	Match         func(terms []string, prefix []bool) string
}

// bind gives a query the places of the dialect.
func (r *Reader) bind(q string) string {
	if !r.Dialect.Numbered {
		return q
	}
	var b strings.Builder
	n := 0
	for part := range strings.SplitSeq(q, "?") {
		if n > 0 {
			b.WriteString("$" + strconv.Itoa(n))
		}
		b.WriteString(part)
		n++
	}
	return b.String()
}

// rows calls each for every row of a query.
func (r *Reader) rows(ctx context.Context, q string, args []any, each func(scan func(...any) error) error) error {
	return r.rowsOf(ctx, r.DB, q, args, each)
}

func (r *Reader) rowsOf(ctx context.Context, db *sql.DB, q string, args []any, each func(scan func(...any) error) error) error {
	rows, err := db.QueryContext(ctx, r.bind(q), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// A clause collects what narrows a query.
type clause struct {
	where []string
	args  []any
}

func (c *clause) add(when bool, text string, values ...any) {
	if when {
		c.where = append(c.where, text)
		c.args = append(c.args, values...)
	}
}

func (c *clause) String() string {
	if len(c.where) == 0 {
		return "TRUE"
	}
	return strings.Join(c.where, " AND ")
}

const headOf = `SELECT next, previous, span_first, span_last, span_open, open_from, sealed, shipper,
		events, statements, denied, row_count, bytes, last_statement, node_key, recording FROM session WHERE id = ?`

// Head implements index.Index.
func (r *Reader) Head(ctx context.Context, id postern.SessionID) (index.Head, error) {
	var h index.Head
	var previous []byte
	var state record.State
	ask, err := r.heads.on(ctx, r.DB, r.bind(headOf)) //nolint:sqlclosecheck // it ends with its DB
	if err != nil {
		return index.Head{}, fmt.Errorf("index: head of session %s: %w", id, err)
	}
	err = ask.QueryRowContext(ctx, string(id)).Scan(
		&h.Next, &previous, &h.Span.First, &h.Span.Last, &h.Span.Open, &h.OpenFrom, &h.Sealed, &h.Node,
		&h.Tally.Events, &h.Tally.Statements, &h.Tally.Denied, &h.Tally.Rows, &h.Tally.Bytes, &h.Tally.Statement, &h.NodeKey, &state)
	if errors.Is(err, sql.ErrNoRows) {
		return index.Head{}, nil
	}
	h.Lost = state == record.StateTruncated && !h.Sealed
	if err == nil {
		h.Previous, err = hash(previous)
	}
	if err != nil {
		return index.Head{}, fmt.Errorf("index: head of session %s: %w", id, err)
	}
	return h, nil
}

func hash(b []byte) (record.Hash, error) {
	if len(b) != len(record.Hash{}) {
		return record.Hash{}, fmt.Errorf("a hash of %d bytes", len(b))
	}
	return record.Hash(b), nil
}

// Chunk implements index.Index.
func (r *Reader) Chunk(ctx context.Context, id postern.SessionID, number uint32) (record.Hash, error) {
	var b []byte
	err := r.DB.QueryRowContext(ctx, r.bind(`SELECT c.hash FROM session s JOIN chunk c ON c.session_no = s.no WHERE s.id = ? AND c.number = ?`),
		string(id), int64(number)).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return record.Hash{}, index.ErrNotFound
	}
	if err != nil {
		return record.Hash{}, fmt.Errorf("index: chunk %d of session %s: %w", number, id, err)
	}
	return hash(b)
}

const sessionColumns = `s.no, s.id, s.subject, s.workload, s.groups, s.grant_id, s.task, s.resource, s.account, s.database_name, s.protocol, s.node, s.region,
	s.client_address, s.client_program, s.epoch, s.revision, s.start_us, s.last_us, s.end_us, s.end_reason, s.statements, s.denied, s.row_count,
	s.bytes, s.recording, s.legal_hold, s.next, s.actors, s.doubt`

func scanSession(scan func(...any) error) (no int64, s *typesv1.Session, err error) {
	s = &typesv1.Session{Version: &typesv1.Version{}}
	var start, last, end int64
	var groups, actors string
	err = scan(&no, &s.Id, &s.Subject, &s.Workload, &groups, &s.Grant, &s.Task, &s.Resource, &s.Account, &s.Database, &s.Protocol, &s.Node, &s.Region,
		&s.ClientAddress, &s.ClientProgram, &s.Version.Epoch, &s.Version.Revision, &start, &last, &end, &s.EndReason, &s.Statements, &s.Denied, &s.Rows,
		&s.Bytes, &s.Recording, &s.LegalHold, &s.Chunks, &actors, &s.Doubt)
	if err != nil {
		return 0, nil, err
	}
	s.StartTime, s.LastTime = timestamppb.New(time.UnixMicro(start)), timestamppb.New(time.UnixMicro(last))
	if end != 0 {
		s.EndTime = timestamppb.New(time.UnixMicro(end))
	}
	return no, s, errors.Join(json.Unmarshal([]byte(groups), &s.Groups), json.Unmarshal([]byte(actors), &s.Actors))
}

// Session implements index.Index.
func (r *Reader) Session(ctx context.Context, id postern.SessionID) (*typesv1.Session, error) {
	if record.CheckSession(id) != nil { // PostgreSQL fails where a text can be none
		return nil, index.ErrNotFound
	}
	_, s, err := scanSession(r.DB.QueryRowContext(ctx, r.bind(`SELECT `+sessionColumns+` FROM session s WHERE s.id = ?`), string(id)).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, index.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("index: session %s: %w", id, err)
	}
	return s, nil
}

// NotRaw leaves out the rows s of raw recordings, which are no sessions, and NotHeld those
// that are kept beyond their time: what is raw is kept with its session.
const (
	NotRaw  = `substr(s.id, length(s.id) - 3) <> '_raw'`
	NotHeld = `s.legal_hold = '' AND (` + NotRaw + ` OR NOT EXISTS (
		SELECT 1 FROM session h WHERE h.id = substr(s.id, 1, length(s.id) - 4) AND h.legal_hold <> ''))`
)

// Sessions implements index.Index.
func (r *Reader) Sessions(ctx context.Context, f index.Filter) ([]*typesv1.Session, error) {
	var c clause
	c.add(true, NotRaw)
	c.add(f.Subject != "", "s.subject = ?", f.Subject)
	c.add(f.Task != "", "s.task = ?", f.Task)
	c.add(f.Resource != "", "s.resource = ?", f.Resource)
	c.add(f.People, "s.workload = ''")
	c.add(f.Live, "s.end_us = 0")
	c.add(!f.Since.IsZero(), "s.start_us >= ?", f.Since.UnixMicro())
	c.add(!f.Until.IsZero(), "s.start_us < ?", f.Until.UnixMicro())
	if f.Before != nil {
		c.add(true, "(s.start_us, s.id) < (?, ?)", f.Before.Start.UnixMicro(), f.Before.ID)
	}
	list, err := r.sessions(ctx, `WHERE `+c.String()+` ORDER BY s.start_us DESC, s.id DESC LIMIT ?`, append(c.args, page(f.Limit))...)
	if err != nil {
		return nil, fmt.Errorf("index: list sessions: %w", err)
	}
	return list, nil
}

// Open implements index.Index.
func (r *Reader) Open(ctx context.Context, after postern.SessionID, limit int) ([]*typesv1.Session, error) {
	list, err := r.sessions(ctx, `WHERE s.recording = 'open' AND s.id > ? ORDER BY s.id LIMIT ?`, string(after), page(limit))
	if err != nil {
		return nil, fmt.Errorf("index: list open recordings: %w", err)
	}
	return list, nil
}

// Ending is the statement of End: the arguments are the reason, the id, and where the
// chain must stand.
func (r *Reader) Ending() string {
	return r.bind(`UPDATE session SET recording = 'truncated', end_reason = CASE end_us WHEN 0 THEN ? ELSE end_reason END,
		end_us = CASE end_us WHEN 0 THEN last_us ELSE end_us END WHERE id = ? AND next = ? AND recording = 'open'`)
}

// Old implements index.Index.
func (r *Reader) Old(ctx context.Context, before time.Time) ([]*typesv1.Session, error) {
	list, err := r.sessions(ctx, `WHERE s.day < ? AND s.end_us <> 0 AND `+NotHeld+` ORDER BY s.day, s.no LIMIT ?`, int64(index.DayOf(before)), index.MaxPage)
	if err != nil {
		return nil, fmt.Errorf("index: list old sessions: %w", err)
	}
	return list, nil
}

func (r *Reader) sessions(ctx context.Context, rest string, args ...any) (list []*typesv1.Session, err error) {
	err = r.rows(ctx, `SELECT `+sessionColumns+` FROM session s `+rest, args, func(scan func(...any) error) error {
		_, s, err := scanSession(scan)
		list = append(list, s)
		return err
	})
	return list, err
}

func page(limit int) int { return max(1, min(limit, index.MaxPage)) }

const rowColumns = `st.number, st.seq, st.time_us, coalesce(w.text, ''), st.verdict, st.rule, st.reason, coalesce(w.touched, 'null'),
	st.settled, coalesce(st.row_count, 0), coalesce(st.bytes, 0), coalesce(st.affected, 0), coalesce(st.code, ''), coalesce(st.tag, ''), coalesce(st.duration_us, 0)`

// scanRow reads a statement, and what stands before it in the row.
func scanRow(scan func(...any) error, before ...any) (index.Row, error) {
	var r index.Row
	var o index.Outcome
	var at, took int64
	var touched string
	var settled sql.NullInt64
	err := scan(append(before, &r.Number, &r.Seq, &at, &r.Text, &r.Verdict, &r.Rule, &r.Reason, &touched,
		&settled, &o.Rows, &o.Bytes, &o.Affected, &o.Code, &o.Tag, &took)...)
	if err != nil {
		return r, err
	}
	r.Time = time.UnixMicro(at).UTC()
	if settled.Valid {
		o.Number, o.Verdict, o.Duration = r.Number, postern.Verdict(settled.Int64), time.Duration(took)*time.Microsecond
		r.Outcome = &o
	}
	if err := json.Unmarshal([]byte(touched), &r.Touched); err != nil {
		return r, fmt.Errorf("statement %d: %w", r.Number, err)
	}
	return r, nil
}

// statementsOf joins the statements of session s with their wordings.
func (r *Reader) statementsOf() string {
	return ` JOIN statement st ON st.session_no = s.no` + r.Dialect.StatementOf + ` %s LEFT JOIN wording w ON ` + r.Dialect.WordingOf
}
