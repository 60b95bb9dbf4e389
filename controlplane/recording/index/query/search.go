package query

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/record"
)

// common is how many wordings may match for a question to begin with them; beyond it,
// statements are looked through by time, where some that match are soon found.
const common = 5000

// Search implements index.Index.
func (r *Reader) Search(ctx context.Context, q index.Query) ([]index.Found, error) {
	s := search{r: r, q: q, sessions: map[int64]*typesv1.Session{}}
	err := s.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("index: search: %w", err)
	}
	return s.found, nil
}

type search struct {
	r        *Reader
	q        index.Query
	match    string // for the dialect's Matching; empty where no text is asked for
	often    bool   // many wordings match
	found    []index.Found
	sessions map[int64]*typesv1.Session
}

func (s *search) run(ctx context.Context) error {
	s.q.Limit = page(s.q.Limit)
	if s.q.Text != "" {
		terms, prefix := index.Terms(s.q.Text)
		if len(terms) == 0 {
			return errors.New("the text has no word to search for")
		}
		s.match = s.r.Dialect.Match(terms, prefix)
		var n int
		if err := s.r.DB.QueryRowContext(ctx, s.r.bind(`SELECT count(*) FROM (SELECT 1 FROM (`+s.r.Dialect.Matching+`) m LIMIT ?) n`), s.match, common).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		s.often = n == common
	}
	oldest, newest, err := s.bounds(ctx)
	if err != nil {
		return err
	}
	// The newest statements are looked for in ever longer times, so that a page of what
	// happens often costs no more than the page.
	for size := int64(1); newest >= oldest && len(s.found) < s.q.Limit; size *= 4 {
		from := max(oldest, newest-size+1)
		if err := s.between(ctx, from, newest); err != nil {
			return err
		}
		newest = from - 1
	}
	return nil
}

// bounds are the first and last minute to look at.
func (s *search) bounds(ctx context.Context) (oldest, newest int64, err error) {
	var first, last sql.NullInt64
	if err := s.r.DB.QueryRowContext(ctx, `SELECT (SELECT min(minute) FROM span), (SELECT max(minute) FROM span)`).Scan(&first, &last); err != nil || !first.Valid {
		return 0, -1, err
	}
	oldest, newest = first.Int64, last.Int64
	if !s.q.Since.IsZero() {
		oldest = max(oldest, index.Minute(s.q.Since))
	}
	if !s.q.Until.IsZero() {
		newest = min(newest, index.Minute(s.q.Until))
	}
	if s.q.Before != nil {
		newest = min(newest, index.Minute(s.q.Before.Time))
	}
	return oldest, newest, nil
}

// marks are the minutes of sessions to look into.
func (s *search) marks(from, to int64) (string, []any) {
	switch {
	case s.match != "" && !s.often:
		return `SELECT session_no, minute, min(first_number) AS first_number, max(last_number) AS last_number FROM said
			WHERE wording IN (` + s.r.Dialect.Matching + `) AND minute BETWEEN ? AND ? GROUP BY session_no, minute`, []any{s.match, from, to}
	case s.q.Column != "":
		return `SELECT session_no, minute, min(first_number) AS first_number, max(last_number) AS last_number FROM touch
			WHERE name = ? AND minute BETWEEN ? AND ? GROUP BY session_no, minute`, []any{s.q.Column, from, to}
	}
	return `SELECT session_no, minute, first_number, last_number FROM span WHERE minute BETWEEN ? AND ?`, []any{from, to}
}

// between adds what the minutes from and to, and those between, have.
func (s *search) between(ctx context.Context, from, to int64) error {
	marks, args := s.marks(from, to)
	c := clause{args: args}
	q := &s.q
	for _, f := range []struct{ column, value string }{
		{"s.id", q.Session}, {"s.subject", q.Subject}, {"s.task", q.Task}, {"s.resource", q.Resource}, {"s.account", q.Account}, {"s.node", q.Node},
	} {
		c.add(f.value != "", f.column+" = ?", f.value)
	}
	c.add(s.match != "", "st.wording IN ("+s.r.Dialect.Matching+")", s.match)
	if q.Verdict != nil {
		c.add(true, "coalesce(st.settled, st.verdict) = ?", int64(*q.Verdict))
	}
	c.add(!q.Since.IsZero(), "st.time_us >= ?", q.Since.UnixMicro())
	c.add(!q.Until.IsZero(), "st.time_us < ?", q.Until.UnixMicro())
	if q.Before != nil {
		c.add(true, "(st.time_us, s.id, st.number) < (?, ?, ?)", q.Before.Time.UnixMicro(), q.Before.Session, int64(q.Before.Number))
	}
	text := `SELECT s.no, ` + rowColumns + ` FROM (` + marks + `) p CROSS JOIN session s` + fmt.Sprintf(s.r.statementsOf(), markedStatement) +
		` WHERE s.no = p.session_no AND ` + c.String() + ` ORDER BY st.time_us DESC, s.id DESC, st.number DESC`
	if q.Column == "" {
		text += fmt.Sprintf(" LIMIT %d", q.Limit-len(s.found))
	}
	full := errors.New("the page is full")
	var numbers []int64
	first := len(s.found)
	err := s.r.rows(ctx, text, c.args, func(scan func(...any) error) error {
		var no int64
		row, err := scanRow(scan, &no)
		if err != nil {
			return err
		}
		if q.Column != "" && !touches(row.Touched, q.Column, q.Roles) {
			return nil
		}
		numbers = append(numbers, no)
		s.found = append(s.found, index.Found{Row: row})
		if len(s.found) == q.Limit {
			return full
		}
		return nil
	})
	if err != nil && !errors.Is(err, full) {
		return err
	}
	for i, no := range numbers {
		if s.found[first+i].Session, err = s.r.numbered(ctx, s.sessions, no); err != nil {
			return err
		}
	}
	return nil
}

// markedStatement are the statements of a mark p.
const markedStatement = `AND st.number BETWEEN p.first_number AND p.last_number AND st.time_us >= p.minute * 60000000 AND st.time_us < (p.minute + 1) * 60000000`

// touches reports whether a statement used a column or relation in one of the roles.
func touches(touched []record.Touch, name string, roles record.Role) bool {
	for _, t := range touched {
		if (t.Column == name || index.RelationOf(t.Column) == name) && (roles == 0 || t.Role&roles != 0) {
			return true
		}
	}
	return false
}

// numbered is a session by its number, which is then kept in known.
func (r *Reader) numbered(ctx context.Context, known map[int64]*typesv1.Session, no int64) (*typesv1.Session, error) {
	if s := known[no]; s != nil {
		return s, nil
	}
	_, s, err := scanSession(r.DB.QueryRowContext(ctx, r.bind(`SELECT `+sessionColumns+` FROM session s WHERE s.no = ?`), no).Scan)
	if err != nil {
		return nil, err
	}
	known[no] = s
	return s, nil
}

func micro(t time.Time, otherwise int64) int64 {
	if t.IsZero() {
		return otherwise
	}
	return t.UnixMicro()
}
