package content

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/posterngate/postern/pkg/detect"
	"github.com/posterngate/postern/pkg/mask"
)

// table masks CSV (RFC 4180), or the like with another separator: columns by the names in
// its first line, and all fields by what is detected in them.
type table struct {
	rule      *Rule
	separator byte
	header    bool           // the first line was read
	columns   []*mask.Writer // by place; nil leaves it
	named     []string       // folded
	column    int
	field     []byte // that is read, without quotes
	state     tableState
	shown     []byte
	line      int
}

type tableState uint8

const (
	fieldBegins  tableState = iota
	fieldBare               // without quotes
	fieldQuoted             // within quotes
	fieldQuote              // after a quote within quotes: its end, or a quote
	fieldEnds               // after a return: a line must end
	recordBegins            // at the beginning of a line
)

func (r *Rule) newTable(separator byte) *table {
	return &table{rule: r, separator: separator, state: recordBegins, line: 1}
}

func (t *table) fail(why string) error {
	return fmt.Errorf("CSV, line %d, column %d: %s: %w", t.line, t.column+1, why, ErrForm)
}

func (t *table) Append(dst, chunk []byte) ([]byte, error) {
	var err error
	for _, b := range chunk {
		switch t.state {
		case recordBegins, fieldBegins:
			if b == '"' {
				t.state = fieldQuoted
				continue
			}
			if b == '\n' && t.state == recordBegins { // an empty line
				dst = append(dst, b)
				t.line++
				continue
			}
			t.state = fieldBare
			dst, err = t.bare(dst, b)
		case fieldBare:
			dst, err = t.bare(dst, b)
		case fieldQuoted:
			if b == '"' {
				t.state = fieldQuote
				continue
			}
			if b == '\n' {
				t.line++
			}
			err = t.add(b)
		case fieldQuote:
			switch b {
			case '"':
				t.state = fieldQuoted
				err = t.add(b)
			case t.separator, '\r', '\n':
				dst, err = t.end(dst, b, true)
			default:
				err = t.fail("something follows a quoted field")
			}
		case fieldEnds:
			if b != '\n' {
				return dst, t.fail("a return stands within a field")
			}
			dst = t.next(append(dst, b))
		}
		if err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// bare takes a byte of a field without quotes, or its end.
func (t *table) bare(dst []byte, b byte) ([]byte, error) {
	switch b {
	case t.separator, '\r', '\n':
		return t.end(dst, b, false)
	case '"':
		return dst, t.fail("a quote stands within a field")
	}
	return dst, t.add(b)
}

func (t *table) add(b byte) error {
	if len(t.field) == MaxField {
		return fmt.Errorf("CSV, line %d, column %d: a field is longer than %d bytes: %w", t.line, t.column+1, MaxField, ErrLimit)
	}
	t.field = append(t.field, b)
	return nil
}

func (t *table) Close(dst []byte) ([]byte, error) {
	switch t.state {
	case fieldQuoted:
		return dst, t.fail("it ends within a quoted field")
	case fieldEnds:
		return dst, t.fail("a return stands at the end")
	case fieldBegins, fieldBare, fieldQuote:
		return t.show(dst, t.state == fieldQuote)
	case recordBegins:
	}
	return dst, nil
}

// end ends a field, and with it a line where b says so.
func (t *table) end(dst []byte, b byte, quoted bool) ([]byte, error) {
	dst, err := t.show(dst, quoted)
	if err != nil {
		return dst, err
	}
	dst = append(dst, b)
	switch b {
	case '\r':
		t.state = fieldEnds
	case '\n':
		dst = t.next(dst)
	default:
		t.column++
		t.state = fieldBegins
	}
	return dst, nil
}

// next begins a line.
func (t *table) next(dst []byte) []byte {
	t.header, t.column, t.state = true, 0, recordBegins
	t.line++
	return dst
}

// show appends the field that was read.
func (t *table) show(dst []byte, quoted bool) ([]byte, error) {
	defer func() { t.field = t.field[:0] }()
	if !t.header {
		return t.title(dst, quoted)
	}
	if t.column >= len(t.columns) && t.rule.Fields() {
		return dst, t.fail("it has no name in the first line")
	}
	var w *mask.Writer
	if t.column < len(t.columns) {
		w = t.columns[t.column]
	}
	text := t.field
	switch {
	case w != nil:
		t.shown = w.AppendMasked(t.shown[:0], text)
		text = t.shown
	case t.rule.set != nil:
		t.shown, _ = t.rule.set.AppendMasked(t.shown[:0], text)
		text = t.shown
	}
	return t.write(dst, text, quoted), nil
}

// others part columns where the separator of the type does not; a NUL is of another encoding.
const others = ";|\t\x00"

// title takes the name of a column.
func (t *table) title(dst []byte, quoted bool) ([]byte, error) {
	if t.column == MaxColumns {
		return dst, fmt.Errorf("CSV: more than %d columns: %w", MaxColumns, ErrLimit)
	}
	name := bytes.TrimPrefix(t.field, []byte("\ufeff"))
	folded := fold(string(bytes.TrimSpace(name)))
	if t.rule.Fields() && (!quoted && bytes.ContainsAny(name, others) || strings.HasPrefix(folded, "sep=")) {
		return dst, t.fail("its columns are parted by another separator")
	}
	for _, other := range t.named {
		if other == folded && folded != "" {
			return dst, t.fail("two columns have one name")
		}
	}
	t.named = append(t.named, folded)
	w := t.rule.names[folded]
	if w == nil && t.rule.set != nil && t.rule.set.NamesSecret(name) {
		w = t.rule.set.Writer(detect.Password)
	}
	t.columns = append(t.columns, w)
	return t.write(dst, t.field, quoted), nil
}

// write appends a field, in quotes where it had or needs them.
func (t *table) write(dst, text []byte, quoted bool) []byte {
	if !quoted && bytes.IndexByte(text, t.separator) < 0 && !bytes.ContainsAny(text, "\"\r\n") {
		return append(dst, text...)
	}
	dst = append(dst, '"')
	for _, b := range text {
		if b == '"' {
			dst = append(dst, b)
		}
		dst = append(dst, b)
	}
	return append(dst, '"')
}
