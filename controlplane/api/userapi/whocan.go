package userapi

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// WhoCan implements apiv1connect.PolicyServiceHandler. What concerns tasks and bindings
// that the caller may not read is not told.
func (p *Policy) WhoCan(ctx context.Context, r *connect.Request[apiv1.WhoCanRequest]) (*connect.Response[apiv1.WhoCanResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	now, _, err := p.current(ctx)
	if err != nil {
		return nil, err
	}
	s, _ := policy.Compile(versionOf(now), now.everything())
	target, err := s.Target(r.Msg.GetVerb(), r.Msg.GetObject())
	if err != nil {
		return nil, fault.Invalid(fault.Violation{Field: "object", Reason: err.Error()})
	}
	if res := now.Lookup("resource", string(target.Resource)); !c.MayRead(res) {
		return nil, notFound("resource", string(target.Resource))
	}
	access, notes := s.WhoCan(target, p.cfg.Now())
	resp := &apiv1.WhoCanResponse{Notes: notes, Version: &typesv1.Version{Epoch: s.Version().Epoch, Revision: s.Version().Revision}}
	holders, err := p.holders(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, a := range access {
		if !now.mayRead(c, "task", string(a.Task)) || !now.mayRead(c, "binding", a.Binding) {
			continue
		}
		out := &apiv1.Access{
			Binding: a.Binding, Subjects: a.Subjects, Task: string(a.Task), Rule: a.Right.Rule, Mask: a.Right.Mask,
			Terms: slices.Concat(a.Terms, a.Right.Terms), Unrestricted: a.Right.Verb == policy.Anything,
			Holders: slices.Sorted(maps.Keys(holders[held{a.Binding, string(a.Task)}])),
		}
		if !a.Expires.IsZero() {
			out.ExpireTime = timestamppb.New(a.Expires)
		}
		resp.Access = append(resp.Access, out)
	}
	return connect.NewResponse(resp), nil
}

type held struct{ binding, task string }

// holders are those who hold a grant now, where the caller may know it.
func (p *Policy) holders(ctx context.Context, c *authz.Caller) (map[held]map[string]bool, error) {
	out := map[held]map[string]bool{}
	if p.cfg.Grants == nil || !c.Has(authz.Operator) && !c.Has(authz.Auditor) {
		return out, nil
	}
	grants, err := p.cfg.Grants(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, g := range grants {
		k := held{g.GetBinding(), g.GetTask()}
		if out[k] == nil {
			out[k] = map[string]bool{}
		}
		out[k][g.GetSubject().GetName()] = true
	}
	return out, nil
}

func versionOf(w world) postern.Version {
	return postern.Version{Epoch: w.view.Version().Epoch, Revision: w.view.Version().Revision}
}

// mayRead reports whether the caller may read an object; one that is not there they may.
func (w world) mayRead(c *authz.Caller, kind, name string) bool {
	o := w.Lookup(kind, name)
	return o == nil || c.MayRead(o)
}

// Compare implements apiv1connect.PolicyServiceHandler. What concerns tasks and resources
// that the caller may not read is not told.
func (p *Policy) Compare(ctx context.Context, r *connect.Request[apiv1.CompareRequest]) (*connect.Response[apiv1.CompareResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	if n := len(r.Msg.GetObjects()) + len(r.Msg.GetRemove()); n == 0 || n > maxCompare {
		return nil, fault.Invalid(fault.Violation{Field: "objects", Reason: fmt.Sprintf("must be 1 to %d, with those to remove", maxCompare)})
	}
	before, _, err := p.current(ctx)
	if err != nil {
		return nil, err
	}
	changed, err := draft(c, before, r.Msg)
	if err != nil {
		return nil, err
	}
	after := before.with(changed)
	was, _ := policy.Compile(versionOf(before), before.everything())
	is, rejected := policy.Compile(versionOf(before), after.everything())
	resp := &apiv1.CompareResponse{Version: &typesv1.Version{Epoch: was.Version().Epoch, Revision: was.Version().Revision}}
	for _, ch := range policy.Compare(was, is, p.cfg.Now()) {
		tells := c.Has(authz.Viewer)
		if ch.Task != "" || ch.Resource != "" {
			tells = before.mayRead(c, "task", string(ch.Task)) && before.mayRead(c, "resource", string(ch.Resource))
		}
		if tells {
			resp.Changes = append(resp.Changes, &apiv1.PolicyChange{
				Effect: ch.Effect, Who: ch.Who, Task: string(ch.Task), Resource: string(ch.Resource), Verb: ch.Verb, Object: ch.On,
				Columns: ch.Columns, Before: ch.Before, After: ch.After,
			})
		}
	}
	for _, rej := range rejected {
		kind, name, _ := strings.Cut(rej.Object, "/")
		if after.mayRead(c, kind, name) {
			resp.Rejections = append(resp.Rejections, &nodev1.Rejection{Object: rej.Object, Reason: rej.Reason})
		}
	}
	return connect.NewResponse(resp), nil
}

// maxCompare is how many objects a comparison may change.
const maxCompare = 10_000

// draft is what the request would put and remove.
func draft(c *authz.Caller, before world, r *apiv1.CompareRequest) (map[store.Key]*typesv1.Object, error) {
	changed := make(map[store.Key]*typesv1.Object)
	put := func(i int, field string, o *typesv1.Object, kind, name string) error {
		k := store.Key{Kind: kind, Name: name}
		at := fmt.Sprintf("%s[%d](%s/%s)", field, i, kind, name)
		if _, twice := changed[k]; twice {
			return fault.Invalid(fault.Violation{Field: at, Reason: "is there twice"})
		}
		if was := before.Lookup(kind, name); was != nil && !c.MayRead(was) || was == nil && o == nil {
			return fault.New(codes.NotFound, "there is no %s/%s", kind, name)
		}
		changed[k] = o
		return nil
	}
	for i, o := range r.GetObjects() {
		if object.Kind(o) == "" {
			return nil, fault.Invalid(fault.Violation{Field: fmt.Sprintf("objects[%d]", i), Reason: "is empty: set one of " + strings.Join(object.Kinds(), ", ")})
		}
		o = proto.CloneOf(o)
		object.Normalize(o)
		if err := put(i, "objects", o, object.Kind(o), object.Name(o)); err != nil {
			return nil, err
		}
	}
	for i, ref := range r.GetRemove() {
		kind, name, _ := strings.Cut(ref, "/")
		if _, err := knownKind(kind); err != nil {
			return nil, err
		}
		if err := put(i, "remove", nil, kind, name); err != nil {
			return nil, err
		}
	}
	return changed, nil
}
