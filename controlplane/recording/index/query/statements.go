package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/postern"
)

// Statements implements index.Index.
func (r *Reader) Statements(ctx context.Context, id postern.SessionID, after uint64, limit int) ([]index.Row, error) {
	list, err := r.statements(ctx, id, after, page(limit))
	if err != nil {
		return nil, fmt.Errorf("index: statements of session %s: %w", id, err)
	}
	return list, nil
}

func (r *Reader) statements(ctx context.Context, id postern.SessionID, after uint64, limit int) (list []index.Row, err error) {
	q := `SELECT ` + rowColumns + ` FROM session s` + fmt.Sprintf(r.statementsOf(), "") + ` WHERE s.id = ? AND st.number > ? ORDER BY st.number LIMIT ?`
	err = r.rows(ctx, q, []any{string(id), int64(after), limit}, func(scan func(...any) error) error {
		row, err := scanRow(scan)
		list = append(list, row)
		return err
	})
	if err != nil {
		return nil, err
	}
	packed, err := r.packedStatements(ctx, id, after, limit)
	if err != nil {
		return nil, err
	}
	list = append(list, packed...)
	slices.SortStableFunc(list, func(a, b index.Row) int { return cmp.Compare(a.Number, b.Number) })
	return list[:min(len(list), limit)], nil
}

// packs is how many of them are read at a time where few are expected to be needed.
const packs = 16

// packedStatements are those of packs, in order of their numbers.
func (r *Reader) packedStatements(ctx context.Context, id postern.SessionID, after uint64, limit int) (list []index.Row, err error) {
	w := newWordings(r)
	for from := int64(after); len(list) < limit; {
		var some []packedRow
		q := `SELECT ` + packColumns + ` FROM session s JOIN pack k ON k.session_no = s.no` + r.Dialect.PackOf +
			` WHERE s.id = ? AND k.first_number >= ` + r.packBefore("?") + ` AND k.last_number > ? ORDER BY k.first_number LIMIT ?`
		err := r.rows(ctx, q, []any{string(id), from, from, packs}, func(scan func(...any) error) error {
			p, err := scanPack(scan)
			some = append(some, p)
			return err
		})
		if err != nil {
			return nil, err
		}
		for i := 0; i < len(some) && len(list) < limit; i++ {
			if list, err = w.after(ctx, &some[i], after, list); err != nil {
				return nil, err
			}
		}
		if len(some) < packs || len(list) == 0 {
			break
		}
		from = int64(list[len(list)-1].Number)
	}
	return list, nil
}

// after appends the statements of a pack beyond a number.
func (w *wordings) after(ctx context.Context, p *packedRow, after uint64, list []index.Row) ([]index.Row, error) {
	var found []index.Packed
	ids := map[index.WordingID]bool{}
	err := p.each(func(st *index.Packed) error {
		if st.Number > after {
			found = append(found, *st)
			if st.Wording != nil {
				ids[*st.Wording] = true
			}
		}
		return nil
	})
	if err == nil {
		err = w.look(ctx, p.day, ids, func(*worded) {})
	}
	if err != nil {
		return nil, err
	}
	for i := range found {
		list = append(list, w.of(p.day, found[i].Wording).row(&found[i]))
	}
	return list, nil
}
