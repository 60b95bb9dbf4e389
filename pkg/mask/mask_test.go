package mask

import (
	"errors"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/postern"
)

func TestExpression(t *testing.T) {
	const column = `"email"`
	for _, c := range []struct {
		rule *postern.MaskRule
		typ  string
		want string // empty: an error
	}{
		{&postern.MaskRule{Method: postern.MaskRedact, Value: "it's"}, "text", `CAST('it''s' AS text)`},
		{&postern.MaskRule{Method: postern.MaskRedact, Value: "x"}, "character varying(3)", `CAST('x' AS character varying(3))`},
		{&postern.MaskRule{Method: postern.MaskNull}, "numeric(12,2)", `CAST(NULL AS numeric(12,2))`},
		{&postern.MaskRule{Method: postern.MaskPartial, KeepLast: 4}, "text", `CAST(CASE WHEN pg_catalog.char_length(CAST("email" AS text)) OPERATOR(pg_catalog.>) 4 THEN pg_catalog.repeat('*', pg_catalog.char_length(CAST("email" AS text)) OPERATOR(pg_catalog.-) 4) OPERATOR(pg_catalog.||) pg_catalog."right"(CAST("email" AS text), 4) ELSE pg_catalog.repeat('*', pg_catalog.char_length(CAST("email" AS text))) END AS text)`},
		{&postern.MaskRule{Method: postern.MaskRedact, Value: "0"}, "integer", ""},
		{&postern.MaskRule{Method: postern.MaskRedact, Value: "x"}, "text[]", ""},
		{&postern.MaskRule{Method: postern.MaskRedact, Value: "x"}, "jsonb", ""},
		{&postern.MaskRule{Method: postern.MaskRedact, Value: "\x00"}, "text", ""},
		{&postern.MaskRule{Method: postern.MaskPartial, KeepLast: 4}, "date", ""},
		{&postern.MaskRule{Method: postern.MaskPartial, KeepLast: -1}, "text", ""},
		{&postern.MaskRule{Method: postern.MaskToken, Domain: "email"}, "text", ""},
		{&postern.MaskRule{Method: "blur"}, "text", ""},
		{&postern.MaskRule{}, "text", ""},
		{nil, "text", ""},
	} {
		got, err := Expression(c.rule, column, c.typ)
		if c.want == "" {
			if !errors.Is(err, ErrUnfit) || got != "" {
				t.Errorf("%+v on %s = %q, %v; want an error", c.rule, c.typ, got, err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%+v on %s =\n%s, %v; want\n%s", c.rule, c.typ, got, err, c.want)
		}
	}
}

// FuzzRedact makes sure that no value ends its literal.
func FuzzRedact(f *testing.F) {
	f.Add("'; DROP TABLE x; --")
	f.Fuzz(func(t *testing.T, value string) {
		got, err := Expression(&postern.MaskRule{Method: postern.MaskRedact, Value: value}, "c", "text")
		if err != nil {
			return
		}
		inner := strings.TrimSuffix(strings.TrimPrefix(got, "CAST('"), "' AS text)")
		if strings.ReplaceAll(strings.ReplaceAll(inner, "''", ""), "'", "!") != strings.ReplaceAll(inner, "''", "") {
			t.Errorf("a quote stands alone in %s", got)
		}
	})
}
