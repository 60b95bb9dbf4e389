// Package vouch tells resources who asks: it signs, for a node and under a live grant, a
// short token (JWT) for one resource, and publishes the keys that verify it. The keys stay
// with the authority, so that a node can name nobody but whose grant it serves.
package vouch

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// Path is where the keys are published, as a JWK set.
const Path = "/.well-known/jwks.json"

const (
	// life is how long a token is good, where its task does not promise that work goes on
	// for longer without the control plane.
	life = 5 * time.Minute
	// slack is for clocks that differ.
	slack = 30 * time.Second
	maxID = 128
)

// Config is what a Service works with; everything is required.
type Config struct {
	Issuer string // the control plane's URL
	Sign   func(claims any) (string, error)
	Keys   func() jose.JSONWebKeySet
	// Resource is the resource as it is enforced, if the node may serve it.
	Resource func(node postern.NodeName, r postern.ResourceName) (*typesv1.Resource, bool)
	// Grant is the grant, or a *fault.Error of code NotFound.
	Grant    func(ctx context.Context, id postern.GrantID) (*typesv1.Grant, error)
	Snapshot func() *policy.Snapshot
	// Alone is how long a node may go on with a task while it does not hear from here.
	Alone func(t postern.TaskName) time.Duration
	Now   func() time.Time
}

// A Service vouches. It is safe for concurrent use.
type Service struct{ cfg Config }

// New makes a Service.
func New(cfg Config) *Service { return &Service{cfg} }

// An Actor is who acts for somebody, and for whom in turn (RFC 8693, section 4.1).
type Actor struct {
	Subject string `json:"sub"`
	Actor   *Actor `json:"act,omitempty"`
}

// Claims are what a resource is told. Its audience is the resource's name.
type Claims struct {
	jwt.Claims
	Task    string `json:"task"`
	Grant   string `json:"grant"`
	Session string `json:"sid"`
	Actor   *Actor `json:"act,omitempty"` // nil where the subject acts
}

// Vouch signs a token. Errors are *fault.Error; the node turns their kinds into refusals.
func (s *Service) Vouch(ctx context.Context, node postern.NodeName, req *nodev1.VouchRequest) (*nodev1.VouchResponse, error) {
	if len(req.GetGrant()) > maxID || req.GetSession() == "" || len(req.GetSession()) > maxID {
		return nil, fault.New(codes.InvalidArgument, "grant and session are ids of at most %d characters", maxID)
	}
	name := postern.ResourceName(req.GetResource())
	res, ok := s.cfg.Resource(node, name)
	if !ok || !res.GetSpec().GetEndpoint().GetHttp().GetIdentity() {
		return nil, denied("node %q serves no resource %q that asks who its clients are", node, name)
	}
	g, err := s.cfg.Grant(ctx, postern.GrantID(req.GetGrant()))
	if err != nil && fault.CodeOf(err) != codes.NotFound {
		return nil, fault.Wrap(err, codes.Unavailable, "the grant could not be looked up; try again").WithKind(postern.CodeUnavailable.String())
	}
	now := s.cfg.Now()
	if err != nil || g.GetState() != typesv1.GrantState_GRANT_STATE_ACTIVE || !now.Before(g.GetEndTime().AsTime()) {
		return nil, fault.New(codes.PermissionDenied, "grant %q is over", req.GetGrant()).WithKind(postern.CodeKilled.String())
	}
	snapshot, task, subject := s.cfg.Snapshot(), postern.TaskName(g.GetTask()), noun.SubjectOf(g.GetSubject())
	if r, err := snapshot.ResourceOf(task, name); err != nil || r != name {
		return nil, denied("task %q does not reach resource %q", task, name)
	}
	if reason, _, locked := snapshot.LockedFor(&subject, postern.GrantID(g.GetId()), name, node, now); locked {
		return nil, fault.New(codes.PermissionDenied, "%s", reason).WithKind(postern.CodeKilled.String())
	}
	end := now.Add(max(life, s.cfg.Alone(task)+slack))
	if over := g.GetEndTime().AsTime(); over.Before(end) {
		end = over
	}
	token, err := s.cfg.Sign(Claims{
		Claims: jwt.Claims{
			Issuer: s.cfg.Issuer, Subject: subject.Name, Audience: jwt.Audience{string(name)}, ID: rand.Text(),
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now.Add(-slack)), Expiry: jwt.NewNumericDate(end),
		},
		Task: g.GetTask(), Grant: g.GetId(), Session: req.GetSession(), Actor: chain(subject.Actors()),
	})
	if err != nil {
		return nil, fault.Wrap(err, codes.Internal, "who asks could not be signed")
	}
	return &nodev1.VouchResponse{Token: token, ExpireTime: timestamppb.New(end), RenewTime: timestamppb.New(now.Add(min(end.Sub(now), life) * 2 / 3))}, nil
}

func denied(format string, args ...any) error {
	return fault.New(codes.PermissionDenied, format, args...).WithKind(postern.CodeDenied.String())
}

// chain nests who acts, the nearest outermost.
func chain(actors []string) *Actor {
	if len(actors) == 0 {
		return nil
	}
	return &Actor{Subject: actors[0], Actor: chain(actors[1:])}
}

// maxAge is for how long whoever reads the keys may keep them: a new one is published for
// longer before it signs.
const maxAge = "max-age=300"

// ServeHTTP publishes the keys to anybody.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "only to be read", http.StatusMethodNotAllowed)
		return
	}
	b, err := json.Marshal(s.cfg.Keys())
	if err != nil {
		http.Error(w, "the keys cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", maxAge)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(b)
}
