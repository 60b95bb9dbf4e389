package gate

import (
	"errors"
	"testing"

	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// TestADenialNamesTheTaskThatMay: of what else the subject is offered, the first that does not deny
// the same; neither one that allows everything nor one that the node does not know.
func TestADenialNamesTheTaskThatMay(t *testing.T) {
	r := newRig(t)
	r.snapshots.load(t, world+`
---
kind: Task
metadata: {name: salaries}
spec: {purpose: pay, duration: 1h, resources: {names: [warehouse]}, permit: [{table: hr.salaries, verbs: [select], columns: [id]}]}
---
kind: Task
metadata: {name: pay-out}
spec: {purpose: pay, duration: 1h, resources: {names: [warehouse]}, permit: [{table: hr.salaries, verbs: [select], columns: [id]}], when: request.client == "payer"}
---
kind: Task
metadata: {name: all}
spec: {purpose: emergencies, duration: 1h, resources: {names: [warehouse]}, permit: [{unrestricted: true}]}
`, 1)
	const usual = policy.HintTasks
	for name, c := range map[string]struct {
		others []postern.Alternative
		table  string
		hint   string
	}{
		"nothing else":              {nil, "salaries", usual},
		"another one":               {[]postern.Alternative{{Task: "salaries"}}, "salaries", `your task "salaries" may: postern connect salaries.warehouse`},
		"one that people are asked": {[]postern.Alternative{{Task: "salaries", Asks: true}}, "salaries", `your task "salaries" may, once people have said yes: postern request salaries --reason "..."`},
		"one that is not known":     {[]postern.Alternative{{Task: "unknown"}, {Task: "salaries"}}, "salaries", `your task "salaries" may: postern connect salaries.warehouse`},
		"one that does not either":  {[]postern.Alternative{{Task: "salaries"}}, "bonuses", usual},
		"one with a condition":      {[]postern.Alternative{{Task: "pay-out"}}, "salaries", usual},
		"one that allows all":       {[]postern.Alternative{{Task: "all"}}, "salaries", usual},
	} {
		r.cfg.Grant.Alternatives = c.others
		facts := reading(c.table, "id")
		facts.Statements[0].Tables[0].Schema = "hr"
		_, err := r.prepare(t, "SELECT id FROM hr."+c.table, &understood{facts: facts})
		var no *postern.Refusal
		if !errors.As(err, &no) || no.Code != postern.CodeDenied || no.Hint != c.hint {
			t.Errorf("%s: %+v, want the hint %q", name, no, c.hint)
		}
	}
	// What no other task could do better keeps the hint that it has.
	r.cfg.Grant.Alternatives = []postern.Alternative{{Task: "salaries"}}
	_, err := r.prepare(t, "SELECT", &understood{facts: sql.Facts{Incomplete: "odd"}})
	var no *postern.Refusal
	if !errors.As(err, &no) || no.Rule != "report/facts" || no.Hint == "" || no.Hint[:5] == "your " {
		t.Errorf("what was not understood: %+v", no)
	}
}
