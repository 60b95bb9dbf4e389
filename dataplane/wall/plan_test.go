package wall

import (
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

var (
	people = sql.Name{Schema: "sales", Name: "people"}
	known  = tables{people: {{"id", "integer", "pg_catalog"}, {"na\"me", "text", "pg_catalog"}, {"email", "text", "pg_catalog"}, {"mood", "app.mood", "app"}}}
)

func ruleOf(columns ...postern.ColumnRule) *postern.TableRule {
	return &postern.TableRule{Schema: "sales", Table: "people", Columns: columns, View: &postern.View{Schema: "postern_x_t_1", Name: "sales.people"}}
}

func TestViewOf(t *testing.T) {
	redact := &postern.MaskRule{Name: "m", Method: postern.MaskRedact, Value: "it's"}
	filtered := ruleOf(postern.ColumnRule{Name: "id"})
	filtered.Filter = `"id" > 3`
	for _, c := range []struct {
		rule *postern.TableRule
		want string // empty: an error
	}{
		{ruleOf(postern.ColumnRule{Name: "email", Mask: redact}, postern.ColumnRule{Name: "id"}),
			`CREATE VIEW "postern_x_t_1"."sales.people" AS SELECT "id", CAST('it''s' AS text) AS "email" FROM "sales"."people"`},
		{ruleOf(postern.ColumnRule{Name: `na"me`}), `CREATE VIEW "postern_x_t_1"."sales.people" AS SELECT "na""me" FROM "sales"."people"`},
		{filtered, `CREATE VIEW "postern_x_t_1"."sales.people" WITH (security_barrier = true) AS SELECT "id" FROM "sales"."people" WHERE ("id" > 3)`},
		{ruleOf(postern.ColumnRule{Name: "gone"}), ""},
		{ruleOf(postern.ColumnRule{Name: "id", Mask: redact}), ""}, // a constant fits text alone
		{ruleOf(postern.ColumnRule{Name: "email", Mask: &postern.MaskRule{Method: postern.MaskToken, Domain: "d"}}), ""},
		{&postern.TableRule{Schema: "sales", Table: "nothing", View: &postern.View{}}, ""},
	} {
		got, err := viewOf(c.rule, known)
		if got.text != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%+v:\n got %s (%v)\nwant %s", c.rule.Columns, got.text, err, c.want)
		}
	}
}

// The views' owner reads what they show and what filters read, and no more.
func TestOwnerGrants(t *testing.T) {
	w := policy.Wall{Views: []policy.WallView{{Rule: ruleOf(postern.ColumnRule{Name: "id"}, postern.ColumnRule{Name: "mood"}), Reads: []string{"email"}}}}
	got, err := ownerGrants(w, known)
	if err != nil {
		t.Fatal(err)
	}
	want := []grant{
		{kind: "schema", name: "sales", privilege: "USAGE"}, {kind: "schema", name: "app", privilege: "USAGE"},
		{kind: "table", schema: "sales", name: "people", column: "id", privilege: "SELECT"},
		{kind: "table", schema: "sales", name: "people", column: "mood", privilege: "SELECT"},
		{kind: "table", schema: "sales", name: "people", column: "email", privilege: "SELECT"},
	}
	for _, g := range want {
		if !got[g] {
			t.Errorf("%+v is missing", g)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d grants and not %d: %v", len(got), len(want), got)
	}
	w.Views[0].Reads = []string{"gone"}
	if _, err := ownerGrants(w, known); err == nil {
		t.Error("a filter over a column that there is not")
	}
}

func TestGrantStatements(t *testing.T) {
	for _, c := range []struct {
		g    grant
		want string
	}{
		{grant{kind: "table", schema: "s", name: `t"; DROP`, column: "c", privilege: "SELECT"}, `GRANT SELECT ("c") ON TABLE "s"."t""; DROP" TO "r"`},
		{grant{kind: "schema", name: "s", privilege: "USAGE"}, `GRANT USAGE ON SCHEMA "s" TO "r"`},
		{grant{kind: "database", name: "d", privilege: "CONNECT"}, `GRANT CONNECT ON DATABASE "d" TO "r"`},
		{grant{kind: "sequence", schema: "s", name: "q", privilege: "USAGE"}, `GRANT USAGE ON SEQUENCE "s"."q" TO "r"`},
		{grant{kind: "routine", schema: "s", name: "s.f(integer)", privilege: "EXECUTE"}, `GRANT EXECUTE ON ROUTINE s.f(integer) TO "r"`},
	} {
		if got := c.g.statement("GRANT", "TO", "r"); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

// What comes from elsewhere goes into SQL only in a form that is known, logins that are
// dropped included (CVE-2026-39946).
func TestForms(t *testing.T) {
	if got, err := loginName("warehouse", "l-abcdefgh12"); err != nil || got != loginPrefix("warehouse")+"abcdefgh12" {
		t.Errorf("%q %v", got, err)
	}
	for _, lease := range []string{"", "l-", "abcdefgh12", "l-ABCDEFGH", `l-abcdefgh"`, "l-abcdefgh; DROP ROLE x", "l-" + strings.Repeat("a", 33)} {
		if got, err := loginName("warehouse", lease); err == nil {
			t.Errorf("lease %q is login %q", lease, got)
		}
	}
	good := "SCRAM-SHA-256$4096:c2FsdHNhbHQ=$" + strings.Repeat("A", 43) + "=:" + strings.Repeat("B", 43) + "="
	for verifier, ok := range map[string]bool{good: true, good + "'": false, "'" + good: false, strings.Replace(good, "4096", "4096' --", 1): false, "hunter2": false, "": false} {
		if verifierForm.MatchString(verifier) != ok {
			t.Errorf("%q: %v", verifier, !ok)
		}
	}
	if got := firstWords("ALTER ROLE x PASSWORD 'hunter2' IN ROLE y"); got != "ALTER ROLE x" {
		t.Errorf("an error would say %q", got)
	}
	if prefixOf("postern_ab12cd34_t_report") != "postern_ab12cd34_" || prefixOf("x") != "x_" {
		t.Error("the prefix of a role is another one")
	}
}
