package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

// A Pack is all statements of one chunk that began, were let through and ended in it, in
// one row: no later chunk can change them. Packs of a session do not overlap, and follow
// each other.
type Pack struct {
	First, Last uint64 // numbers
	Begin, End  time.Time
	Body        []byte
	// Words are what statements are found by whose wording is a form, with spaces between
	// them; empty where there are none.
	Words string
}

// Packed is one statement of a Pack. Its Text is what Fill makes of that of the Wording and
// of Literals, and its Touched are those of the Wording.
type Packed struct {
	Statement
	Outcome  Outcome
	Wording  *WordingID // nil is none
	Literals string     // empty where the wording is whole
}

// ErrPack says that bytes are no body of a Pack.
var ErrPack = errors.New("index: a damaged pack")

// MaxPack bounds the body of a pack; statements that do not fit have rows of their own.
const MaxPack = 8 << 20

// maxPackWords bounds the words of a pack, of which PostgreSQL takes a mebibyte; what says
// more is found by the words of its text.
const maxPackWords = 512 << 10

// minCut is of how many statements a chunk must be for texts to be cut: the words of a pack
// cost as much as some rows of wordings, which others may have written.
const minCut = 16

// A body is a version, the shapes, and the statements in order of their numbers. What
// many statements have in common is a shape: wording, rule, reason, tag and code. Of a
// statement there is the place of its shape, and by how much its number, seq and time are
// beyond those of the one before; then rows, bytes, affected and duration. Where the wording
// is a form its literals follow: behind a zero, or as the number of the earlier ones, from 1,
// that they are. Version 1 had no forms.
const packVersion = 2

// How a shape says which wording it has.
const (
	saysNothing = iota
	saysText
	saysForm
)

type shape struct {
	wording                 int // place in the digest; -1 is none
	rule, reason, tag, code string
}

// pack parts an update: what need not change any more goes into d.Pack, and the rest is
// listed in d.Rows and d.Ended. It finds what each statement says.
func (d *Digest) pack(u *Update) error {
	outcomes := inOrder(len(u.Outcomes), func(i int) uint64 { return u.Outcomes[i].Number })
	statements := inOrder(len(u.Statements), func(i int) uint64 { return u.Statements[i].Number })
	number := func(i int) uint64 { return u.Statements[statements.at(i)].Number }
	w := worder{d: d, places: map[sameWords]saying{}, forms: map[sameWords]int{}, known: map[WordingID]int{}}
	p := packer{shapes: map[shape]int{}, seen: map[string]bool{}}
	at := 0
	for i := range u.Statements {
		place := statements.at(i)
		s := &u.Statements[place]
		for at < len(u.Outcomes) && u.Outcomes[outcomes.at(at)].Number < s.Number {
			d.Ended = append(d.Ended, outcomes.at(at))
			at++
		}
		end := at
		for end < len(u.Outcomes) && u.Outcomes[outcomes.at(end)].Number == s.Number {
			end++
		}
		again := i > 0 && number(i-1) == s.Number || i+1 < len(u.Statements) && number(i+1) == s.Number
		loose := again || end == at || s.Number <= u.Earlier || s.Verdict != postern.VerdictAllow ||
			u.Outcomes[outcomes.at(end-1)].Verdict != postern.VerdictAllow || len(p.head)+len(p.tail) > MaxPack-5*MaxText
		var said saying
		var literals []byte
		var err error
		if loose || len(u.Statements) < minCut || p.size > maxPackWords {
			said, err = w.whole(s)
		} else {
			said, literals, err = w.cut(s)
		}
		if err != nil {
			return err
		}
		d.Of[place] = said.wording
		if loose {
			d.Rows = append(d.Rows, place)
			continue // its outcomes are taken by the next one's loop, or the last
		}
		p.add(s, said, literals, &u.Outcomes[outcomes.at(end-1)], d)
		at = end
	}
	for ; at < len(u.Outcomes); at++ {
		d.Ended = append(d.Ended, outcomes.at(at))
	}
	slices.Sort(d.Rows) // as they were judged
	slices.Sort(d.Ended)
	d.Pack = p.pack()
	return nil
}

// order is places sorted by number, those of one number as they came; nil where they are
// sorted already.
type order []int

func (o order) at(i int) int {
	if o == nil {
		return i
	}
	return o[i]
}

func inOrder(n int, number func(i int) uint64) order {
	sorted := true
	for i := 1; i < n && sorted; i++ {
		sorted = number(i-1) <= number(i)
	}
	if sorted {
		return nil
	}
	o := make(order, n)
	for i := range o {
		o[i] = i
	}
	slices.SortStableFunc(o, func(a, b int) int {
		switch x, y := number(a), number(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return o
}

// A packer makes a pack of statements that come in order.
type packer struct {
	shapes     map[shape]int
	last       shape
	lastAt     int
	head, tail []byte
	n          int
	number     uint64
	seq        uint64
	time       int64
	begin, end int64
	first      uint64

	seen  map[string]bool
	words []string // all that were seen
	size  int      // bytes of words
}

// add adds a statement; literals are of a text that was cut, and not added before.
func (p *packer) add(s *Statement, said saying, literals []byte, o *Outcome, d *Digest) {
	h := shape{said.wording, s.Rule, s.Reason, o.Tag, o.Code}
	if p.n == 0 || h != p.last {
		at, ok := p.shapes[h]
		if !ok {
			at = len(p.shapes)
			p.shapes[h] = at
			p.head = h.append(p.head, d)
			if said.cut > 0 {
				p.say(d.Wordings[said.wording].Text)
			}
		}
		p.last, p.lastAt = h, at
	}
	at := s.Time.UnixMicro()
	if p.n == 0 {
		p.first, p.begin, p.end = s.Number, at, at
	}
	p.begin, p.end = min(p.begin, at), max(p.end, at)
	b := binary.AppendUvarint(p.tail, uint64(p.lastAt))
	b = binary.AppendUvarint(b, s.Number-p.number)
	b = binary.AppendVarint(b, int64(s.Seq-p.seq))
	b = binary.AppendVarint(b, at-p.time)
	b = binary.AppendVarint(b, o.Rows)
	b = binary.AppendVarint(b, o.Bytes)
	b = binary.AppendVarint(b, o.Affected)
	p.tail = binary.AppendVarint(b, int64(o.Duration/time.Microsecond))
	switch {
	case said.cut == 0:
	case literals == nil:
		p.tail = binary.AppendUvarint(p.tail, uint64(said.cut))
	default:
		text := string(literals)
		p.tail = binary.AppendUvarint(append(p.tail, 0), uint64(len(text)))
		p.tail = append(p.tail, text...)
		p.say(text)
	}
	p.number, p.seq, p.time = s.Number, s.Seq, at
	p.n++
}

// say adds the words of a text to those that the pack is found by.
func (p *packer) say(text string) {
	n := len(p.words)
	p.words = words(p.words, p.seen, text, n+MaxText, nil)
	for _, w := range p.words[n:] {
		p.size += len(w) + 1
	}
}

func (h shape) append(b []byte, d *Digest) []byte {
	if h.wording < 0 {
		b = append(b, saysNothing)
	} else {
		w := &d.Wordings[h.wording]
		b = append(b, saysText)
		if w.Form {
			b[len(b)-1] = saysForm
		}
		b = append(b, w.ID[:]...)
	}
	for _, s := range []string{h.rule, h.reason, h.tag, h.code} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return b
}

func (p *packer) pack() *Pack {
	if p.n == 0 {
		return nil
	}
	body := make([]byte, 0, 1+2*binary.MaxVarintLen32+len(p.head)+len(p.tail))
	body = binary.AppendUvarint(append(body, packVersion), uint64(len(p.shapes)))
	body = binary.AppendUvarint(append(body, p.head...), uint64(p.n))
	return &Pack{First: p.first, Last: p.number, Begin: time.UnixMicro(p.begin).UTC(), End: time.UnixMicro(p.end).UTC(),
		Body: append(body, p.tail...), Words: strings.Join(p.words, " ")}
}

// Unpack calls fn with each statement of a body, in order of their numbers. What fn gets
// is its own until it returns; the strings may be kept. An error of fn ends it.
func Unpack(body []byte, fn func(*Packed) error) error {
	r := unpacker{rest: body}
	if v := r.byte(); v == 0 || v > packVersion {
		return fmt.Errorf("%w: version %d is not known", ErrPack, v)
	}
	shapes := make([]Packed, r.count(1+4))
	forms := make([]bool, len(shapes))
	for i := range shapes {
		shapes[i], forms[i] = r.shape()
	}
	n := r.count(8)
	var p Packed
	var literals []string
	var number, seq uint64
	var at int64
	for range n {
		h := r.uvarint()
		number, seq, at = number+r.uvarint(), seq+uint64(r.varint()), at+r.varint()
		rows, size, affected, took := r.varint(), r.varint(), r.varint(), r.varint()
		if r.bad || h >= uint64(len(shapes)) {
			return ErrPack
		}
		p = shapes[h]
		if forms[h] {
			if p.Literals = r.literals(&literals); p.Literals == "" {
				return ErrPack
			}
		}
		p.Number, p.Seq, p.Time, p.Verdict = number, seq, time.UnixMicro(at).UTC(), postern.VerdictAllow
		o := &p.Outcome
		o.Number, o.Verdict, o.Rows, o.Bytes, o.Affected, o.Duration = number, postern.VerdictAllow, rows, size, affected, time.Duration(took)*time.Microsecond
		if err := fn(&p); err != nil {
			return err
		}
	}
	if r.bad || len(r.rest) > 0 {
		return ErrPack
	}
	return nil
}

// An unpacker reads a body, and says at the end whether it was one.
type unpacker struct {
	rest []byte
	bad  bool
}

func (r *unpacker) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *unpacker) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *unpacker) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *unpacker) varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// count reads how many entries follow, each of so many bytes at least.
func (r *unpacker) count(size int) int {
	n := r.uvarint()
	if n > uint64(len(r.rest)/size) {
		r.bad, r.rest = true, nil
		return 0
	}
	return int(n)
}

func (r *unpacker) shape() (p Packed, form bool) {
	switch says := r.byte(); says {
	case saysNothing:
	case saysText, saysForm:
		form = says == saysForm
		if b := r.take(uint64(len(WordingID{}))); b != nil {
			id := WordingID(b)
			p.Wording = &id
		}
	default:
		r.bad, r.rest = true, nil
	}
	for _, to := range []*string{&p.Rule, &p.Reason, &p.Outcome.Tag, &p.Outcome.Code} {
		*to = string(r.take(r.uvarint()))
	}
	return p, form
}

// literals reads those of a statement, which may be some of before; they are never empty.
func (r *unpacker) literals(before *[]string) string {
	switch at := r.uvarint(); {
	case at > uint64(len(*before)):
		r.bad, r.rest = true, nil
		return ""
	case at > 0:
		return (*before)[at-1]
	}
	text := string(r.take(r.uvarint()))
	*before = append(*before, text)
	return text
}
