package policy

import (
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/postern"
)

var rowSubject = postern.Subject{Name: "o'hara", Groups: []string{"analysts", `a"b\c,{}`}, Claims: map[string]any{
	"country": "DE", "level": float64(3), "ratio": 0.5, "countries": []any{"DE", "FR"}, "none": []any{}, "mixed": []any{"a", map[string]any{}}, "vip": true, "nul": "a\x00b",
}}

func TestRowsToSQL(t *testing.T) {
	for _, c := range []struct{ rows, want string }{
		{`country == subject.claims.country`, `"country" OPERATOR(pg_catalog.=) 'DE'`},
		{`subject.claims.country != country`, `"country" OPERATOR(pg_catalog.<>) 'DE'`},
		{`3 < level && level <= subject.claims.level`, `("level" OPERATOR(pg_catalog.>) 3 AND "level" OPERATOR(pg_catalog.<=) 3)`},
		{`owner == subject.id || "leads" in subject.groups`, `("owner" OPERATOR(pg_catalog.=) 'o''hara' OR FALSE)`},
		{`!(deleted) && active == true`, `((NOT "deleted") AND "active" OPERATOR(pg_catalog.=) TRUE)`},
		{`country in subject.claims.countries`, `"country" OPERATOR(pg_catalog.=) ANY ('{"DE","FR"}')`},
		{`team in subject.groups`, `"team" OPERATOR(pg_catalog.=) ANY ('{"analysts","a\"b\\c,{}"}')`},
		{`team in subject.claims.none`, `FALSE`},
		{`n in [1, 2]`, `"n" OPERATOR(pg_catalog.=) ANY ('{"1","2"}')`},
		{`subject.id in members`, `'o''hara' OPERATOR(pg_catalog.=) ANY ("members")`},
		{`gone == null && null != since`, `("gone" IS NULL AND "since" IS NOT NULL)`},
		{`created > timestamp("2026-01-02T03:04:05.5+01:00")`, `"created" OPERATOR(pg_catalog.>) '2026-01-02 02:04:05.5+00'`},
		{`name.startsWith("A") || name.endsWith("é'") || name.contains(subject.id)`, `((pg_catalog.starts_with(CAST("name" AS pg_catalog.text), 'A') OR pg_catalog."right"(CAST("name" AS pg_catalog.text), 2) OPERATOR(pg_catalog.=) 'é''') OR pg_catalog.strpos(CAST("name" AS pg_catalog.text), 'o''hara') OPERATOR(pg_catalog.>) 0)`},
		{`low < high`, `"low" OPERATOR(pg_catalog.<) "high"`},
		{`n == -5 && r < subject.claims.ratio`, `("n" OPERATOR(pg_catalog.=) (-5) AND "r" OPERATOR(pg_catalog.<) 0.5)`},
		{`subject.groups.exists(g, g == "analysts") && x == 1`, `(TRUE AND "x" OPERATOR(pg_catalog.=) 1)`},
		{`country == (subject.claims.vip ? "X" : "Y")`, `"country" OPERATOR(pg_catalog.=) 'X'`},

		// What only shows with the subject.
		{`country == subject.claims.nope`, `? no such key: nope`},
		{`country == subject.claims`, `? is of type map`},
		{`country in subject.claims.country`, `? is not a list`},
		{`team in subject.claims.mixed`, `? is of type map`},
		{`country == subject.claims.nul`, `? value that SQL cannot compare`},
		{`subject.claims.country || x == 1`, `? want true or false`},
		{`name.contains(subject.claims.level)`, `? is not a text`},

		// What has no form in SQL is refused when it is written.
		{`country = subject.claims.country`, `! CEL compares with ==`},
		{`subject.mfa`, `! it names no column`},
		{`size(name) > 3`, `! size(name) > 3 has no form in SQL`},
		{`name.matches("a.*")`, `! name.matches("a.*") has no form in SQL`},
		{`a + b == 3`, `! a + b == 3 has no form in SQL`},
		{`tags.exists(t, t == "x")`, `! has no form in SQL`},
		{`row.country == "DE"`, `! has no form in SQL`},
		{`country == request.region`, `! has no form in SQL`},
		{`country == subject.email + other`, `! has no form in SQL`},
		{`x == subject.nope`, `! undeclared reference`},
		{`x == (subject.id < 3)`, `! no matching overload`},
		{`x < null`, `! x < null has no form in SQL`},
		{`"a"`, `! it names no column`},
		{`x == [1]`, `? is of type list`},
		{`x == 1/0`, `! division by zero`},
		{`x == 1 ? true : false`, `! has no form in SQL`},
		{`name.startsWith(3)`, `! applied to 'dyn.(int)'`},
		{`x == b"a"`, `? is of type bytes`},
	} {
		r, err := CompileRows(c.rows)
		if want, refused := strings.CutPrefix(c.want, "! "); refused || err != nil {
			if err == nil || !refused || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", c.rows, err, c.want)
			}
			continue
		}
		got, err := r.SQL(&rowSubject)
		if err != nil {
			got = "? " + err.Error()
		}
		if want, refused := strings.CutPrefix(c.want, "? "); got != c.want && !(refused && err != nil && strings.Contains(got, want)) {
			t.Errorf("%s:\n got %s\nwant %s", c.rows, got, c.want)
		}
	}
}

// TestClaimsAreNoPatterns: whatever a claim has in it, it is compared as it stands, and is one
// value (GHSA-59w7-v8rr-pr4p).
func TestClaimsAreNoPatterns(t *testing.T) {
	r, err := CompileRows(`country == subject.claims.c || name.startsWith(subject.claims.c) || team in subject.groups`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range "*+/,%_?.:;|^$~&#-()[]<>@! " {
		said := "a" + string(c) + "b"
		got, err := r.SQL(&postern.Subject{Name: "x", Groups: []string{said}, Claims: map[string]any{"c": said}})
		want := `(("country" OPERATOR(pg_catalog.=) '` + said + `' OR pg_catalog.starts_with(CAST("name" AS pg_catalog.text), '` + said + `')) OR "team" OPERATOR(pg_catalog.=) ANY ('{"` + said + `"}'))`
		if err != nil || strings.NewReplacer("((", "", "))", ")").Replace(got) != strings.NewReplacer("((", "", "))", ")").Replace(want) {
			t.Errorf("%q: %s (%v)\nwant %s", said, got, err, want)
		}
	}
}

func TestRowsColumns(t *testing.T) {
	r, err := CompileRows(`b == subject.id && (a > 1 || b in ["x"]) && subject.groups.exists(g, g == "h")`)
	if err != nil || strings.Join(r.Columns(), " ") != "a b" {
		t.Errorf("%v, %v", r, err)
	}
}
