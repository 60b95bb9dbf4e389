package postgres

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestFetchOfWhatTheTextDeclares: ODBC's driver declares a cursor and fetches its first rows in
// one text (UseDeclareFetch, as Tableau sets it).
func TestFetchOfWhatTheTextDeclares(t *testing.T) {
	w := newHouse(t).wire(t)
	const declare = `BEGIN;declare "c" cursor with hold for select id from orders order by id;`
	if got := w.say(1, q(declare+`fetch 2 in "c"`)); got != "C:BEGIN C:DECLARE CURSOR T D:1 D:2 C:FETCH 2 Z:T" {
		t.Fatal(got)
	}
	if got := w.say(3, q(`savepoint s;fetch 2 in "c"`), q("commit"), q(`fetch 1 in "c"`)); got != "C:SAVEPOINT T D:3 D:4 C:FETCH 2 Z:T C:COMMIT Z:I T D:5 C:FETCH 1 Z:I" {
		t.Error(got)
	}
	if got := w.say(1, q(declare+`fetch 2 in "c"`)); got != "C:BEGIN E:42P03 Z:E" {
		t.Errorf("it is there already: %s", got)
	}
	for _, other := range []string{
		`fetch 2 in "c"; commit`, `fetch 1 in "c"; fetch 1 in "c"`,
		`declare "d" cursor for select 1; fetch 2 in "c"`, `fetch 2 in "d"; declare "d" cursor for select 1`, `declare "d" cursor for select 1; execute "d"`,
	} {
		if got := w.say(2, q("rollback"), q("begin; "+other)); !strings.HasSuffix(got, " Z:I E:42501 Z:I") {
			t.Errorf("%s: %s", other, got)
		}
	}
}

// TestCallsByNumberAreOnRecord: they are refused as statements are.
func TestCallsByNumberAreOnRecord(t *testing.T) {
	h := newHouse(t)
	if got := h.wire(t).say(1, &pgproto3.FunctionCall{Function: 952}); got != "E:42501 Z:I" {
		t.Error(got)
	}
	if judged := h.door.Last().Prepared(); !slices.Contains(judged, "function call 952") {
		t.Errorf("judged: %q", judged)
	}
}

// TestAPinnedPathHasNoQuotes: servers from 18 on report search_path, as it was written.
func TestAPinnedPathHasNoQuotes(t *testing.T) {
	c := hotConn(t)
	c.pinned = map[string]string{"search_path": `"sales", "b c"`}
	for value, stays := range map[string]bool{`sales, "b c"`: true, `sales`: false, `"b c", sales`: false, `hr, "b c"`: false} {
		if err := (targetCore{c}).parameterStatus(message('S', "search_path\x00"+value+"\x00")); (err == nil) != stays {
			t.Errorf("%s: %v", value, err)
		}
	}
}
