package export

import (
	"encoding/json"
	"strings"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/trail"
)

// alerts are the actions of the audit log that somebody should see.
var alerts = map[string]bool{
	"session.alert":    true, // such as a tool of MCP that has changed
	"workload.alert":   true, // one that needs somebody
	"account.around":   true, // one that was used, and not through a node
	"recording.reject": true, // a chunk that is not what its node had recorded
	trail.Lost:         true,
}

// Entry is an entry of the audit log as a line. What it changed is not in it; the log says
// that by the sequence.
func Entry(e *apiv1.AuditEntry) Record {
	r := Record{
		Schema: 1, Kind: KindAudit, Time: e.GetTime().AsTime(), Sequence: e.GetSequence(), Actor: e.GetActor(), Actors: e.GetActors(), Address: e.GetAddress(),
		Action: e.GetAction(), Objects: strings.Fields(e.GetObject()), Outcome: e.GetOutcome(), Detail: e.GetDetail(),
	}
	if alerts[r.Action] {
		r.Kind = KindAlert
	}
	for _, o := range r.Objects {
		if id, ok := strings.CutPrefix(o, "session/"); ok {
			r.Session = id
		}
	}
	var d struct{ Alert, Text, Subject, Task, Resource, Node string }
	if json.Unmarshal([]byte(r.Detail), &d) != nil {
		return r // a detail of another form stands as it is
	}
	if r.Text = d.Alert; r.Text == "" {
		r.Text = d.Text
	}
	r.Subject, r.Task, r.Resource, r.Node = d.Subject, d.Task, d.Resource, d.Node
	if node, ok := strings.CutPrefix(r.Actor, "node/"); ok {
		r.Node = node
	}
	return r
}
