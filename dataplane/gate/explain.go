package gate

import (
	"context"
	"errors"
	"slices"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/sql"
)

// An Explanation is what would happen to a statement. Nothing of it was recorded, and
// nothing was let through.
type Explanation struct {
	Decision postern.Decision
	Refusal  *postern.Refusal // why not; nil where the statement would go, or wait
	Forward  string           // what would be sent; empty with a Refusal
	Touched  []record.Touch
	// Relations that an SQL statement names, as schema.name, in order.
	Relations []string
}

// Explain judges a statement without letting it through.
func (g *Gate) Explain(ctx context.Context, st *engine.Statement) (Explanation, error) {
	snap := g.cfg.Snapshots.Current()
	an, facts, err := analyse(ctx, st)
	if err != nil {
		var r *postern.Refusal
		if errors.As(err, &r) {
			return Explanation{Refusal: r, Decision: postern.Decision{Version: snap.Version()}}, nil
		}
		return Explanation{}, err
	}
	d, rows, err := g.decide(ctx, snap, st, an, facts)
	if err != nil {
		return Explanation{Refusal: postern.AsRefusal(err), Decision: postern.Decision{Version: snap.Version()}}, nil
	}
	out := Explanation{Decision: d, Touched: touches(facts, d.Obligations), Relations: relations(facts)}
	if d.Verdict == postern.VerdictDeny {
		out.Decision = g.advised(snap, facts, d)
		out.Refusal = Refuse(out.Decision)
		return out, nil
	}
	a, err := g.admission(snap, st, an, facts, d, rows)
	if err != nil {
		out.Refusal = postern.AsRefusal(err)
		out.Decision.Verdict = postern.VerdictDeny
		return out, nil
	}
	out.Forward = a.Forward
	return out, nil
}

func relations(facts policy.Facts) (names []string) {
	f, ok := facts.(*sql.Facts)
	if !ok {
		return nil
	}
	for i := range f.Statements {
		for j := range f.Statements[i].Tables {
			names = append(names, f.Statements[i].Tables[j].String())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
