package query

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/record"
)

// packsOf joins the packs k of session s which may have statements of a mark p.
func (r *Reader) packsOf() string {
	return ` JOIN pack k ON k.session_no = s.no` + r.Dialect.PackOf + ` AND k.first_number >= ` + r.packBefore("p.first_number") +
		` AND k.first_number <= p.last_number AND k.last_number >= p.first_number`
}

// packBefore is the first number of the pack of session s in which a number stands, if it
// stands in one: packs follow each other, so that no pack before need be looked at.
func (r *Reader) packBefore(number string) string {
	return `coalesce((SELECT max(x.first_number) FROM pack x WHERE x.session_no = s.no` + strings.ReplaceAll(r.Dialect.PackOf, "k.", "x.") +
		` AND x.first_number <= ` + number + `), 0)`
}

// A packed row is a pack as questions read it.
type packedRow struct {
	no, day     int64 // of the session
	id          string
	first, last int64 // first number, and time of the last statement
	body        []byte
}

const packColumns = `s.no, s.day, s.id, k.first_number, k.last_us, k.body`

func scanPack(scan func(...any) error) (p packedRow, err error) {
	err = scan(&p.no, &p.day, &p.id, &p.first, &p.last, &p.body)
	return p, err
}

// each calls fn with the statements of a pack.
func (p *packedRow) each(fn func(*index.Packed) error) error {
	if err := index.Unpack(p.body, fn); err != nil {
		return fmt.Errorf("statements of session %s from %d: %w", p.id, p.first, err)
	}
	return nil
}

// wordings finds what statements of packs say, while a question is answered. It asks on
// connections of its own, so that it may be asked while an answer is read.
type wordings struct {
	r     *Reader
	known map[wordingKey]*worded
}

type wordingKey struct {
	day int64
	id  index.WordingID
}

type worded struct {
	text    string
	touched []record.Touch
	// A search sets whether it uses what is asked for, and the places of terms that it does
	// not have, and literals may.
	uses    bool
	missing []int
}

// maxKnown bounds the wordings that are kept while a question is answered, and maxAsked
// those of one look.
const (
	maxKnown = 1 << 15
	maxAsked = 400
)

func newWordings(r *Reader) *wordings { return &wordings{r, map[wordingKey]*worded{}} }

// look makes sure that wordings of a day are known; fresh is called with those that were
// not.
func (w *wordings) look(ctx context.Context, day int64, ids map[index.WordingID]bool, fresh func(*worded)) error {
	if len(w.known)+len(ids) > maxKnown {
		clear(w.known)
	}
	var args []any
	ask := func() error {
		if len(args) == 0 {
			return nil
		}
		text := `SELECT id, text, touched FROM wording WHERE id IN (` + strings.Repeat("?,", len(args)-1) + `?) AND day = ?`
		return w.r.rowsOf(ctx, w.r.Words, text, append(args, day), func(scan func(...any) error) error {
			var id wordingID
			var touched string
			one := &worded{}
			if err := scan(&id, &one.text, &touched); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(touched), &one.touched); err != nil {
				return fmt.Errorf("what a wording uses: %w", err)
			}
			fresh(one)
			w.known[wordingKey{day, index.WordingID(id)}] = one
			return nil
		})
	}
	for id := range ids {
		if _, ok := w.known[wordingKey{day, id}]; ok {
			continue
		}
		if args = append(args, w.r.Dialect.ID(id)); len(args) == maxAsked {
			if err := ask(); err != nil {
				return err
			}
			args = args[:0]
		}
	}
	return ask()
}

// none is what a statement says whose text is not in the index.
var none = &worded{}

func (w *wordings) of(day int64, id *index.WordingID) *worded {
	if id == nil {
		return none
	}
	if one := w.known[wordingKey{day, *id}]; one != nil {
		return one
	}
	return none
}

// row is a packed statement with what it says.
func (w *worded) row(p *index.Packed) index.Row {
	o := p.Outcome
	r := index.Row{Statement: p.Statement, Outcome: &o}
	r.Text, r.Touched = index.Fill(w.text, p.Literals), w.touched
	return r
}

// wordingID reads an id as either database gives it: its bytes, or as text.
type wordingID index.WordingID

// Scan implements sql.Scanner.
func (w *wordingID) Scan(v any) error {
	switch v := v.(type) {
	case []byte:
		if len(v) == len(w) {
			copy(w[:], v)
			return nil
		}
		return w.Scan(string(v))
	case string:
		b, err := hex.DecodeString(strings.ReplaceAll(v, "-", ""))
		if err != nil || len(b) != len(w) {
			return fmt.Errorf("%q is no wording's id", v)
		}
		copy(w[:], b)
		return nil
	}
	return fmt.Errorf("a wording's id is %T", v)
}
