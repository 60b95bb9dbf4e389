package answerapi

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/identity/enrol"
	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/trail"
)

// nothing refuses a search that found nothing because a name in it is nobody's.
func (h *Handler) nothing(ctx context.Context, q index.Query) error {
	if err := h.known(ctx, index.Usage{Subject: q.Subject, Task: q.Task, Resource: q.Resource, Account: q.Account}); err != nil {
		return err
	}
	if err := h.recorded(ctx, q.Column, q.Resource); err != nil {
		return err
	}
	if err := h.session(ctx, q.Session); err != nil {
		return err
	}
	return h.node(ctx, q.Node)
}

// known refuses a question that found nothing because a name in it is nobody's: neither
// policy nor any recording has it. An answer of nothing would be believed.
func (h *Handler) known(ctx context.Context, q index.Usage) error {
	for _, n := range []struct {
		what, name string
		has        bool // whether policy has the name; nobody keeps a list of people and accounts
		ask        index.Usage
	}{
		{"subject, resource, account or workload", q.Name, h.cfg.Exists("resource", q.Name) || h.cfg.Exists("workload", q.Name) || h.picked(q.Name), index.Usage{Name: q.Name}},
		{"subject", q.Subject, h.picked(q.Subject), index.Usage{Subject: q.Subject}},
		{"task", q.Task, h.cfg.Exists("task", q.Task), index.Usage{Task: q.Task}},
		{"resource", q.Resource, h.cfg.Exists("resource", q.Resource), index.Usage{Resource: q.Resource}},
		{"account", q.Account, false, index.Usage{Account: q.Account}},
		{"workload", q.Workload, h.cfg.Exists("workload", q.Workload), index.Usage{Workload: q.Workload}},
	} {
		if n.name == "" || n.has {
			continue
		}
		used, err := h.cfg.Index.Usage(ctx, n.ask)
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
	uses, err := h.cfg.Index.Who(ctx, index.Who{Name: name, Resource: resource, Limit: 1})
	if err != nil || len(uses) > 0 {
		return err
	}
	if resource != "" {
		resource = " of " + resource
	}
	return fault.New(codes.NotFound, "nothing on record has ever used %.200q%s: nobody did, or there is no such name", name, resource).
		WithHint("names are as they were recorded: postern audit search WORD --format json shows those of each statement")
}

// session refuses a question about one session that was never recorded, and one whose recording
// is gone: of that only the audit log knows.
func (h *Handler) session(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	if _, err := h.cfg.Index.Session(ctx, postern.SessionID(id)); !errors.Is(err, index.ErrNotFound) {
		return err
	}
	began, err := h.cfg.Told(ctx, trail.Began, "session/"+id)
	switch {
	case err != nil:
		return err
	case began:
		return fault.New(codes.NotFound, "session %.60q was recorded, and its recording is gone: its time was over", id).
			WithHint("what is still known of it: postern audit log --object session/" + id)
	}
	return fault.New(codes.NotFound, "no session is known as %.60q", id).WithHint("those on record: postern sessions list")
}

// node refuses a question about a node that neither is there nor ever was.
func (h *Handler) node(ctx context.Context, name string) error {
	if name == "" || h.cfg.Exists("node", name) {
		return nil
	}
	if enrolled, err := h.cfg.Told(ctx, enrol.Registered, "node/"+name); err != nil || enrolled {
		return err
	}
	return fault.New(codes.NotFound, "no node is known as %.60q", name).WithHint("those that there are: postern nodes list")
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
	bindings, err := h.cfg.Bindings()
	return err == nil && slices.ContainsFunc(bindings, func(b *typesv1.Binding) bool { return concerns(b, index.Usage{Subject: name}) })
}
