package recording

import (
	"context"
	"fmt"
	"slices"

	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// doubt marks a session that begins where its node says something else of whose it is than
// is known of the grant: who has a node's key could write down what others never did. It is
// kept as any other, since it may be true, and is evidence if it is not. A grant is forgotten
// some time after its end: of what was stored before, that is no reason to doubt it now.
func (s *Service) doubt(ctx context.Context, u *index.Update, stored bool) error {
	row := u.Session
	if _, raw := record.RawOf(postern.SessionID(row.GetId())); raw || s.cfg.Grant == nil || u.From() > 0 {
		return nil
	}
	g, err := s.cfg.Grant(ctx, postern.GrantID(row.GetGrant()), postern.NodeName(row.GetNode()))
	if err != nil {
		return err
	}
	if g == nil && stored {
		return nil
	}
	if row.Doubt = clip(doubtful(row, g)); row.GetDoubt() != "" {
		u.Alerts = slices.Insert(u.Alerts, 0, "whose session it is cannot be believed: "+row.GetDoubt())
	}
	return nil
}

// doubtful says how a session is none of a grant; nil is one that is not known.
func doubtful(row *typesv1.Session, g *typesv1.Grant) string {
	if g == nil {
		return fmt.Sprintf("no grant %.60q is known that a client has opened at node %s", row.GetGrant(), row.GetNode())
	}
	sub := noun.SubjectOf(g.GetSubject())
	var actors []string
	for _, a := range sub.Actors() {
		actors = append(actors, clip(a))
	}
	if clipName(sub.Name) == row.GetSubject() && clip(sub.Workload) == row.GetWorkload() && slices.Equal(actors, row.GetActors()) && clip(g.GetTask()) == row.GetTask() {
		return ""
	}
	return fmt.Sprintf("its node says that it is %s, and the grant %s is %s", whose(row.GetSubject(), row.GetWorkload(), row.GetActors(), row.GetTask()),
		g.GetId(), whose(sub.Name, sub.Workload, actors, g.GetTask()))
}

func whose(subject, workload string, actors []string, task string) string {
	text := fmt.Sprintf("%.60q's", subject)
	if workload != "" {
		text += fmt.Sprintf(" (workload %.60q)", workload)
	}
	for _, a := range actors[:min(len(actors), 3)] {
		text += fmt.Sprintf(" by %.60q", a)
	}
	return text + fmt.Sprintf(" for task %.60q", task)
}
