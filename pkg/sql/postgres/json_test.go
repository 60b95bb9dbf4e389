package postgres_test

import (
	"testing"

	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/sql/postgres"
	"github.com/posterngate/postern/pkg/sql/sqltest"
)

// TestFormsThatOlderServersCall: what is a form of its own in the grammar is a call to a server
// from before, of whatever users have named so.
func TestFormsThatOlderServersCall(t *testing.T) {
	for _, c := range []struct {
		text, function string
		since          int
	}{
		{"SELECT JSON_ARRAY(1)", "json_array", 160000},
		{"SELECT JSON_ARRAYAGG(id) FROM orders", "json_arrayagg", 160000},
		{"SELECT JSON_OBJECT()", "json_object", 160000},
		{"SELECT JSON('1')", "json", 170000},
		{"SELECT JSON_SCALAR(1)", "json_scalar", 170000},
		{"SELECT JSON_SERIALIZE('1')", "json_serialize", 170000},
		{"SELECT JSON_VALUE('1', '$')", "json_value", 170000},
		{"SELECT JSON_QUERY('1', '$')", "json_query", 170000},
		{"SELECT 1 WHERE JSON_EXISTS('1', '$')", "json_exists", 170000},
	} {
		for _, server := range []int{c.since - 1, c.since} {
			cat := sqltest.Traps()
			cat.Server = server
			cat.Functions[sql.Name{Schema: "public", Name: c.function}] = []sql.FunctionInfo{{Args: 2, Volatility: 'v'}}
			an, err := postgres.Analyze(t.Context(), pool, cat, settings, c.text)
			if err != nil {
				t.Fatal(err)
			}
			var called bool
			for _, f := range an.SQLFacts().Statements[0].Functions {
				called = called || f == sql.Function{Schema: "public", Name: c.function}
			}
			if called != (server < c.since) {
				t.Errorf("%s on %d: %s", c.text, server, brief(an.SQLFacts()))
			}
		}
	}
}
