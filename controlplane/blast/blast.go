// Package blast tells what a thief of a token, node or lease could do with it, until when,
// and what ends that. It lists upper bounds: whatever could work is there, with what must
// be so besides, and what is not listed does not work.
package blast

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// What a Reach may be.
const (
	Connect = "connect" // a session at a listener
	Take    = "take"    // a grant, at the API
	Call    = "call"    // methods of the API
	Policy  = "policy"  // what the control plane tells a node
	Pose    = "pose"    // what clients show a node
	Borrow  = "borrow"  // a credential from the control plane
	Record  = "record"  // recordings in a node's name
	Renew   = "renew"   // the next certificate
	Login   = "login"   // the resource itself
)

// Verifier says whose an OIDC token is, and when it ends; *identity.Verifier is one.
type Verifier interface {
	Authenticate(ctx context.Context, token string) (postern.Subject, time.Time, error)
	Data(ctx context.Context, token string) (postern.Subject, time.Time, error)
}

// Grants knows what opens which; *task.Service is one.
type Grants interface {
	Opens(ctx context.Context, token string) (g *typesv1.Grant, why string, err error)
	Standing(ctx context.Context, id string) (g *typesv1.Grant, why, opener string, err error)
	Held(ctx context.Context, sub postern.Subject) ([]*typesv1.Grant, error)
}

// Config is what a Service asks; all is required.
type Config struct {
	Snapshot func() *policy.Snapshot
	Verifier Verifier
	Grants   Grants
	// Methods of the API that a subject may call, sorted.
	Methods func(sub postern.Subject) []string
	Nodes   func() []*apiv1.NodeStatus
	// Node is one that is enrolled; nil where it is not.
	Node func(ctx context.Context, name postern.NodeName) (*typesv1.Node, error)
	// Serves reports whether a node may have a resource.
	Serves func(n *typesv1.Node, r *typesv1.Resource) bool
	Loans  func(ctx context.Context, keep func(*credential.Lent) bool) ([]credential.Lent, error)
	Now    func() time.Time
}

// A Service tells. It is safe for concurrent use.
type Service struct{ cfg Config }

// New makes a Service.
func New(cfg Config) *Service { return &Service{cfg} }

// Of tells of the one thing that the request names. Errors are *fault.Error: NotFound for
// what was never there, InvalidArgument for a request that does not name one thing.
func (s *Service) Of(ctx context.Context, req *apiv1.GetBlastRequest) (*apiv1.GetBlastResponse, error) {
	named := 0
	for _, one := range []string{req.GetToken(), req.GetGrant(), req.GetNode(), req.GetLease()} {
		if one != "" {
			named++
		}
	}
	if named != 1 {
		return nil, fault.Invalid(fault.Violation{Field: "token", Reason: "or grant, node or lease: name just one"})
	}
	if s.cfg.Snapshot().Version().IsZero() {
		return nil, fault.New(codes.Unavailable, "the control plane has not read its policy yet; try again")
	}
	switch {
	case req.GetNode() != "":
		return s.ofNode(ctx, postern.NodeName(req.GetNode()))
	case req.GetLease() != "":
		return s.ofLease(ctx, postern.LeaseID(req.GetLease()))
	case req.GetGrant() != "":
		g, why, opener, err := s.cfg.Grants.Standing(ctx, req.GetGrant())
		if err != nil {
			return nil, err
		}
		resp := s.ofGrant(g, orElse(opener, "right"), why)
		if opener == "" && why == "" {
			resp.Notes = append(resp.Notes, "nothing is on file that opens this grant but the login of its subject")
		}
		return resp, nil
	}
	return s.ofToken(ctx, req.GetToken())
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// dead is something that opens nothing, and why.
func dead(thing, why string) *apiv1.GetBlastResponse {
	return &apiv1.GetBlastResponse{Thing: thing, Dead: why}
}

// last sets the end of all: that of the reach that ends last.
func last(r *apiv1.GetBlastResponse) *apiv1.GetBlastResponse {
	for _, one := range r.GetReaches() {
		if one.GetEndTime() == nil {
			r.EndTime = nil
			return r
		}
		if r.GetEndTime() == nil || one.GetEndTime().AsTime().After(r.GetEndTime().AsTime()) {
			r.EndTime = one.GetEndTime()
		}
	}
	return r
}

// listeners are where clients of a resource may come to, now.
func (s *Service) listeners(r postern.ResourceName) []string {
	res, ok := s.cfg.Snapshot().Resource(r)
	if !ok {
		return nil
	}
	var out []string
	for _, n := range s.cfg.Nodes() {
		if addr := n.GetEndpoints()[res.GetSpec().GetProtocol()]; n.GetConnected() && addr != "" && slices.Contains(n.GetReport().GetResources(), string(r)) {
			out = append(out, addr)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// rights are what a task allows at a resource, one entry for what differs in columns alone.
func (s *Service) rights(t postern.TaskName, r postern.ResourceName) []*apiv1.BlastRight {
	all, _ := s.cfg.Snapshot().Rights(t, r)
	var out []*apiv1.BlastRight
	for _, one := range all {
		var into *apiv1.BlastRight
		if n := len(out); n > 0 {
			if was := out[n-1]; was.GetVerb() == one.Verb && was.GetObject() == one.On && slices.Equal(was.GetTerms(), one.Terms) {
				into = was
			}
		}
		if into == nil {
			into = &apiv1.BlastRight{Verb: one.Verb, Object: one.On, Terms: one.Terms}
			out = append(out, into)
		}
		if one.Column == "" || slices.Contains(into.GetColumns(), one.Column) {
			continue
		}
		into.Columns = append(into.Columns, one.Column)
		if one.Mask != "" {
			if into.Masks == nil {
				into.Masks = map[string]string{}
			}
			into.Masks[one.Column] = one.Mask
		}
	}
	return out
}

func at(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// quoted is a word of a command line.
func quoted(word string) string {
	if strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./@") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// lock is the command that locks something out.
func lock(what, name string) string {
	return fmt.Sprintf("postern lock --%s %s --reason stolen", what, quoted(name))
}
