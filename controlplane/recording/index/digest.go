package index

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
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

	Pack  *Pack // nil where no statement is as it will stay
	Rows  []int // places of the statements that have rows of their own, as they were judged
	Ended []int // places of the outcomes of such
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
	Form    bool   // the text is the form of several, which are found by the words of their Pack
	Touched string // JSON of []record.Touch

	uses []record.Touch // with the relations
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

// cell is one wording in one minute.
type cell struct {
	wording int // -1 is none
	minute  int64
}

// DigestOf works out the rows of an update.
func DigestOf(u *Update) (*Digest, error) {
	d := &Digest{Day: DayOf(u.Session.GetStartTime().AsTime()), Of: make([]int, len(u.Statements))}
	if err := d.pack(u); err != nil {
		return nil, err
	}
	cells := map[cell]*Span{}
	var last cell
	var span *Span
	for i := range u.Statements {
		s := &u.Statements[i]
		c := cell{d.Of[i], Minute(s.Time)}
		if span == nil || c != last {
			last, span = c, entry(cells, c)
		}
		grow(span, c.minute, s)
	}
	d.mark(cells)
	return d, nil
}

// A worder finds the places of what statements say.
type worder struct {
	d      *Digest
	places map[sameWords]saying
	forms  map[sameWords]int
	known  map[WordingID]int
	cuts   int // texts that were cut
	// of the text that was cut last
	form, literals []byte
}

// sameWords finds a saying again without a look at what it says: statements of one chunk that
// say the same mostly share it.
type sameWords struct {
	text    string
	cut     bool
	touched *record.Touch
	n       int
}

// A saying is where something that is said is kept.
type saying struct {
	wording int // place in the digest; -1 is none
	cut     int // the number of the literals of the text, from 1; 0 where it is whole
}

func sameAs(s *Statement, cut bool) sameWords {
	w := sameWords{text: s.Text, cut: cut, n: len(s.Touched)}
	if w.n > 0 {
		w.touched = &s.Touched[0]
	}
	return w
}

// whole keeps a statement's text as it is.
func (w *worder) whole(s *Statement) (saying, error) {
	if s.Text == "" {
		return saying{wording: -1}, nil
	}
	key := sameAs(s, false)
	if at, ok := w.places[key]; ok {
		return at, nil
	}
	at, err := w.add(s.Text, false, s)
	w.places[key] = saying{wording: at}
	return saying{wording: at}, err
}

// cut keeps the form of a statement's text alone, if it has literals. It returns those of a
// text that is new; they are the worder's until it is asked again.
func (w *worder) cut(s *Statement) (saying, []byte, error) {
	key := sameAs(s, true)
	if at, ok := w.places[key]; ok {
		return at, nil, nil
	}
	if w.form, w.literals = cut(w.form[:0], w.literals[:0], s.Text); len(w.literals) == 0 {
		at, err := w.whole(s)
		w.places[key] = at
		return at, nil, err
	}
	at, ok := w.forms[sameWords{text: string(w.form), touched: key.touched, n: key.n}]
	if !ok {
		form := string(w.form)
		var err error
		if at, err = w.add(form, true, s); err != nil {
			return saying{}, nil, err
		}
		w.forms[sameWords{text: form, touched: key.touched, n: key.n}] = at
	}
	w.cuts++
	w.places[key] = saying{at, w.cuts}
	return w.places[key], w.literals, nil
}

// add is the place of a wording, which is new if it is not known.
func (w *worder) add(text string, form bool, s *Statement) (int, error) {
	id := wordingID(text, form, s.Touched)
	at, ok := w.known[id]
	if ok {
		return at, nil
	}
	touched, err := json.Marshal(s.Touched)
	if err != nil {
		return 0, fmt.Errorf("index: what statement %d uses: %w", s.Number, err)
	}
	at = len(w.d.Wordings)
	w.known[id] = at
	w.d.Wordings = append(w.d.Wordings, Wording{ID: id, Text: text, Form: form, Touched: string(touched), uses: withRelations(s.Touched)})
	return at, nil
}

// mark sums up by the minute what was said.
func (d *Digest) mark(cells map[cell]*Span) {
	spans, uses := map[int64]*Span{}, map[useKey]*ColumnUse{}
	for c, s := range cells {
		entry(spans, c.minute).join(s)
		if c.wording < 0 {
			continue
		}
		if !d.Wordings[c.wording].Form {
			d.Said = append(d.Said, Said{Wording: c.wording, Span: *s})
		}
		for _, t := range d.Wordings[c.wording].uses {
			use := entry(uses, useKey{c.minute, t.Column, t.Mask, t.Role})
			use.Touch = t
			use.join(s)
		}
	}
	for _, s := range spans {
		d.Spans = append(d.Spans, *s)
	}
	for _, c := range uses {
		d.Uses = append(d.Uses, *c)
	}
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
	p.join(&Span{Minute: minute, First: s.Number, Last: s.Number, Begin: s.Time, End: s.Time, Statements: 1})
}

// join adds another span of the same minute.
func (p *Span) join(o *Span) {
	if p.Statements == 0 {
		*p = *o
		return
	}
	p.First, p.Last = min(p.First, o.First), max(p.Last, o.Last)
	if o.Begin.Before(p.Begin) {
		p.Begin = o.Begin
	}
	if o.End.After(p.End) {
		p.End = o.End
	}
	p.Statements += o.Statements
}

func wordingID(text string, form bool, touched []record.Touch) WordingID {
	h := sha256.New()
	var n [8]byte
	put := func(text string) {
		binary.LittleEndian.PutUint64(n[:], uint64(len(text)))
		h.Write(n[:])
		h.Write([]byte(text))
	}
	h.Write(strconv.AppendBool(nil, form))
	put(text)
	for _, t := range touched {
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

// RelationOf is schema.table of a touched name; a path is a whole.
func RelationOf(name string) string {
	if strings.HasPrefix(name, "/") {
		return name
	}
	if parts := strings.SplitN(name, ".", 3); len(parts) == 3 {
		return parts[0] + "." + parts[1]
	}
	return name
}
