package postgres

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
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

// TestRefusalsAreOnRecord: what the engine refuses by itself, after policy had nothing against it
// or was not asked, is denied for the record, too.
func TestRefusalsAreOnRecord(t *testing.T) {
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(text string, _ any) postern.Decision {
			d := postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
			if strings.HasPrefix(text, "delete") {
				d.Obligations = []postern.Obligation{{MaxAffected: 1}}
			}
			return d
		}
	})
	w := h.wire(t)
	for text, msgs := range map[string][]pgproto3.FrontendMessage{
		"function call 952":                          {&pgproto3.FunctionCall{Function: 952}},
		"prepare p as select 1; execute p":           {q("prepare p as select 1; execute p")},
		"delete from load; select 1":                 {q("delete from load; select 1")},
		"delete from load where id < 0 returning id": {parse("", "delete from load where id < 0 returning id"), bind("", ""), execute("", 1), sync_},
		"select $1::text":                            {&pgproto3.Parse{Query: "select $1::text", ParameterOIDs: []uint32{4000000000}}, sync_},
	} {
		if got := w.say(1, msgs...); !strings.HasSuffix(got, "E:42501 Z:I") {
			t.Errorf("%s: %s", text, got)
		}
		judged := 0
		for _, s := range h.door.Last().Prepared() {
			if s == text {
				judged++
			}
		}
		if asked := strings.HasPrefix(text, "function"); judged != 2 && !(asked && judged == 1) {
			t.Errorf("%s: judged %d times", text, judged)
		}
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
