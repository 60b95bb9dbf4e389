package mask

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/posterngate/postern/pkg/postern"
)

// A Writer masks values of one column on their way back, to just what Expression gives.
// It is immutable and safe for concurrent use. NULL is for the caller: it stays NULL,
// but where Constant says otherwise. The zero Writer makes every value NULL.
type Writer struct {
	method     postern.MaskMethod
	constant   []byte // of redact, as long as the type wants it
	keepFirst  int
	keepLast   int
	characters int    // to which blanks are added; 0 where the type adds none
	key        []byte // of token
}

// NewWriter is the Writer for a column of a type as format_type prints it, in UTF-8. The
// text and the binary format are the same for every type that it takes; with method null
// it takes all. An error is ErrUnfit, in the same cases as Expression's.
func NewWriter(m *postern.MaskRule, typeText string) (Writer, error) {
	if _, err := Expression(m, "c", typeText); err != nil {
		return Writer{}, err
	}
	if m.Method == postern.MaskNull {
		return Writer{method: m.Method}, nil
	}
	base, most, err := length(typeText)
	if err != nil {
		return Writer{}, unfit(m, typeText, err.Error())
	}
	w := Writer{method: m.Method, keepFirst: m.KeepFirst, keepLast: m.KeepLast}
	if base == "character" {
		w.characters = most
	}
	if m.Method == postern.MaskRedact {
		if !utf8.ValidString(m.Value) {
			return Writer{}, unfit(m, typeText, "its value is not UTF-8")
		}
		value := []byte(m.Value)
		if most > 0 {
			value = value[:after(value, most)] // as an explicit cast does
		}
		w.constant = w.pad(value, 0)
	}
	return w, nil
}

// length splits a textual type into its base and the most characters of a value, which
// is 0 where there is no bound.
func length(typeText string) (base string, most int, err error) {
	base, rest, bounded := strings.Cut(typeText, "(")
	if !bounded {
		if base == "character" {
			most = 1
		}
		return base, most, nil
	}
	most, err = strconv.Atoi(strings.TrimSuffix(rest, ")"))
	if err != nil || most < 1 {
		return "", 0, fmt.Errorf("its length %q cannot be read", rest)
	}
	return base, most, nil
}

// Null reports whether every masked value is NULL, so that there is nothing to append.
func (w *Writer) Null() bool {
	return w.method != postern.MaskRedact && w.method != postern.MaskPartial && w.method != postern.MaskToken
}

// Constant reports whether every masked value is the same, and so is that of NULL: that
// nothing is stored is not told either.
func (w *Writer) Constant() bool { return w.method == postern.MaskRedact }

// AppendMasked appends what is shown of value, which is not NULL unless Constant, to dst. It allocates
// nothing where dst has room, but for tokens: the result is at most as long as value, or as
// the constant or token.
func (w *Writer) AppendMasked(dst, value []byte) []byte {
	switch w.method {
	case postern.MaskRedact:
		return append(dst, w.constant...)
	case postern.MaskPartial:
		return w.partial(dst, value)
	case postern.MaskToken:
		return w.token(dst, value)
	case postern.MaskNull:
	}
	return dst
}

// partial keeps the ends. Blanks at the end of a padded type are not part of its value.
func (w *Writer) partial(dst, value []byte) []byte {
	from := len(dst)
	if w.characters > 0 {
		value = bytes.TrimRight(value, " ")
	}
	n := utf8.RuneCount(value)
	if n <= w.keepFirst+w.keepLast {
		return w.pad(stars(dst, n), from)
	}
	first, last := after(value, w.keepFirst), before(value, w.keepLast)
	dst = append(dst, value[:first]...)
	dst = stars(dst, n-w.keepFirst-w.keepLast)
	if first <= last { // always, for what is valid
		dst = append(dst, value[last:]...)
	}
	return w.pad(dst, from)
}

// pad adds blanks to the value that begins at from.
func (w *Writer) pad(dst []byte, from int) []byte {
	if w.characters == 0 {
		return dst
	}
	for range w.characters - utf8.RuneCount(dst[from:]) {
		dst = append(dst, ' ')
	}
	return dst
}

// after is where value goes on after n characters, before where its last n begin.
func after(value []byte, n int) int {
	at := 0
	for ; n > 0 && at < len(value); n-- {
		if value[at] < utf8.RuneSelf {
			at++
			continue
		}
		_, size := utf8.DecodeRune(value[at:])
		at += size
	}
	return at
}

func before(value []byte, n int) int {
	at := len(value)
	for ; n > 0 && at > 0; n-- {
		if value[at-1] < utf8.RuneSelf {
			at--
			continue
		}
		_, size := utf8.DecodeLastRune(value[:at])
		at -= size
	}
	return at
}

func stars(dst []byte, n int) []byte {
	const some = "****************************************************************"
	for ; n > len(some); n -= len(some) {
		dst = append(dst, some...)
	}
	return append(dst, some[:n]...)
}
