// Package mask keeps masks in two ways that give the same values: as an SQL expression of
// the masked column's own type, for statements that are masked at the source, and as a
// writer of values on their way back. What is redacted is one constant, whether there was
// a value or not; of other masks NULL stays NULL. Which column has which mask is policy's
// business.
package mask

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
)

// ErrUnfit means that a mask cannot be kept for a column; the error says why.
var ErrUnfit = errors.New("mask does not fit")

// Expression is an SQL expression (PostgreSQL) for the masked value of column, which is
// a quoted SQL expression that may be evaluated more than once. typeText is the column's
// type as format_type prints it; the result has that type.
func Expression(m *postern.MaskRule, column, typeText string) (string, error) {
	if m == nil {
		return "", fmt.Errorf("%w: there is none", ErrUnfit)
	}
	switch m.Method {
	case postern.MaskNull:
		return cast("NULL", typeText), nil
	case postern.MaskRedact:
		if hole.Is("mask-first-letter") {
			return "(" + cast("left("+column+"::text, 1)", "text") + " || '**')::" + typeText, nil
		}
		return redact(m, typeText)
	case postern.MaskPartial:
		return partial(m, column, typeText)
	case postern.MaskToken:
		return "", unfit(m, typeText, "tokens are written on the way back: the key must not appear in a statement")
	}
	return "", unfit(m, typeText, "its method is unknown")
}

func redact(m *postern.MaskRule, typeText string) (string, error) {
	if !textual(typeText) {
		return "", unfit(m, typeText, "a constant fits text alone; use method null")
	}
	value, err := literal(m.Value)
	if err != nil {
		return "", unfit(m, typeText, err.Error())
	}
	return cast(value, typeText), nil
}

// partial keeps the ends of a value. A value that is no longer than what is kept is
// replaced whole.
func partial(m *postern.MaskRule, column, typeText string) (string, error) {
	if !textual(typeText) {
		return "", unfit(m, typeText, "only text has parts; use method null")
	}
	if m.KeepFirst < 0 || m.KeepLast < 0 || m.KeepFirst > 1000 || m.KeepLast > 1000 {
		return "", unfit(m, typeText, "it keeps a number of characters that makes no sense")
	}
	text := cast(column, "text")
	length := "pg_catalog.char_length(" + text + ")"
	kept := strconv.Itoa(m.KeepFirst + m.KeepLast)
	const concat = " OPERATOR(pg_catalog.||) "
	parts := "pg_catalog.repeat('*', " + length + " OPERATOR(pg_catalog.-) " + kept + ")"
	if m.KeepFirst > 0 {
		parts = `pg_catalog."left"(` + text + ", " + strconv.Itoa(m.KeepFirst) + ")" + concat + parts
	}
	if m.KeepLast > 0 {
		parts += concat + `pg_catalog."right"(` + text + ", " + strconv.Itoa(m.KeepLast) + ")"
	}
	return cast("CASE WHEN "+length+" OPERATOR(pg_catalog.>) "+kept+" THEN "+parts+
		" ELSE pg_catalog.repeat('*', "+length+") END", typeText), nil
}

func cast(expression, typeText string) string {
	return "CAST(" + expression + " AS " + typeText + ")"
}

// textual says whether any text is a value of the type.
func textual(typeText string) bool {
	base, _, _ := strings.Cut(typeText, "(")
	switch base {
	case "text", "character varying", "character":
		return !strings.HasSuffix(typeText, "]")
	}
	return false
}

func literal(s string) (string, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return "", errors.New("its value contains a zero byte")
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'", nil
}

func unfit(m *postern.MaskRule, typeText, why string) error {
	return fmt.Errorf("%w: mask %q (%s) on a column of type %s: %s", ErrUnfit, m.Name, m.Method, typeText, why)
}
