package gate

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
)

// At level result nothing is rewritten, and the engine must say that it keeps the masks.
func TestLevelResult(t *testing.T) {
	r := newRig(t)
	r.snapshots.load(t, strings.Replace(world, "credential: {sealed: warehouse}, catalog", "credential: {sealed: warehouse}, level: {want: result}, catalog", 1), 2)
	var cannot error
	asked := 0
	prepare := func(meets bool, u *understood) (*engine.Admission, error) {
		st := &engine.Statement{Text: "select email from sales.orders", Private: true, Analyse: func(context.Context) (engine.Analysis, error) { return u, nil }}
		if meets {
			st.Meets = func(an engine.Analysis, d *postern.Decision) error {
				asked++
				if an != u || d.Level != postern.LevelResult || len(d.Obligations) == 0 {
					t.Errorf("asked about %+v", d)
				}
				return cannot
			}
		}
		return r.Prepare(t.Context(), st)
	}
	a, err := prepare(true, &understood{facts: reading("orders", "email"), plain: true, canonical: "C", rewritten: "R"})
	if err != nil || !a.Own || a.Forward != a.Text || a.Decision.Level != postern.LevelResult || asked != 1 {
		t.Fatalf("plain: %+v, %v", a, err)
	}
	cannot = errors.New("a reason")
	_, err = prepare(true, &understood{facts: reading("orders", "email"), plain: true, rewritten: "R"})
	if got := refusal(t, err); !strings.Contains(got.Reason, "a reason") || got.Rule == "" || r.records.kinds() != "denied" {
		t.Errorf("%+v, recorded %s", got, r.records.kinds())
	}
	if _, err = prepare(false, &understood{facts: reading("orders", "email"), plain: true, rewritten: "R"}); refusal(t, err).Code != postern.CodeDenied {
		t.Error("an engine that meets nothing met the masks")
	}
}

// Masks of content are the engine's to keep, whatever else is rewritten; one that does
// not say so has none.
func TestContentMasks(t *testing.T) {
	d := &postern.Decision{Level: postern.LevelNone, Obligations: []postern.Obligation{{Programs: []string{"/bin/cat"}}, {Content: &postern.ContentRule{}}}}
	st := &engine.Statement{}
	if onTheWayBack(st, nil, d) == nil {
		t.Error("an engine that meets nothing masks content")
	}
	st.Meets = func(engine.Analysis, *postern.Decision) error { return nil }
	if err := onTheWayBack(st, nil, d); err != nil || !needsRewrite(d) {
		t.Errorf("%v; rewritten: %t", err, needsRewrite(d))
	}
	d.Obligations = append(d.Obligations, postern.Obligation{Table: &postern.TableRule{}})
	if onTheWayBack(st, nil, d) == nil {
		t.Error("masks of tables are kept at no level")
	}
}
