package answerapi

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// known refuses a question that found nothing because a name in it is nobody's: neither
// policy nor any recording has it. An answer of nothing would be believed.
func (h *Handler) known(ctx context.Context, q index.Usage) error {
	for _, n := range []struct {
		what, name string
		has        bool // whether policy has the name; nobody keeps a list of people and accounts
		ask        index.Usage
	}{
		{"subject, resource, account or workload", q.Name, h.exists("resource", q.Name) || h.exists("workload", q.Name) || h.picked(q.Name), index.Usage{Name: q.Name}},
		{"subject", q.Subject, h.picked(q.Subject), index.Usage{Subject: q.Subject}},
		{"task", q.Task, h.exists("task", q.Task), index.Usage{Task: q.Task}},
		{"resource", q.Resource, h.exists("resource", q.Resource), index.Usage{Resource: q.Resource}},
		{"account", q.Account, false, index.Usage{Account: q.Account}},
		{"workload", q.Workload, h.exists("workload", q.Workload), index.Usage{Workload: q.Workload}},
	} {
		if n.name == "" || n.has {
			continue
		}
		used, err := h.index.Usage(ctx, n.ask)
		if err != nil {
			return err
		}
		if len(used) == 0 {
			return fault.New(codes.NotFound, "no %s is known as %.60q", n.what, n.name).
				WithHint("postern usage lists everybody and everything that was recorded; resources, tasks and workloads: postern get KIND")
		}
	}
	return nil
}

// recorded refuses a question that found nothing about a column, table or path that nothing on
// record has used, at the resource where one is named: nobody keeps a list of what there is,
// and so nothing tells one that was left alone from a slip of the pen.
func (h *Handler) recorded(ctx context.Context, name, resource string) error {
	if name == "" {
		return nil
	}
	uses, err := h.index.Who(ctx, index.Who{Name: name, Resource: resource, Limit: 1})
	if err != nil || len(uses) > 0 {
		return err
	}
	if resource != "" {
		resource = " of " + resource
	}
	return fault.New(codes.NotFound, "nothing on record has ever used %.200q%s: nobody did, or there is no such name", name, resource).
		WithHint("names are as they were recorded: postern audit search WORD --format json shows those of each statement")
}

// picked reports whether policy names a person: as the owner of a workload, or in a binding.
func (h *Handler) picked(name string) bool {
	if name == "" {
		return false
	}
	for _, owner := range h.owners() {
		if owner == name {
			return true
		}
	}
	bindings, err := h.bindings()
	return err == nil && slices.ContainsFunc(bindings, func(b *typesv1.Binding) bool { return concerns(b, index.Usage{Subject: name}) })
}
