// Package authz says who may call what. One table has every method of the API; what is
// not in it is refused. Within PolicyService, MayWrite and MayRead look at the objects
// themselves: roles reach only as far as their labels, and
//
//   - nobody but an admin writes a Binding that gives themselves a task unless it asks
//     people, or a Task, Resource, Mask or ApprovalRule on which a task bound to them
//     depends, or a Lock on themselves, a workload or a grant of theirs once it stands;
//     what an admin does so is marked;
//   - under a Lock that cannot be read nobody but an admin does more than add Locks;
//   - only an admin writes Secrets, only one without a scope RoleBindings, nobody Nodes.
//
// Who a token belongs to is identity's to say; rights within grants, holds and sessions
// are their services'.
package authz

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// The roles. Each but auditor and rawreader includes the ones before it; an admin is an
// auditor too. What masks hid is shown to nobody but a rawreader.
const (
	Viewer    = "viewer"
	Operator  = "operator"
	Auditor   = "auditor"
	RawReader = "rawreader"
	Admin     = "admin"
)

// includes says which roles stand for a role.
func includes(role string) []string {
	switch role {
	case Viewer:
		return []string{Viewer, Operator, Admin}
	case Operator:
		return []string{Operator, Admin}
	case Auditor:
		return []string{Auditor, Admin}
	case RawReader, Admin:
		return []string{role}
	}
	return nil
}

// Caller is who calls. It does not change during a call.
type Caller struct {
	Subject postern.Subject
	Roles   []policy.RoleGrant
	Expires time.Time // when the token ends; zero says nothing
	Address string    // of the peer, with a port
	Method  string    // such as PolicyService/Create

	// barred says under which lock, of which it is not known whom it shuts out, the caller may
	// do nothing but add locks; nil where there is none.
	barred error
	again  func() *Caller // the caller as policy stands now; nil in tests of others
}

type callerKey struct{}

// With returns a context that carries the caller.
func With(ctx context.Context, c *Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// From is the caller of this call; false where nobody signed in.
func From(ctx context.Context) (*Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(*Caller)
	return c, ok && c != nil
}

// Require is the caller of a method that is never reached without one, and fails closed
// if it is.
func Require(ctx context.Context) (*Caller, error) {
	c, ok := From(ctx)
	if !ok {
		return nil, fault.New(codes.Unauthenticated, "this needs a token: run postern login").WithKind(postern.CodeBadToken.String())
	}
	return c, nil
}

// Has reports whether the caller has the role over everything: one with a scope does not
// count, so that who asks no further stays on the safe side. The nil Caller has none.
func (c *Caller) Has(role string) bool { return c.HasFor(role, nil) }

// HasSome reports whether the caller has the role within some scope, or over everything;
// what lies within it is then to be asked with HasFor.
func (c *Caller) HasSome(role string) bool {
	return c != nil && slices.ContainsFunc(c.Roles, func(g policy.RoleGrant) bool { return slices.Contains(includes(role), g.Role) })
}

// HasFor reports whether the caller has the role over an object with these labels.
func (c *Caller) HasFor(role string, labels map[string]string) bool {
	return c != nil && slices.ContainsFunc(c.Roles, func(g policy.RoleGrant) bool {
		return slices.Contains(includes(role), g.Role) && object.Carries(labels, g.Scope)
	})
}

// MayRead reports whether the caller may read a policy object: viewers those within
// their scope, but Secrets, which show their names alone, only operators.
func (c *Caller) MayRead(o *typesv1.Object) bool {
	role := Viewer
	if object.Kind(o) == "secret" {
		role = Operator
	}
	return c.HasFor(role, object.Meta(o).GetLabels())
}

// Now is the caller with the roles that policy gives now; for streams, which last.
func (c *Caller) Now() *Caller {
	if c == nil || c.again == nil {
		return c
	}
	return c.again()
}

// RoleNames are the caller's roles, each once, sorted.
func (c *Caller) RoleNames() []string {
	var names []string
	if c != nil {
		for _, g := range c.Roles {
			names = append(names, g.Role)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Entry begins the audit entry of this call.
func (c *Caller) Entry(objects string, detail any) audit.Entry {
	if c == nil {
		return audit.Entry{Actor: anonymous, Object: objects, Detail: detail}
	}
	return audit.Entry{Actor: c.Subject.Name, Address: c.Address, Action: c.Method, Object: objects, Detail: detail}
}

const anonymous = "(nobody)"

// method is a procedure without its package, such as PolicyService/Create.
func method(procedure string) string {
	_, name, ok := strings.Cut(strings.TrimPrefix(procedure, "/"), "postern.api.v1.")
	if !ok {
		return procedure
	}
	return name
}
