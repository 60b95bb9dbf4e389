package query

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/record"
)

// use is index.Use of a session by its number.
type use struct {
	no          int64
	id          string
	role        record.Role
	masks       map[string]bool
	first, last int64
	n           int64
}

// Who implements index.Index. Minutes that lie in the time as a whole are summed up;
// in the two at its edges each statement is looked at.
func (r *Reader) Who(ctx context.Context, q index.Who) ([]index.Use, error) {
	list, err := r.who(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("index: who used %s: %w", q.Name, err)
	}
	return list, nil
}

func (r *Reader) who(ctx context.Context, q index.Who) ([]index.Use, error) {
	if q.Name == "" {
		return r.there(ctx, q)
	}
	uses := map[int64]*use{}
	add := func(no int64, id string, role record.Role, mask string, first, last, n int64) {
		u := uses[no]
		if u == nil {
			u = &use{no: no, id: id, masks: map[string]bool{}, first: first, last: last}
			uses[no] = u
		}
		u.role |= role
		u.masks[mask] = true
		u.first, u.last, u.n = min(u.first, first), max(u.last, last), u.n+n
	}
	if err := r.whole(ctx, q, add); err != nil {
		return nil, err
	}
	if err := r.edges(ctx, q, add); err != nil {
		return nil, err
	}
	list := make([]*use, 0, len(uses))
	for _, u := range uses {
		list = append(list, u)
	}
	slices.SortFunc(list, func(a, b *use) int { return cmp.Or(cmp.Compare(b.last, a.last), cmp.Compare(b.id, a.id)) })
	if q.Before != nil {
		at := q.Before.Start.UnixMicro()
		list = slices.DeleteFunc(list, func(u *use) bool { return u.last > at || u.last == at && u.id >= q.Before.ID })
	}
	list = list[:min(len(list), page(q.Limit))]
	out := make([]index.Use, 0, len(list))
	sessions := map[int64]*typesv1.Session{}
	for _, u := range list {
		s, err := r.numbered(ctx, sessions, u.no)
		if err != nil {
			return nil, err
		}
		one := index.Use{Session: s, Roles: u.role, First: time.UnixMicro(u.first).UTC(), Last: time.UnixMicro(u.last).UTC(), Statements: u.n}
		if strings.Count(q.Name, ".") >= 2 { // the columns of a relation may have several
			for mask := range u.masks {
				one.Masks = append(one.Masks, mask)
			}
			slices.Sort(one.Masks)
		}
		out = append(out, one)
	}
	return out, nil
}

type addUse func(no int64, id string, role record.Role, mask string, first, last, n int64)

// there tells of sessions as a whole.
func (r *Reader) there(ctx context.Context, q index.Who) (out []index.Use, err error) {
	var c clause
	c.add(true, NotRaw)
	c.add(q.Subject != "", "s.subject = ?", q.Subject)
	c.add(q.Resource != "", "s.resource = ?", q.Resource)
	c.add(!q.Since.IsZero(), "s.last_us >= ?", q.Since.UnixMicro())
	c.add(!q.Until.IsZero(), "s.start_us < ?", q.Until.UnixMicro())
	if q.Before != nil {
		c.add(true, "(s.last_us, s.id) < (?, ?)", q.Before.Start.UnixMicro(), q.Before.ID)
	}
	list, err := r.sessions(ctx, `WHERE `+c.String()+` ORDER BY s.last_us DESC, s.id DESC LIMIT ?`, append(c.args, page(q.Limit))...)
	for _, s := range list {
		out = append(out, index.Use{Session: s, First: s.GetStartTime().AsTime(), Last: s.GetLastTime().AsTime(), Statements: s.GetStatements()})
	}
	return out, err
}

// marked narrows marks p to those of the question, without the time.
func marked(q index.Who) (c clause) {
	c.add(true, "p.name = ?", q.Name)
	c.add(q.Subject != "", "s.subject = ?", q.Subject)
	c.add(q.Resource != "", "s.resource = ?", q.Resource)
	c.add(q.Roles != 0, "(p.role & ?) <> 0", int64(q.Roles))
	return c
}

// whole sums up the minutes that lie in the time.
func (r *Reader) whole(ctx context.Context, q index.Who, add addUse) error {
	c := marked(q)
	c.add(!q.Since.IsZero(), "p.minute > ?", index.Minute(q.Since))
	c.add(!q.Until.IsZero(), "p.minute < ?", index.Minute(q.Until))
	text := `SELECT s.no, s.id, u.role, u.mask, u.first_us, u.last_us, u.n FROM (
			SELECT p.session_no, p.role, p.mask, min(p.first_us) AS first_us, max(p.last_us) AS last_us, CAST(sum(p.statements) AS bigint) AS n
			FROM touch p` + narrowed(q) + ` WHERE ` + c.String() + ` GROUP BY 1, 2, 3) u
		JOIN session s ON s.no = u.session_no`
	return r.rows(ctx, text, c.args, func(scan func(...any) error) error {
		var no, first, last, n, role int64
		var id, mask string
		if err := scan(&no, &id, &role, &mask, &first, &last, &n); err != nil {
			return err
		}
		add(no, id, record.Role(role), mask, first, last, n)
		return nil
	})
}

// narrowed joins the session where the question is about one.
func narrowed(q index.Who) string {
	if q.Subject == "" && q.Resource == "" {
		return ""
	}
	return ` JOIN session s ON s.no = p.session_no`
}

// edges looks at each statement of the first and the last minute.
func (r *Reader) edges(ctx context.Context, q index.Who, add addUse) error {
	minutes := map[int64]bool{}
	for _, t := range []time.Time{q.Since, q.Until} {
		if !t.IsZero() {
			minutes[index.Minute(t)] = true
		}
	}
	since, until := micro(q.Since, 0), micro(q.Until, math.MaxInt64)
	for minute := range minutes {
		c := marked(q)
		c.add(true, "p.minute = ?", minute)
		c.add(true, "p.last_us >= ? AND p.first_us < ?", since, until)
		// Several marks of a session would give a statement more than once.
		marks := `(SELECT p.session_no, p.minute, min(p.first_number) AS first_number, max(p.last_number) AS last_number
				FROM touch p` + narrowed(q) + ` WHERE ` + c.String() + ` GROUP BY p.session_no, p.minute) p CROSS JOIN session s`
		e := edge{q, max(since, minute*index.MinuteMicros), min(until, (minute+1)*index.MinuteMicros), add}
		if err := e.loose(ctx, r, marks, c.args); err != nil {
			return err
		}
		if err := e.packed(ctx, r, marks, c.args); err != nil {
			return err
		}
	}
	return nil
}

// An edge is what of a minute lies in the time of a question.
type edge struct {
	q            index.Who
	since, until int64
	add          addUse
}

func (e *edge) loose(ctx context.Context, r *Reader, marks string, args []any) error {
	text := `SELECT s.no, s.id, ` + rowColumns + ` FROM ` + marks + fmt.Sprintf(r.statementsOf(), markedStatement) +
		` WHERE s.no = p.session_no AND st.time_us >= ? AND st.time_us < ?`
	return r.rows(ctx, text, append(slices.Clone(args), e.since, e.until), func(scan func(...any) error) error {
		var no int64
		var id string
		row, err := scanRow(scan, &no, &id)
		if err != nil {
			return err
		}
		at := row.Time.UnixMicro()
		if role, mask, ok := usedBy(e.q, row.Touched); ok {
			e.add(no, id, role, mask, at, at, 1)
		}
		return nil
	})
}

func (e *edge) packed(ctx context.Context, r *Reader, marks string, args []any) error {
	text := `SELECT ` + packColumns + ` FROM ` + marks + r.packsOf() + ` WHERE s.no = p.session_no AND k.last_us >= ? AND k.first_us < ?`
	w := newWordings(r)
	return r.rows(ctx, text, append(slices.Clone(args), e.since, e.until), func(scan func(...any) error) error {
		p, err := scanPack(scan)
		if err != nil {
			return err
		}
		ids := map[index.WordingID]bool{}
		each := func(fn func(id index.WordingID, at int64)) error {
			return p.each(func(st *index.Packed) error {
				if at := st.Time.UnixMicro(); st.Wording != nil && at >= e.since && at < e.until {
					fn(*st.Wording, at)
				}
				return nil
			})
		}
		if err := each(func(id index.WordingID, _ int64) { ids[id] = true }); err != nil {
			return err
		}
		if err := w.look(ctx, p.day, ids, func(*worded) {}); err != nil {
			return err
		}
		return each(func(id index.WordingID, at int64) {
			if role, mask, ok := usedBy(e.q, w.of(p.day, &id).touched); ok {
				e.add(p.no, p.id, role, mask, at, at, 1)
			}
		})
	})
}

// usedBy tells how a statement used what is asked for.
func usedBy(q index.Who, touched []record.Touch) (role record.Role, mask string, ok bool) {
	for _, t := range touched {
		switch {
		case t.Column == q.Name:
			role, mask, ok = role|t.Role, t.Mask, true
		case index.RelationOf(t.Column) == q.Name:
			role, ok = role|t.Role, true
		}
	}
	return role, mask, ok && (q.Roles == 0 || role&q.Roles != 0)
}
