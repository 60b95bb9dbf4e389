package query

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// common is how many wordings may match for a question to begin with them; beyond it,
// statements are looked through by time, where some that match are soon found.
const common = 5000

// Search implements index.Index.
func (r *Reader) Search(ctx context.Context, q index.Query) ([]index.Found, error) {
	s := search{r: r, q: q, words: newWordings(r), sessions: map[int64]*typesv1.Session{}}
	err := s.run(ctx)
	if err != nil {
		return nil, fmt.Errorf("index: search: %w", err)
	}
	return s.found, nil
}

type search struct {
	r        *Reader
	q        index.Query
	terms    []string
	prefix   []bool
	places   []int                    // of all terms
	match    string                   // for the dialect's Matching; empty where no text is asked for
	often    bool                     // many wordings or packs match
	matching map[index.WordingID]bool // all that match, where they are few
	words    *wordings                // of packs
	found    []index.Found
	sessions map[int64]*typesv1.Session
}

func (s *search) run(ctx context.Context) error {
	s.q.Limit = page(s.q.Limit)
	if s.q.Text != "" {
		if s.terms, s.prefix = index.Terms(s.q.Text); len(s.terms) == 0 {
			return errors.New("the text has no word to search for")
		}
		for at := range s.terms {
			s.places = append(s.places, at)
		}
		s.match = s.r.Dialect.Match(s.terms, s.prefix)
		if any, err := s.matches(ctx); err != nil || !any {
			return err
		}
	}
	oldest, last, err := s.bounds(ctx)
	if err != nil {
		return err
	}
	// The newest statements are looked for in ever longer times, so that a page of what
	// happens often costs no more than the page.
	for size := int64(1); last >= oldest && len(s.found) < s.q.Limit; size *= 4 {
		from := max(oldest, last-size+1)
		if err := s.between(ctx, from, last); err != nil {
			return err
		}
		last = from - 1
	}
	return nil
}

// matches finds the wordings that have the words, unless they are many, and reports
// whether there is any, or any pack.
func (s *search) matches(ctx context.Context) (bool, error) {
	s.matching = map[index.WordingID]bool{}
	n := 0
	err := s.r.rows(ctx, s.r.Dialect.MatchingIDs+` LIMIT ?`, []any{s.match, common}, func(scan func(...any) error) error {
		var id wordingID
		err := scan(&id)
		s.matching[index.WordingID(id)] = true
		n++
		return err
	})
	if err != nil {
		return false, err
	}
	var packs int
	err = s.r.DB.QueryRowContext(ctx, s.r.bind(`SELECT count(*) FROM (`+s.r.Dialect.MatchingPacks+` LIMIT ?) k`), s.match, common).Scan(&packs)
	s.often = n == common || packs == common
	return n+packs > 0, err
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
	b := newest{limit: s.q.Limit - len(s.found)}
	if err := s.loose(ctx, from, to, &b); err != nil {
		return err
	}
	if s.q.Verdict == nil || *s.q.Verdict == postern.VerdictAllow { // packed is what was let through
		if err := s.packed(ctx, from, to, &b); err != nil {
			return err
		}
	}
	for _, h := range b.sorted() {
		var err error
		if h.packed != nil {
			if err := s.words.look(ctx, h.day, idOf(h.packed), s.judge); err != nil {
				return err
			}
			h.row = s.words.of(h.day, h.packed.Wording).row(h.packed)
		}
		f := index.Found{Row: h.row}
		if f.Session, err = s.r.numbered(ctx, s.sessions, h.no); err != nil {
			return err
		}
		s.found = append(s.found, f)
	}
	return nil
}

func idOf(p *index.Packed) map[index.WordingID]bool {
	if p.Wording == nil {
		return nil
	}
	return map[index.WordingID]bool{*p.Wording: true}
}

// ofSessions narrows to sessions s of the question.
func (s *search) ofSessions(c *clause) {
	q := &s.q
	for _, f := range []struct{ column, value string }{
		{"s.id", q.Session}, {"s.subject", q.Subject}, {"s.task", q.Task}, {"s.resource", q.Resource}, {"s.account", q.Account}, {"s.node", q.Node},
	} {
		c.add(f.value != "", f.column+" = ?", f.value)
	}
}

// loose are statements that have rows of their own.
func (s *search) loose(ctx context.Context, from, to int64, b *newest) error {
	marks, args := s.marks(from, to)
	c := clause{args: args}
	q := &s.q
	s.ofSessions(&c)
	c.add(s.match != "", "st.wording IN ("+s.r.Dialect.Matching+")", s.match)
	if q.Verdict != nil {
		c.add(true, "coalesce(st.settled, st.verdict) = ?", int64(*q.Verdict))
	}
	c.add(!q.Since.IsZero(), "st.time_us >= ?", q.Since.UnixMicro())
	c.add(!q.Until.IsZero(), "st.time_us < ?", q.Until.UnixMicro())
	if q.Before != nil {
		c.add(true, "(st.time_us, s.id, st.number) < (?, ?, ?)", q.Before.Time.UnixMicro(), q.Before.Session, int64(q.Before.Number))
	}
	text := `SELECT s.no, s.id, ` + rowColumns + ` FROM (` + marks + `) p CROSS JOIN session s` + fmt.Sprintf(s.r.statementsOf(), markedStatement) +
		` WHERE s.no = p.session_no AND ` + c.String() + ` ORDER BY st.time_us DESC, s.id DESC, st.number DESC`
	if q.Column == "" {
		text += fmt.Sprintf(" LIMIT %d", b.limit)
	}
	err := s.r.rows(ctx, text, c.args, func(scan func(...any) error) error {
		var h hit
		var err error
		if h.row, err = scanRow(scan, &h.no, &h.id); err != nil {
			return err
		}
		if q.Column != "" && !touches(h.row.Touched, q.Column, q.Roles) {
			return nil
		}
		h.spot = spot{h.row.Time.UnixMicro(), h.id, h.row.Number}
		if b.add(h); len(b.hits) == b.limit {
			return errFull
		}
		return nil
	})
	if errors.Is(err, errFull) {
		return nil
	}
	return err
}

// errFull ends the reading of an answer that is known.
var errFull = errors.New("the page is full")

// packed are statements of packs, those that ended last first. Where a few packs give a
// page, the others are not read.
func (s *search) packed(ctx context.Context, from, to int64, b *newest) error {
	marks, args := s.marks(from, to)
	if s.match != "" && !s.often {
		marks += ` UNION ALL SELECT session_no, 0, first_number, last_number FROM (` + s.r.Dialect.MatchingPacks + `) k WHERE last_us >= ? AND first_us < ?`
		args = append(args, s.match, from*index.MinuteMicros, (to+1)*index.MinuteMicros)
	}
	c := clause{args: args}
	q := &s.q
	s.ofSessions(&c)
	c.add(!q.Since.IsZero(), "k.last_us >= ?", q.Since.UnixMicro())
	c.add(!q.Until.IsZero(), "k.first_us < ?", q.Until.UnixMicro())
	if q.Before != nil {
		c.add(true, "k.first_us <= ?", q.Before.Time.UnixMicro())
	}
	text := `SELECT ` + packColumns + ` FROM (` + marks + `) p CROSS JOIN session s` + s.r.packsOf() +
		` WHERE s.no = p.session_no AND ` + c.String() + ` ORDER BY k.last_us DESC`
	seen := map[[2]int64]bool{}
	for _, limit := range []string{fmt.Sprintf(" LIMIT %d", packs), ""} {
		n := 0
		err := s.r.rows(ctx, text+limit, c.args, func(scan func(...any) error) error {
			p, err := scanPack(scan)
			if err != nil {
				return err
			}
			if n++; b.full() && p.last < b.floor.at {
				return errFull
			}
			if key := [2]int64{p.no, p.first}; !seen[key] { // it may have several minutes
				seen[key] = true
				return s.unpack(ctx, &p, from, to, b)
			}
			return nil
		})
		if errors.Is(err, errFull) {
			return nil
		}
		if err != nil || n < packs {
			return err
		}
	}
	return nil
}

// unpack adds what is asked for of one pack.
func (s *search) unpack(ctx context.Context, p *packedRow, from, to int64, b *newest) error {
	first, end := from*index.MinuteMicros, (to+1)*index.MinuteMicros
	if !s.q.Since.IsZero() {
		first = max(first, s.q.Since.UnixMicro())
	}
	if !s.q.Until.IsZero() {
		end = min(end, s.q.Until.UnixMicro())
	}
	before := spot{math.MaxInt64, "", 0}
	if s.q.Before != nil {
		before = spot{s.q.Before.Time.UnixMicro(), s.q.Before.Session, s.q.Before.Number}
	}
	read := s.q.Column != "" || s.often // what they say
	var hits []hit
	ids := map[index.WordingID]bool{}
	err := p.each(func(st *index.Packed) error {
		at := st.Time.UnixMicro()
		switch where := (spot{at, p.id, st.Number}); {
		case at < first || at >= end || !where.less(before) || b.full() && where.less(b.floor),
			s.match != "" && !s.often && st.Literals == "" && (st.Wording == nil || !s.matching[*st.Wording]):
		default:
			one := *st
			hits = append(hits, hit{no: p.no, id: p.id, day: p.day, packed: &one, spot: where})
			if (read || st.Literals != "") && st.Wording != nil {
				ids[*st.Wording] = true
			}
		}
		return nil
	})
	if err == nil {
		err = s.words.look(ctx, p.day, ids, s.judge)
	}
	if err != nil {
		return err
	}
	for _, h := range hits {
		if w := s.words.of(h.day, h.packed.Wording); !read && h.packed.Literals == "" || w.uses && len(s.lacks(w.missing, h.packed.Literals)) == 0 {
			b.add(h)
		}
	}
	return nil
}

// judge finds out how what is said is what is asked for.
func (s *search) judge(w *worded) {
	w.uses = s.q.Column == "" || touches(w.touched, s.q.Column, s.q.Roles)
	w.missing = s.lacks(s.places, w.text)
}

// lacks are those places of terms for which a text has no word.
func (s *search) lacks(places []int, text string) (missing []int) {
	if len(places) == 0 {
		return nil
	}
	words := index.Words(text)
	for _, at := range places {
		term := s.terms[at]
		if !slices.ContainsFunc(words, func(w string) bool { return w == term || s.prefix[at] && strings.HasPrefix(w, term) }) {
			missing = append(missing, at)
		}
	}
	return missing
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
