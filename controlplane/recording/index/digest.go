package index

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/pkg/record"
)

// A Digest is an update as rows: what statements have in common is kept once, and what
// questions begin with (a word, a column, a time) leads to the numbers of a session's
// statements by the minute, so that a statement itself needs no row in any index.
type Digest struct {
	Day      Day
	Wordings []Wording
	Of       []int // by statement: place in Wordings, or -1 where the text of the first stands
	Spans    []Span
	Said     []Said
	Uses     []ColumnUse
}

// Day is when a session began, in days since 1970: all its rows are kept and forgotten
// with that day.
type Day int32

// DayOf is the day of a time.
func DayOf(t time.Time) Day { return Day(t.Unix() / int64(24*time.Hour/time.Second)) }

// Start is the first instant of the day.
func (d Day) Start() time.Time { return time.Unix(int64(d)*24*60*60, 0).UTC() }

// A Wording is a text with what it uses.
type Wording struct {
	ID      WordingID
	Text    string
	Touched string // JSON of []record.Touch
}

// WordingID is of the text and what it uses: the first bytes of a SHA-256.
type WordingID [16]byte

// A Span is what one minute has of a session: statements with numbers from First to
// Last, though others may stand between.
type Span struct {
	Minute      int64 // since 1970
	First, Last uint64
	Begin, End  time.Time // of the first and the last of them
	Statements  int64
}

// Said is in which minutes a wording was used.
type Said struct {
	Wording int // place in Wordings
	Span
}

// ColumnUse is how a column or relation was used in a minute.
type ColumnUse struct {
	record.Touch
	Span
}

// Minute is the minute of a time.
func Minute(t time.Time) int64 { return floorDiv(t.UnixMicro(), MinuteMicros) }

// MinuteMicros is how long a minute is.
const MinuteMicros = int64(time.Minute / time.Microsecond)

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

type useKey struct {
	minute int64
	name   string
	mask   string
	role   record.Role
}

// DigestOf works out the rows of an update.
func DigestOf(u *Update) (*Digest, error) {
	d := &Digest{Day: DayOf(u.Session.GetStartTime().AsTime()), Of: make([]int, len(u.Statements))}
	known := map[WordingID]int{}
	touches := [][]record.Touch{} // by wording, with the relations
	spans := map[int64]*Span{}
	said := map[[2]int64]*Said{}
	uses := map[useKey]*ColumnUse{}
	for i := range u.Statements {
		s := &u.Statements[i]
		minute := Minute(s.Time)
		grow(entry(spans, minute), minute, s)
		if s.Text == "" {
			d.Of[i] = -1
			continue
		}
		id := wordingID(s)
		at, ok := known[id]
		if !ok {
			touched, err := json.Marshal(s.Touched)
			if err != nil {
				return nil, fmt.Errorf("index: what statement %d uses: %w", s.Number, err)
			}
			at = len(d.Wordings)
			known[id] = at
			d.Wordings = append(d.Wordings, Wording{ID: id, Text: s.Text, Touched: string(touched)})
			touches = append(touches, withRelations(s.Touched))
		}
		d.Of[i] = at
		w := entry(said, [2]int64{int64(at), minute})
		w.Wording = at
		grow(&w.Span, minute, s)
		for _, t := range touches[at] {
			use := entry(uses, useKey{minute, t.Column, t.Mask, t.Role})
			use.Touch = t
			grow(&use.Span, minute, s)
		}
	}
	for _, s := range spans {
		d.Spans = append(d.Spans, *s)
	}
	for _, s := range said {
		d.Said = append(d.Said, *s)
	}
	for _, c := range uses {
		d.Uses = append(d.Uses, *c)
	}
	return d, nil
}

func entry[K comparable, V any](m map[K]*V, k K) *V {
	v := m[k]
	if v == nil {
		v = new(V)
		m[k] = v
	}
	return v
}

func grow(p *Span, minute int64, s *Statement) {
	if p.Statements == 0 {
		*p = Span{Minute: minute, First: s.Number, Last: s.Number, Begin: s.Time, End: s.Time}
	}
	p.First, p.Last = min(p.First, s.Number), max(p.Last, s.Number)
	if s.Time.Before(p.Begin) {
		p.Begin = s.Time
	}
	if s.Time.After(p.End) {
		p.End = s.Time
	}
	p.Statements++
}

func wordingID(s *Statement) WordingID {
	h := sha256.New()
	var n [8]byte
	put := func(text string) {
		binary.LittleEndian.PutUint64(n[:], uint64(len(text)))
		h.Write(n[:])
		h.Write([]byte(text))
	}
	put(s.Text)
	for _, t := range s.Touched {
		put(t.Column)
		put(t.Mask)
		h.Write([]byte{byte(t.Role)})
	}
	return WordingID(h.Sum(nil))
}

// withRelations adds to the columns a use of each relation as a whole, with all their
// roles, so that a statement counts once however many of its columns it uses.
func withRelations(touched []record.Touch) []record.Touch {
	relations := map[string]*record.Touch{}
	out := make([]record.Touch, 0, 2*len(touched))
	for _, t := range touched {
		name := RelationOf(t.Column)
		r := entry(relations, name)
		r.Column, r.Role = name, r.Role|t.Role
		if name != t.Column {
			out = append(out, t)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(relations)) {
		out = append(out, *relations[name])
	}
	return merged(out)
}

// merged makes one of several touches of one column under one mask.
func merged(touched []record.Touch) []record.Touch {
	out := touched[:0]
	for _, t := range touched {
		at := slices.IndexFunc(out, func(o record.Touch) bool { return o.Column == t.Column && o.Mask == t.Mask })
		if at < 0 {
			out = append(out, t)
		} else {
			out[at].Role |= t.Role
		}
	}
	return out
}

// RelationOf is schema.table of a touched name.
func RelationOf(name string) string {
	if parts := strings.SplitN(name, ".", 3); len(parts) == 3 {
		return parts[0] + "." + parts[1]
	}
	return name
}
