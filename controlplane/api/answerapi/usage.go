package answerapi

import (
	"cmp"
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/recording/index"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// GetUsage implements the AnswerService.
func (h *Handler) GetUsage(ctx context.Context, req *connect.Request[apiv1.GetUsageRequest]) (*connect.Response[apiv1.GetUsageResponse], error) {
	if err := allowed(ctx, authz.Auditor, authz.Operator); err != nil {
		return nil, err
	}
	m := req.Msg
	q := index.Usage{Name: m.GetName(), Subject: m.GetSubject(), Task: m.GetTask(), Resource: m.GetResource(), Account: m.GetAccount(), Workload: m.GetWorkload()}
	var c check
	c.fields(q.Name, q.Subject, q.Task, q.Resource, q.Account, q.Workload)
	q.Since = c.time("since", m.GetSince())
	unused := m.GetUnused().AsDuration()
	if unused < 0 || m.GetUnused() != nil && unused == 0 {
		c.wrong("unused", "must be longer than nothing")
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	if unused > 0 {
		list, err := h.unused(ctx, q, h.cfg.Now().Add(-unused))
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(&apiv1.GetUsageResponse{Unused: list}), nil
	}
	used, truncated, err := h.used(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(used) == 0 {
		if err := h.known(ctx, q); err != nil {
			return nil, err
		}
	}
	owners := h.owners()
	resp := &apiv1.GetUsageResponse{Truncated: truncated}
	for _, u := range used {
		resp.Usage = append(resp.Usage, &apiv1.Usage{
			Subject: u.Subject, Workload: u.Workload, Task: u.Task, Resource: u.Resource, Account: u.Account, Node: u.Node, Region: u.Region,
			ClientHost: u.ClientHost, ClientProgram: u.ClientProgram, Sessions: u.Sessions, Statements: u.Statements, Rows: u.Rows,
			FirstTime: timestamppb.New(u.First), LastTime: timestamppb.New(u.Last), Owner: owners[u.Workload], Doubted: u.Doubted,
		})
	}
	return connect.NewResponse(resp), nil
}

// owners are those of workloads, by the workload.
func (h *Handler) owners() map[string]string {
	out := map[string]string{}
	for _, w := range h.cfg.Workloads() {
		out[w.GetMetadata().GetName()] = w.GetSpec().GetOwner()
	}
	return out
}

// used is what a question finds and, where it names somebody who owns workloads, what these
// do, last used first.
func (h *Handler) used(ctx context.Context, q index.Usage) (all []index.Used, truncated bool, err error) {
	ask := []index.Usage{q}
	for name, owner := range h.owners() {
		if q.Name != "" && owner == q.Name && name != q.Name {
			theirs := q
			theirs.Name, theirs.Workload = name, cmp.Or(q.Workload, name)
			ask = append(ask, theirs)
		}
	}
	for _, q := range ask {
		used, err := h.cfg.Index.Usage(ctx, q)
		if err != nil {
			return nil, false, err
		}
		all, truncated = append(all, used...), truncated || len(used) == index.MaxUsed
	}
	slices.SortStableFunc(all, func(a, b index.Used) int { return b.Last.Compare(a.Last) })
	return all, truncated, nil
}

// unused lists bindings whose tasks nobody whom they pick has used since then.
func (h *Handler) unused(ctx context.Context, q index.Usage, since time.Time) ([]*apiv1.UnusedBinding, error) {
	bindings, err := h.cfg.Bindings()
	if err != nil {
		return nil, err
	}
	takers := map[string][]index.Taker{}
	var out []*apiv1.UnusedBinding
	for _, b := range bindings {
		if !concerns(b, q) {
			continue
		}
		for _, task := range b.GetSpec().GetTasks() {
			if q.Task != "" && q.Task != task {
				continue
			}
			who, ok := takers[task]
			if !ok {
				if who, err = h.cfg.Index.Takers(ctx, task, q.Resource); err != nil {
					return nil, err
				}
				takers[task] = who
			}
			last := lastUse(b, who)
			if last == nil || last.AsTime().Before(since) {
				out = append(out, &apiv1.UnusedBinding{Binding: b.GetMetadata().GetName(), Task: task, LastTime: last})
			}
		}
	}
	return out, nil
}

// concerns reports whether a binding picks the subject or workload that is asked for by
// name.
func concerns(b *typesv1.Binding, q index.Usage) bool {
	for _, want := range []string{q.Subject, q.Workload, q.Name} {
		if want != "" && !slices.ContainsFunc(b.GetSpec().GetSubjects(), func(s *typesv1.SubjectSelector) bool {
			return s.GetSubject() == want || s.GetWorkload() == want
		}) {
			return false
		}
	}
	return true
}

// lastUse is that of whoever took a task last of those whom a binding picks, or nil.
func lastUse(b *typesv1.Binding, takers []index.Taker) *timestamppb.Timestamp {
	for _, t := range takers {
		if policy.MayPick(b.GetSpec().GetSubjects(), &postern.Subject{Name: t.Subject, Groups: t.Groups, Workload: t.Workload}) {
			return timestamppb.New(t.Last)
		}
	}
	return nil
}
