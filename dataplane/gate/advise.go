package gate

import (
	"fmt"

	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// advised is a denial whose hint names a task of the subject's that does not deny the same,
// where there is one that stands between at all.
func (g *Gate) advised(snap *policy.Snapshot, facts policy.Facts, d postern.Decision) postern.Decision {
	if d.Hint != policy.HintTasks {
		return d
	}
	q := g.query(facts)
	q.Usage = policy.Usage{}
	for _, a := range g.cfg.Grant.Alternatives {
		if terms, ok := snap.Terms(a.Task); !ok || terms.Unrestricted {
			continue
		}
		other := *g.cfg.Grant
		other.Task, other.Approval = a.Task, nil
		q.Grant = &other
		if snap.DecideConnect(q).Verdict == postern.VerdictDeny || snap.Decide(q).Verdict == postern.VerdictDeny {
			continue
		}
		d.Hint = fmt.Sprintf("your task %q may: postern connect %s.%s", a.Task, a.Task, g.cfg.Resource)
		if a.Asks {
			d.Hint = fmt.Sprintf("your task %q may, once people have said yes: postern request %s --reason \"...\"", a.Task, a.Task)
		}
		return d
	}
	return d
}
