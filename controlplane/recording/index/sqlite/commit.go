package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/index"
)

// A committer writes, through statements that are prepared once.
type committer struct {
	mu   sync.Mutex // one transaction at a time
	conn *sql.Conn

	begin, commit, rollback                   *sql.Stmt
	session, chunk, statement, later, outcome *sql.Stmt
	wording, known, word, span, said, touch   *sql.Stmt
	pack, packWord                            *sql.Stmt
	all                                       []*sql.Stmt

	// wordings are numbers of those that were written or met lately.
	wordings map[wordingKey]int64
	added    []wordingKey // in this transaction: unknown again if it fails
	// words are yet to be written in this transaction: in its end, since FTS5 writes what it
	// has gathered whenever a statement on another table may have to be undone.
	words []words
}

// words are a row for a table of FTS5.
type words struct {
	put   *sql.Stmt
	rowid int64
	text  string
}

type wordingKey struct {
	id  index.WordingID
	day index.Day
}

const maxWordings = 1 << 16

func newCommitter(ctx context.Context, db *sql.DB) (_ *committer, err error) {
	c := &committer{wordings: map[wordingKey]int64{}}
	if c.conn, err = db.Conn(ctx); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		into **sql.Stmt
		text string
	}{
		{&c.begin, `BEGIN IMMEDIATE`},
		{&c.commit, `COMMIT`},
		{&c.rollback, `ROLLBACK`},
		{&c.session, putSession},
		{&c.chunk, `INSERT INTO chunk (session_no, number, hash, size) VALUES (?,?,?,?)`},
		{&c.statement, `INSERT INTO statement (session_no, number, seq, time_us, wording, verdict, rule, reason,
				settled, row_count, bytes, affected, code, tag, duration_us)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING`},
		{&c.later, `UPDATE statement SET seq=?3, time_us=?4, wording=CASE ?5 WHEN 0 THEN wording ELSE ?5 END, verdict=?6, rule=?7, reason=?8
			WHERE session_no=?1 AND number=?2`},
		{&c.outcome, `UPDATE statement SET settled=?, row_count=?, bytes=?, affected=?, code=?, tag=?, duration_us=? WHERE session_no=? AND number=?`},
		{&c.pack, `INSERT INTO pack (session_no, first_number, last_number, first_us, last_us, body) VALUES (?,?,?,?,?,?)`},
		{&c.packWord, `INSERT INTO pack_word (rowid, words) VALUES (?,?)`},
		{&c.wording, `INSERT INTO wording (day, id, text, touched) VALUES (?,?,?,?) ON CONFLICT DO NOTHING`},
		{&c.known, `SELECT no FROM wording WHERE id=? AND day=?`},
		{&c.word, `INSERT INTO word (rowid, words) VALUES (?,?)`},
		{&c.span, `INSERT INTO span (minute, session_no, first_number, last_number, first_us, last_us, statements) VALUES (?,?,?,?,?,?,?)
			ON CONFLICT DO UPDATE SET first_number=min(first_number, excluded.first_number), last_number=max(last_number, excluded.last_number),
				first_us=min(first_us, excluded.first_us), last_us=max(last_us, excluded.last_us), statements=statements+excluded.statements`},
		{&c.said, `INSERT INTO said (wording, minute, session_no, first_number, last_number) VALUES (?,?,?,?,?)
			ON CONFLICT DO UPDATE SET first_number=min(first_number, excluded.first_number), last_number=max(last_number, excluded.last_number)`},
		{&c.touch, `INSERT INTO touch (name, minute, session_no, role, mask, first_number, last_number, first_us, last_us, statements) VALUES (?,?,?,?,?,?,?,?,?,?)
			ON CONFLICT DO UPDATE SET first_number=min(first_number, excluded.first_number), last_number=max(last_number, excluded.last_number),
				first_us=min(first_us, excluded.first_us), last_us=max(last_us, excluded.last_us), statements=statements+excluded.statements`},
	} {
		if *p.into, err = c.conn.PrepareContext(ctx, p.text); err != nil { //nolint:sqlclosecheck // close does
			return nil, errors.Join(err, c.close())
		}
		c.all = append(c.all, *p.into)
	}
	return c, nil
}

// close ends the statements, without which SQLite keeps the connection and with it the log of
// writes, and gives the connection back.
func (c *committer) close() error {
	var errs []error
	for _, s := range c.all {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.conn.Close())...)
}

// do implements index.Batcher's Commit.
func (c *committer) do(ctx context.Context, updates []*index.Update) (each []error, err error) {
	each = make([]error, len(updates))
	// An interrupt would have to be waited for at each row, and the file is near.
	ctx = context.WithoutCancel(ctx)
	err = c.alone(ctx, func(*sql.Conn) error {
		for i, u := range updates {
			err := c.update(ctx, u)
			if err != nil && !errors.Is(err, index.ErrConflict) {
				return fmt.Errorf("index: commit chunk %d of session %s: %w", u.From(), u.Session.GetId(), err)
			}
			each[i] = err
		}
		for _, w := range c.words {
			if _, err := w.put.ExecContext(ctx, w.rowid, w.text); err != nil {
				return fmt.Errorf("index: commit words: %w", err)
			}
		}
		return nil
	})
	return each, err
}

// alone calls fn in a transaction.
func (c *committer) alone(ctx context.Context, fn func(*sql.Conn) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.added, c.words = c.added[:0], c.words[:0]
	if _, err := c.begin.ExecContext(ctx); err != nil {
		return fmt.Errorf("index: begin: %w", err)
	}
	err := fn(c.conn)
	if err == nil {
		if _, err = c.commit.ExecContext(ctx); err != nil {
			err = fmt.Errorf("index: commit: %w", err)
		}
	}
	if err != nil {
		_, _ = c.rollback.ExecContext(context.WithoutCancel(ctx)) // the error that led here says more
		for _, k := range c.added {
			delete(c.wordings, k)
		}
	}
	return err
}

func (c *committer) update(ctx context.Context, u *index.Update) error {
	d, err := index.DigestOf(u)
	if err != nil {
		return err
	}
	no, err := c.putSession(ctx, u, d.Day)
	if err != nil {
		return err
	}
	for i, one := range u.Chunks {
		if _, err := c.chunk.ExecContext(ctx, no, int64(u.From())+int64(i), one.Hash[:], one.Size); err != nil {
			return err
		}
	}
	wordings, err := c.putWordings(ctx, d)
	if err != nil {
		return err
	}
	if err := c.putStatements(ctx, no, u, d, wordings); err != nil {
		return err
	}
	return c.putMarks(ctx, no, d, wordings)
}

func micro(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return t.AsTime().UnixMicro()
}

const putSession = `INSERT INTO session (id, day, subject, workload, groups, grant_id, task, resource, account, database_name, protocol, node, region,
		client_address, client_host, client_program, epoch, revision, start_us, last_us, end_us, end_reason, statements, denied, row_count, bytes, recording,
		next, previous, span_first, span_last, span_open, open_from, sealed, shipper, events, last_statement, node_key, actors, doubt)
	SELECT ?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,?24,?25,?26,?27,?28,?29,?30,?31,?32,?33,?34,?35,?36,?37,?38,?39,?41
	WHERE ?40 = 0 OR EXISTS (SELECT 1 FROM session WHERE id = ?1)
	ON CONFLICT (id) DO UPDATE SET account=?9, last_us=max(last_us, ?20), end_us=?21, end_reason=?22, statements=?23, denied=?24, row_count=?25, bytes=?26, recording=?27,
		next=?28, previous=?29, span_first=?30, span_last=?31, span_open=?32, open_from=?33, sealed=?34, shipper=?35, events=?36, last_statement=?37, node_key=?38
	WHERE next = ?40
	RETURNING no`

// putSession makes or changes the row, if the chain stands just before the update.
func (c *committer) putSession(ctx context.Context, u *index.Update, day index.Day) (no int64, err error) {
	s, h := u.Session, u.Head
	groups, err := json.Marshal(append([]string{}, s.GetGroups()...))
	if err != nil {
		return 0, err
	}
	actors, err := json.Marshal(append([]string{}, s.GetActors()...))
	if err != nil {
		return 0, err
	}
	err = c.session.QueryRowContext(ctx,
		s.GetId(), int64(day), s.GetSubject(), s.GetWorkload(), string(groups), s.GetGrant(), s.GetTask(), s.GetResource(), s.GetAccount(), s.GetDatabase(),
		s.GetProtocol(), s.GetNode(), s.GetRegion(), s.GetClientAddress(), host(s.GetClientAddress()), s.GetClientProgram(),
		s.GetVersion().GetEpoch(), s.GetVersion().GetRevision(), micro(s.GetStartTime()), micro(s.GetLastTime()), micro(s.GetEndTime()), s.GetEndReason(),
		h.Tally.Statements, h.Tally.Denied, h.Tally.Rows, h.Tally.Bytes, s.GetRecording(),
		int64(h.Next), h.Previous[:], int64(h.Span.First), int64(h.Span.Last), h.Span.Open, int64(h.OpenFrom), h.Sealed, string(h.Node),
		h.Tally.Events, int64(h.Tally.Statement), nonNil(h.NodeKey), string(actors), int64(u.From()), s.GetDoubt()).Scan(&no)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, index.ErrConflict
	}
	return no, err
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func host(address string) string {
	h, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return h
}

// putWordings tells the numbers of the digest's wordings, and writes those that are new.
func (c *committer) putWordings(ctx context.Context, d *index.Digest) ([]int64, error) {
	numbers := make([]int64, len(d.Wordings))
	for i := range d.Wordings {
		w := &d.Wordings[i]
		key := wordingKey{w.ID, d.Day}
		if no, ok := c.wordings[key]; ok {
			numbers[i] = no
			continue
		}
		res, err := c.wording.ExecContext(ctx, int64(d.Day), w.ID[:], w.Text, w.Touched)
		if err != nil {
			return nil, err
		}
		if n, err := res.RowsAffected(); err != nil {
			return nil, err
		} else if n == 0 {
			if err := c.known.QueryRowContext(ctx, w.ID[:], int64(d.Day)).Scan(&numbers[i]); err != nil {
				return nil, err
			}
		} else {
			if numbers[i], err = res.LastInsertId(); err != nil {
				return nil, err
			}
			if !w.Form {
				c.words = append(c.words, words{c.word, numbers[i], strings.Join(index.Words(w.Text), " ")})
			}
		}
		if len(c.wordings) >= maxWordings {
			clear(c.wordings)
		}
		c.wordings[key] = numbers[i]
		c.added = append(c.added, key)
	}
	return numbers, nil
}

// putStatements writes the statements of the chunk: those that have rows of their own
// with their outcome at once, where they ended in it.
func (c *committer) putStatements(ctx context.Context, no int64, u *index.Update, d *index.Digest, wordings []int64) error {
	if err := c.putPack(ctx, no, d.Pack); err != nil {
		return err
	}
	ended := make(map[uint64]*index.Outcome, len(d.Ended))
	for _, i := range d.Ended {
		ended[u.Outcomes[i].Number] = &u.Outcomes[i]
	}
	args := make([]any, 0, 15)
	for _, i := range d.Rows {
		s := &u.Statements[i]
		var wording int64
		if at := d.Of[i]; at >= 0 {
			wording = wordings[at]
		}
		args = append(args[:0], no, int64(s.Number), int64(s.Seq), s.Time.UnixMicro(), wording, int64(s.Verdict), s.Rule, s.Reason)
		o := ended[s.Number]
		args = appendOutcome(args, o)
		res, err := c.statement.ExecContext(ctx, args...)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n == 0 { // it was judged before
			if _, err := c.later.ExecContext(ctx, args[:8]...); err != nil {
				return err
			}
			continue // its outcome is yet to be written
		}
		delete(ended, s.Number)
	}
	for _, i := range d.Ended {
		o := &u.Outcomes[i]
		if ended[o.Number] == nil {
			continue
		}
		args = append(appendOutcome(args[:0], o), no, int64(o.Number))
		if _, err := c.outcome.ExecContext(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

func (c *committer) putPack(ctx context.Context, no int64, p *index.Pack) error {
	if p == nil {
		return nil
	}
	res, err := c.pack.ExecContext(ctx, no, int64(p.First), int64(p.Last), p.Begin.UnixMicro(), p.End.UnixMicro(), p.Body)
	if err != nil || p.Words == "" {
		return err
	}
	id, err := res.LastInsertId()
	c.words = append(c.words, words{c.packWord, id, p.Words})
	return err
}

func appendOutcome(args []any, o *index.Outcome) []any {
	if o == nil {
		return append(args, nil, nil, nil, nil, nil, nil, nil)
	}
	return append(args, int64(o.Verdict), o.Rows, o.Bytes, o.Affected, o.Code, o.Tag, int64(o.Duration/time.Microsecond))
}

func (c *committer) putMarks(ctx context.Context, no int64, d *index.Digest, wordings []int64) error {
	for i := range d.Spans {
		s := &d.Spans[i]
		if _, err := c.span.ExecContext(ctx, s.Minute, no, int64(s.First), int64(s.Last), s.Begin.UnixMicro(), s.End.UnixMicro(), s.Statements); err != nil {
			return err
		}
	}
	for i := range d.Said {
		s := &d.Said[i]
		if _, err := c.said.ExecContext(ctx, wordings[s.Wording], s.Minute, no, int64(s.First), int64(s.Last)); err != nil {
			return err
		}
	}
	for i := range d.Uses {
		t := &d.Uses[i]
		if _, err := c.touch.ExecContext(ctx, t.Column, t.Minute, no, int64(t.Role), t.Mask, int64(t.First), int64(t.Last),
			t.Begin.UnixMicro(), t.End.UnixMicro(), t.Statements); err != nil {
			return err
		}
	}
	return nil
}
