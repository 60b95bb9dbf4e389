package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/posterngate/postern/pkg/sql"
)

const (
	// maxRowList is how many values a list of a row filter may have.
	maxRowList = 1000
	// maxRowText is the longest text of one value, in bytes.
	maxRowText = 4096
)

// of evaluates a value for whom vars speaks of.
func (v *value) of(vars *variables) (ref.Val, error) {
	out, _, err := v.program.Eval(vars)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", v.source, firstLine(err.Error()))
	}
	return out, nil
}

// rowWriter writes a filter for one subject.
type rowWriter struct {
	vars *variables
	b    strings.Builder
	err  error
}

func (w *rowWriter) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

func (w *rowWriter) write(parts ...string) {
	for _, p := range parts {
		w.b.WriteString(p)
	}
}

// operator is one of the system's, whatever the search path.
func operator(op string) string { return " OPERATOR(pg_catalog." + op + ") " }

func (w *rowWriter) predicate(p predicate) {
	if w.err != nil {
		return
	}
	switch p := p.(type) {
	case both:
		w.write("(")
		w.predicate(p.l)
		w.write(p.op)
		w.predicate(p.r)
		w.write(")")
	case negation:
		w.write("(NOT ")
		w.predicate(p.of)
		w.write(")")
	case flag:
		w.write(sql.Quote(p.column))
	case truth:
		v := w.value(p.value)
		b, ok := v.(types.Bool)
		if !ok {
			w.fail("%s is %v, want true or false", p.value.source, typeOf(v))
			return
		}
		w.write(strings.ToUpper(strconv.FormatBool(bool(b))))
	case isNull:
		w.write(sql.Quote(p.column), " IS ")
		if p.not {
			w.write("NOT ")
		}
		w.write("NULL")
	case compared:
		w.write(sql.Quote(p.column), operator(p.op))
		if p.value == nil {
			w.write(sql.Quote(p.other))
			return
		}
		w.write(w.literal(p.value.source, w.value(p.value)))
	case among:
		w.among(p)
	case member:
		w.write(w.literal(p.value.source, w.value(p.value)), operator("="), "ANY (", sql.Quote(p.column), ")")
	case holds:
		w.holds(p)
	default:
		w.fail("a part of the filter is not known")
	}
}

func (w *rowWriter) value(v *value) ref.Val {
	out, err := v.of(w.vars)
	if err != nil {
		w.fail("%w", err)
	}
	return out
}

func typeOf(v ref.Val) string {
	if v == nil {
		return "nothing"
	}
	return v.Type().TypeName()
}

// literal writes one value. Texts are quoted, and numbers and instants have one form
// whatever the settings of the session.
func (w *rowWriter) literal(source string, v ref.Val) string {
	switch v := v.(type) {
	case types.Bool:
		return strings.ToUpper(strconv.FormatBool(bool(v)))
	case types.Int, types.Uint, types.Double:
		s, ok := numeral(v)
		if !ok {
			w.fail("%s is not a number that SQL knows", source)
		}
		if strings.HasPrefix(s, "-") {
			return "(" + s + ")"
		}
		return s
	case types.String, types.Timestamp:
		return quoteText(w.text(source, v))
	}
	w.fail("%s is of type %s, and columns are compared with text, numbers, true, false and timestamps", source, typeOf(v))
	return "NULL"
}

// text is a value as the text that the server reads.
func (w *rowWriter) text(source string, v ref.Val) string {
	s, ok := "", true
	switch v := v.(type) {
	case types.String:
		s = string(v)
	case types.Timestamp:
		s = v.UTC().Format("2006-01-02 15:04:05.999999+00")
		ok = v.Year() > 0 && v.Year() < 10000 && v.Truncate(time.Microsecond).Equal(v.Time)
	case types.Bool:
		s = strconv.FormatBool(bool(v))
	case types.Int, types.Uint, types.Double:
		s, ok = numeral(v)
	default:
		ok = false
	}
	if !ok || len(s) > maxRowText || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		w.fail("%s is of type %s or has a value that SQL cannot compare", source, typeOf(v))
		return ""
	}
	return s
}

func numeral(v ref.Val) (string, bool) {
	switch v := v.(type) {
	case types.Int:
		return strconv.FormatInt(int64(v), 10), true
	case types.Uint:
		return strconv.FormatUint(uint64(v), 10), true
	case types.Double:
		f := float64(v)
		return strconv.FormatFloat(f, 'f', -1, 64), !math.IsNaN(f) && !math.IsInf(f, 0) && math.Abs(f) < 1e18
	}
	return "", false
}

// quoteText quotes a text without zero bytes. It relies on standard_conforming_strings,
// as whoever reads a filter does.
func quoteText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// among writes a list as one array, whose type the server takes from the column.
func (w *rowWriter) among(p among) {
	list, ok := w.value(p.list).(traits.Lister)
	if !ok {
		w.fail("%s is not a list", p.list.source)
		return
	}
	n, _ := list.Size().(types.Int)
	if n > maxRowList {
		w.fail("%s has more than %d values", p.list.source, maxRowList)
		return
	}
	if n == 0 {
		w.write("FALSE")
		return
	}
	var array strings.Builder
	for i := range n {
		if i > 0 {
			array.WriteByte(',')
		}
		array.WriteByte('"')
		array.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w.text(p.list.source, list.Get(i))))
		array.WriteByte('"')
	}
	w.write(sql.Quote(p.column), operator("="), "ANY (", quoteText("{"+array.String()+"}"), ")")
}

func (w *rowWriter) holds(p holds) {
	v, ok := w.value(p.value).(types.String)
	if !ok {
		w.fail("%s is not a text", p.value.source)
		return
	}
	text := w.text(p.value.source, v)
	column := "CAST(" + sql.Quote(p.column) + " AS pg_catalog.text)"
	switch p.function {
	case "startsWith":
		w.write("pg_catalog.starts_with(", column, ", ", quoteText(text), ")")
	case "endsWith":
		w.write(`pg_catalog."right"(`, column, ", ", strconv.Itoa(utf8.RuneCountInString(text)), ")", operator("="), quoteText(text))
	default:
		w.write("pg_catalog.strpos(", column, ", ", quoteText(text), ")", operator(">"), "0")
	}
}
