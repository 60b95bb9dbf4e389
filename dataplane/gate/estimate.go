package gate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// An estimate is what the resource's planner said of a statement.
type estimate struct {
	rows int64
	at   time.Time
}

// estimateTTL is for how long an estimate stands: tables grow.
const estimateTTL = time.Minute

// decide asks policy, and fetches what policy lacks. The estimate is nil where it lacked
// none.
func (g *Gate) decide(ctx context.Context, snap *policy.Snapshot, st *engine.Statement, an engine.Analysis, facts policy.Facts) (postern.Decision, *estimate, error) {
	q := g.query(facts)
	d := snap.Decide(q)
	if slices.Equal(d.Missing, []postern.Fact{postern.FactBody}) && st.Body != nil {
		// It is read into the facts, once.
		if err := st.Body(ctx); err != nil {
			return d, nil, err
		}
		d = snap.Decide(q)
	}
	if len(d.Missing) == 0 {
		return d, nil, nil
	}
	for _, fact := range d.Missing {
		if fact != postern.FactEstimatedRows || st.Estimate == nil {
			d.Verdict = postern.VerdictDeny
			d.Reason = fmt.Sprintf("the rule reads %s, which is not known here", fact)
			d.Hint = "try it: it is found out then"
			return d, nil, nil
		}
	}
	// Nothing is sent to the resource for a statement that no estimate would allow, and
	// what is sent is what would be sent.
	q.EstimatedRows = new(int64)
	best := snap.Decide(q)
	text := an.Canonical()
	if best.Verdict != postern.VerdictDeny && needsRewrite(&best) {
		var err error
		if text, err = an.Rewrite(best.Obligations); err != nil {
			return d, nil, unmasked(best, err)
		}
	}
	rows, err := st.Estimate(ctx, text)
	if err != nil {
		return d, nil, &postern.Refusal{
			Reason: "the rule reads an estimate of the rows, and the resource gave none", Rule: d.Rule,
			Hint: "try it as a single SELECT, INSERT, UPDATE or DELETE", Cause: err,
		}
	}
	*q.EstimatedRows = rows
	return snap.Decide(q), &estimate{rows, q.Request.Time}, nil
}

// unmasked is the refusal of a statement whose masks cannot be kept.
func unmasked(d postern.Decision, err error) *postern.Refusal {
	return &postern.Refusal{Reason: "the masks of this task cannot be kept in this statement: " + err.Error(), Rule: d.Rule, Hint: "name the columns plainly, or leave the masked ones out", Cause: err}
}
