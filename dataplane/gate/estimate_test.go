package gate

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
)

// A rule that reads the planner's estimate gets it, of what would be sent, and not for
// longer than it stands.
func TestEstimate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.snapshots.load(t, strings.Replace(world, "columns: [id, email], mask: {email: email}}", "columns: [id, email], mask: {email: email}, when: statement.estimatedRows < 100}", 1), 2)
		rows, fails := int64(5), error(nil)
		var asked []string
		prepare := func(text string, can bool) (*engine.Admission, error) {
			st := &engine.Statement{Text: text, Context: "c", Analyse: func(context.Context) (engine.Analysis, error) {
				return &understood{facts: reading("orders", "email"), canonical: "C", rewritten: "R"}, nil
			}}
			if can {
				st.Estimate = func(_ context.Context, text string) (int64, error) {
					asked = append(asked, text)
					return rows, fails
				}
			}
			return r.Prepare(t.Context(), st)
		}
		a, err := prepare("few", true)
		if err != nil || strings.Join(asked, " ") != "R" {
			t.Fatalf("%v; asked about %q", err, asked)
		}
		var f engine.Flow
		if err := r.Admit(a, engine.Args{}, &f); err != nil {
			t.Fatal(err)
		}
		if err := f.Done(engine.Outcome{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(estimateTTL + time.Second)
		if err := r.Admit(a, engine.Args{}, &f); !errors.Is(err, engine.ErrStale) {
			t.Errorf("an old estimate: %v", err)
		}
		rows = 100
		if _, err = prepare("many", true); !strings.Contains(refusal(t, err).Detail, "estimatedRows < 100") {
			t.Errorf("%+v", err)
		}
		fails = errors.New("no plan")
		if _, err = prepare("unknown", true); !strings.Contains(refusal(t, err).Reason, "gave none") {
			t.Errorf("%+v", err)
		}
		if _, err = prepare("nobody to ask", false); !strings.Contains(refusal(t, err).Reason, "not known here") {
			t.Errorf("%+v", err)
		}
		// What no estimate would allow is not asked about.
		asked = nil
		_, err = r.Prepare(t.Context(), &engine.Statement{Text: "denied", Analyse: func(context.Context) (engine.Analysis, error) {
			return &understood{facts: reading("salaries", "amount")}, nil
		}, Estimate: func(context.Context, string) (int64, error) { t.Error("asked"); return 0, nil }})
		refusal(t, err)
	})
}
