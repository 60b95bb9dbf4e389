package content

import (
	"fmt"
	"hash/maphash"

	"github.com/posterngate/postern/pkg/detect"
	"github.com/posterngate/postern/pkg/mask"
)

// JSON masks one JSON value, or one a line. What is not masked stays as it is, to the
// last space and digit; only strings in which something was detected are written anew.
// It refuses two members of one name, in whatever escapes, UTF-8 that is none, and all
// else that RFC 8259 does.
type JSON struct {
	rule  *Rule
	many  bool
	lines int // with a value, before this one
	state jsonState
	text  *detect.Stream // of the string that is read; nil detects nothing

	frames []frame
	nodes  []*node // of all frames and the value that comes, one after another
	from   int     // where in nodes those of the value that comes begin; before are its parents'
	hide   int     // the depth, counted from 1, of the value that is masked; 0 shows

	by     *mask.Writer // masks the value that comes, or is read; nil leaves it
	name   []byte       // of the member that comes
	part   []byte       // of the string, number or word that is read, where it is needed
	shown  []byte
	key    bool // the string that is read is a name
	keep   bool // it is collected in part
	utf    utf8State
	escape escapeState

	offset int64 // bytes before the chunk
	seed   maphash.Seed
}

type jsonState uint8

const (
	atValue     jsonState = iota
	atFirst               // a value, or the end of an array
	atFirstName           // a name, or the end of an object
	atName                // a name
	atColon               //
	atNext                // a comma, or the end of what is open
	atEnd                 // after the last value
	inString              //
	inNumber              //
	inWord                // true, false or null
)

// A frame is an open array or object.
type frame struct {
	array bool
	index int
	nodes int // where its nodes begin
	seen  []uint64
	more  map[uint64]struct{}
}

// NewJSON masks one value, or with many one a line, as of NDJSON.
func (r *Rule) NewJSON(many bool) *JSON {
	j := &JSON{rule: r, many: many, text: stream(r.set), seed: maphash.MakeSeed(), part: make([]byte, 0, 256)}
	j.reset()
	return j
}

func (j *JSON) fail(at int, why string) error {
	return fmt.Errorf("JSON, byte %d: %s: %w", j.offset+int64(at), why, ErrForm)
}

func (j *JSON) over(at int, what string, limit int) error {
	return fmt.Errorf("JSON, byte %d: %s over %d: %w", j.offset+int64(at), what, limit, ErrLimit)
}

// Append is part of Masker.
func (j *JSON) Append(dst, chunk []byte) ([]byte, error) {
	var err error
	for i := 0; i < len(chunk); {
		switch j.state {
		case inString:
			dst, i, err = j.inString(dst, chunk, i)
		case inNumber, inWord:
			dst, i, err = j.inToken(dst, chunk, i)
		default:
			dst, i, err = j.between(dst, chunk, i)
		}
		if err != nil {
			return dst, err
		}
	}
	j.offset += int64(len(chunk))
	return dst, nil
}

// Close is part of Masker.
func (j *JSON) Close(dst []byte) ([]byte, error) {
	var err error
	if j.state == inNumber || j.state == inWord {
		if dst, err = j.endToken(dst, 0); err != nil {
			return dst, err
		}
	}
	switch {
	case j.state == atEnd, j.many && j.state == atValue && len(j.frames) == 0:
		return dst, nil
	}
	return dst, j.fail(0, "it ends too soon")
}

// between reads what stands between values.
func (j *JSON) between(dst, chunk []byte, i int) ([]byte, int, error) {
	b := chunk[i]
	if b == ' ' || b == '\t' || b == '\n' || b == '\r' {
		if b == '\n' && j.many {
			if len(j.frames) > 0 {
				return dst, i, j.fail(i, "a line ends within a value")
			}
			if j.state == atEnd {
				j.lines++
			}
			j.state = atValue
			j.reset()
		}
		return j.show(dst, b), i + 1, nil
	}
	switch j.state {
	case atFirst, atFirstName, atNext:
		if b == ']' || b == '}' {
			return j.leave(dst, b, i)
		}
	case atValue, atName, atColon, atEnd, inString, inNumber, inWord:
	}
	switch j.state {
	case atValue, atFirst:
		return j.begin(dst, b, i)
	case atFirstName, atName:
		if b != '"' {
			return dst, i, j.fail(i, "a name is expected")
		}
		j.state, j.key, j.keep, j.part = inString, true, true, j.part[:0]
		return dst, i + 1, nil
	case atColon:
		if b != ':' {
			return dst, i, j.fail(i, "a colon is expected")
		}
		j.state = atValue
		return j.show(dst, b), i + 1, nil
	case atNext:
		if b != ',' {
			return dst, i, j.fail(i, "a comma is expected")
		}
		f := &j.frames[len(j.frames)-1]
		j.state = atName
		if f.array {
			f.index++
			j.state = atValue
			j.element(f)
		}
		return j.show(dst, b), i + 1, nil
	case atEnd, inString, inNumber, inWord:
	}
	return dst, i, j.fail(i, "it goes on after its end")
}

// show appends a byte where it is not masked.
func (j *JSON) show(dst []byte, b byte) []byte {
	if j.hide > 0 {
		return dst
	}
	return append(dst, b)
}

// reset gets ready for the next value at the top. It has the paths of an element of an array
// besides, as elements of one at the top have those of a value by itself: who asks may choose
// in which form the answer comes, one value, a list of one, or lines.
func (j *JSON) reset() {
	j.from, j.by = 0, nil
	j.nodes = j.nodes[:0]
	if j.rule.paths == nil {
		return
	}
	j.nodes = append(j.nodes, j.rule.paths)
	j.part = appendInt(j.part[:0], j.lines)
	j.nodes = j.rule.paths.below(j.nodes, j.part)
}

// begin begins a value.
func (j *JSON) begin(dst []byte, b byte, i int) ([]byte, int, error) {
	if j.hide == 0 && j.by == nil {
		for _, n := range j.nodes[j.from:] {
			if n.mask != nil {
				j.by = n.mask
				break
			}
		}
	}
	switch {
	case b == '"':
		j.state, j.key, j.part = inString, false, j.part[:0]
		j.keep = j.hide == 0 && j.by != nil && shows(j.by)
		if j.hide == 0 && j.by == nil {
			dst = append(dst, '"')
		}
		return dst, i + 1, nil
	case b == '[' || b == '{':
		return j.enter(dst, b, i)
	case b == '-' || b >= '0' && b <= '9':
		j.state, j.part = inNumber, j.part[:0]
		return dst, i, nil
	case b == 't' || b == 'f' || b == 'n':
		j.state, j.part = inWord, j.part[:0]
		return dst, i, nil
	}
	return dst, i, j.fail(i, "a value is expected")
}

// enter opens an array or object.
func (j *JSON) enter(dst []byte, b byte, i int) ([]byte, int, error) {
	if len(j.frames) == MaxDepth {
		return dst, i, j.over(i, "depth", MaxDepth)
	}
	if n := len(j.frames); n < cap(j.frames) { // what it has is used again
		j.frames = j.frames[:n+1]
	} else {
		j.frames = append(j.frames, frame{})
	}
	f := &j.frames[len(j.frames)-1]
	f.array, f.index, f.nodes, f.seen = b == '[', 0, j.from, f.seen[:0]
	clear(f.more)
	if j.hide == 0 && j.by != nil {
		dst = j.appendMask(dst, j.by, nil)
		j.hide = len(j.frames)
	}
	j.by = nil
	j.from = len(j.nodes)
	j.state = atFirstName
	if f.array {
		j.state = atFirst
		j.element(f)
	}
	return j.show(dst, b), i + 1, nil
}

// leave closes what is open.
func (j *JSON) leave(dst []byte, b byte, i int) ([]byte, int, error) {
	f := &j.frames[len(j.frames)-1]
	if f.array != (b == ']') {
		return dst, i, j.fail(i, "what is open is not closed")
	}
	dst = j.show(dst, b)
	if j.hide == len(j.frames) {
		j.hide = 0
	}
	j.from = f.nodes
	j.frames = j.frames[:len(j.frames)-1]
	j.done()
	return dst, i + 1, nil
}

// done goes on after a value.
func (j *JSON) done() {
	j.by = nil
	if j.state = atNext; len(j.frames) == 0 {
		j.state = atEnd
	}
}

// element finds the nodes of the next element of an array.
func (j *JSON) element(f *frame) {
	if j.hide > 0 || j.rule.paths == nil {
		return
	}
	j.part = appendInt(j.part[:0], f.index)
	j.step(f, j.part)
	if len(j.frames) == 1 {
		j.nodes = append(j.nodes, j.rule.paths)
	}
}

func appendInt(dst []byte, n int) []byte {
	if n >= 10 {
		dst = appendInt(dst, n/10)
	}
	return append(dst, byte('0'+n%10))
}

// step finds the nodes of a child of what is open, by its folded name.
func (j *JSON) step(f *frame, name []byte) {
	parents := j.nodes[f.nodes:j.from]
	j.nodes = j.nodes[:j.from]
	for _, n := range parents {
		j.nodes = n.below(j.nodes, name)
	}
}
