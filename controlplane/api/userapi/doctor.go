package userapi

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// Doctor implements apiv1connect.AccessServiceHandler: what policy promises, held against
// what a wall finds at the resource. What concerns resources that the caller may not read is
// not told.
func (a *Access) Doctor(ctx context.Context, r *connect.Request[apiv1.DoctorRequest]) (*connect.Response[apiv1.DoctorResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	now, task := a.cfg.Hub.Snapshot(), postern.TaskName(r.Msg.GetTask())
	resources, err := examined(c, now, task, postern.ResourceName(r.Msg.GetResource()))
	if err != nil {
		return nil, err
	}
	resp := &apiv1.DoctorResponse{}
	for _, name := range resources {
		h, err := a.examine(ctx, now, name, task)
		if err != nil {
			return nil, err
		}
		resp.Resources = append(resp.Resources, h)
	}
	return connect.NewResponse(resp), nil
}

// examined are the resources that a question is about, of those that the caller may read, sorted.
func examined(c *authz.Caller, now *policy.Snapshot, t postern.TaskName, r postern.ResourceName) ([]postern.ResourceName, error) {
	reads := func(r postern.ResourceName) bool {
		res, ok := now.Resource(r)
		return ok && c.HasFor(authz.Viewer, res.GetMetadata().GetLabels())
	}
	if t == "" && r == "" {
		return nil, fault.Invalid(fault.Violation{Field: "task", Reason: "is required, or resource"})
	}
	if r != "" {
		if !reads(r) {
			return nil, fault.New(codes.NotFound, "there is no resource %q that compiles", r)
		}
		if t != "" && !slices.Contains(now.TasksOn(r), t) {
			return nil, fault.New(codes.NotFound, "task %q does not reach resource %q", t, r)
		}
		return []postern.ResourceName{r}, nil
	}
	var out []postern.ResourceName
	for _, name := range now.Resources() {
		if reads(name) && slices.Contains(now.TasksOn(name), t) {
			out = append(out, name)
		}
	}
	if len(out) == 0 {
		return nil, fault.New(codes.NotFound, "there is no task %q that compiles and reaches a resource", t)
	}
	return out, nil
}

func (a *Access) examine(ctx context.Context, now *policy.Snapshot, name postern.ResourceName, only postern.TaskName) (*apiv1.ResourceHealth, error) {
	res, _ := now.Resource(name)
	level := wanted(res)
	h := &apiv1.ResourceHealth{Resource: string(name)}
	if res.GetSpec().GetProtocol() == string(postern.Postgres) {
		h.Want, h.Visible = level.String(), policy.StaysVisible(level)
	}
	seen := a.inspect(ctx, res, h)
	tasks := now.TasksOn(name)
	if only != "" {
		tasks = []postern.TaskName{only}
	}
	for _, t := range tasks {
		th, err := taskHealth(now, t, name, seen)
		if err != nil {
			return nil, err
		}
		h.Tasks = append(h.Tasks, th)
	}
	if res.GetSpec().GetProtocol() == string(postern.SSH) {
		h.Findings = append(h.Findings, hostFindings(now, res, tasks)...)
	}
	h.Findings = slices.Concat(a.shut(now, name), a.troubles(name), h.Findings, policyFindings(res), rawFindings(now, name, tasks))
	return h, nil
}

// shut tells why nobody gets in at all, whatever holds for those who do.
func (a *Access) shut(now *policy.Snapshot, name postern.ResourceName) (out []*nodev1.Finding) {
	if reason, lock, ok := now.Locked("", "", "", name, "", a.cfg.Now()); ok {
		out = append(out, &nodev1.Finding{Severity: "note", Check: "lock", Object: string(name), Text: "nobody is let in: " + reason, Fix: "postern unlock " + lock + ", once the reason is gone"})
	}
	if _, ok := a.cfg.Hub.NodeFor(name); !ok {
		out = append(out, &nodev1.Finding{Severity: "broken", Check: "node", Object: string(name), Text: "nobody can get in: no node that serves it is connected, or those that are drain",
			Fix: "postern nodes lists them, and their logs say why they are away; spec.reachableFrom of the resource picks them"})
	}
	return out
}

// troubles are what keeps nodes that are connected from a resource, as they say.
func (a *Access) troubles(name postern.ResourceName) []*nodev1.Finding {
	var out []*nodev1.Finding
	for _, n := range a.cfg.Hub.Nodes() {
		for _, t := range n.GetReport().GetTroubles() {
			if n.GetConnected() && t.GetResource() == string(name) {
				out = append(out, &nodev1.Finding{
					Severity: "broken", Check: "login", Object: string(name),
					Text: fmt.Sprintf("cannot be connected and logged in to by node %s, since %s and last at %s: %s",
						n.GetName(), clock(t.GetSinceTime()), clock(t.GetLastTime()), t.GetError()),
					Fix: "see spec.endpoint, the account of spec.credential, and whether the node's network leads there; who connects next tries it again",
				})
			}
		}
	}
	slices.SortFunc(out, func(a, b *nodev1.Finding) int { return strings.Compare(a.GetText(), b.GetText()) })
	return out
}

func clock(t *timestamppb.Timestamp) string {
	return t.AsTime().UTC().Format("2006-01-02 15:04:05 UTC")
}

func wanted(r *typesv1.Resource) postern.Level {
	switch r.GetSpec().GetLevel().GetWant() {
	case "native":
		return postern.LevelNative
	case "result":
		return postern.LevelResult
	}
	return postern.LevelSource
}

// inspect asks a wall. What it could not find out is a finding too.
func (a *Access) inspect(ctx context.Context, res *typesv1.Resource, h *apiv1.ResourceHealth) *nodev1.Inspection {
	unknown := func(check, text, fix string) *nodev1.Inspection {
		h.Findings = append(h.Findings, &nodev1.Finding{Severity: "unknown", Check: check, Object: h.GetResource(), Text: text, Fix: fix})
		return nil
	}
	if res.GetSpec().GetProtocol() != string(postern.Postgres) {
		return nil // there is nothing for a wall to look at
	}
	if res.GetSpec().GetLevel().GetAdmin() == nil {
		return unknown("admin-credential", "no wall may look at this resource, so that what its target allows to everybody is not known", "set spec.level.admin, and run a postern-wall beside the nodes")
	}
	wall, ok := a.cfg.Hub.WallFor(postern.ResourceName(h.GetResource()))
	if !ok {
		return unknown("wall", "no wall that reaches this resource is connected", "run a postern-wall beside the nodes that serve it: postern nodes enrol NAME --role wall")
	}
	result, err := a.cfg.Hub.Command(ctx, wall, &nodev1.Command{Kind: &nodev1.Command_Inspect{Inspect: &nodev1.Inspect{Resource: h.GetResource()}}})
	switch {
	case err != nil:
		return unknown("wall", "wall "+string(wall)+" did not answer: "+fault.From(err).Reason, "look at its log")
	case result.GetInspection() == nil:
		return unknown("wall", "wall "+string(wall)+" could not look: "+result.GetError(), "look at its log")
	}
	seen := result.GetInspection()
	h.Wall, h.Server = string(wall), seen.GetServer()
	h.Findings = append(h.Findings, seen.GetFindings()...)
	return seen
}

func taskHealth(now *policy.Snapshot, t postern.TaskName, r postern.ResourceName, seen *nodev1.Inspection) (*apiv1.TaskHealth, error) {
	levels, ok := now.Levels(t, r)
	if !ok {
		return nil, fault.New(codes.NotFound, "task %q does not reach resource %q", t, r)
	}
	out := &apiv1.TaskHealth{Task: string(t)}
	if w, native := now.Wall(t, r); native {
		out.Role, out.Schema = w.Role, w.Schema
		out.Problem = fmt.Sprintf("level native cannot be shown: no wall of %s has answered", r)
		for _, st := range seen.GetWalls() {
			if st.GetTask() != string(t) || st.GetSchema() != w.Schema {
				continue
			}
			if out.Problem = st.GetProblem(); out.Problem == "" && !st.GetReady() {
				out.Problem = "its roles and views are not made yet"
			}
		}
	}
	for _, l := range levels {
		p := &apiv1.PermitHealth{Rule: l.Rule, Allows: l.Allows, Level: l.Level.String(), Remains: l.Remains}
		if out.GetProblem() != "" {
			p.Level = "none"
		}
		out.Permits = append(out.Permits, p)
	}
	return out, nil
}

// policyFindings are what can be told without looking at the target.
func policyFindings(res *typesv1.Resource) []*nodev1.Finding {
	if res.GetSpec().GetProtocol() != string(postern.Postgres) {
		return nil
	}
	var out []*nodev1.Finding
	name := res.GetMetadata().GetName()
	if res.GetSpec().GetEndpoint().GetTls().GetMode() == "disable" {
		out = append(out, &nodev1.Finding{Severity: "note", Check: "tls", Object: name, Text: "nodes speak to the target without TLS", Fix: "set spec.endpoint.tls.mode: verify-full"})
	}
	switch res.GetSpec().GetLevel().GetWant() {
	case "native":
	case "result":
		out = append(out, &nodev1.Finding{Severity: "note", Check: "level", Object: name, Text: "values are masked on their way back (L1): the gateway must know where each one comes from", Fix: "set spec.level.want: source or native"})
	default:
		out = append(out, &nodev1.Finding{Severity: "note", Check: "level", Object: name, Text: "the gateway alone stands between a session and what the lent account may do (L2)", Fix: "set spec.level.want: native, with an admin credential"})
	}
	return out
}

// rawFindings tell of tasks that want what masks hide to be kept where nodes never have it.
func rawFindings(now *policy.Snapshot, name postern.ResourceName, tasks []postern.TaskName) []*nodev1.Finding {
	var out []*nodev1.Finding
	for _, t := range tasks {
		terms, _ := now.Terms(t)
		levels, _ := now.Levels(t, name)
		if !terms.StoreRaw || slices.ContainsFunc(levels, func(l policy.PermitLevel) bool { return l.Level < postern.LevelSource }) {
			continue
		}
		out = append(out, &nodev1.Finding{
			Severity: "note", Check: "store-raw", Object: "task/" + string(t),
			Text: "spec.record.storeRaw keeps nothing here: the target masks what it sends, so that no node ever has what is masked", Fix: "leave storeRaw out: it is for level result, for HTTP and for SSH",
		})
	}
	return out
}
