package task

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/entrance"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/grantcert"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// reuse is for how long a node may go by an answer without asking again.
const reuse = 10 * time.Second

// An Opening is a grant as a node gets it.
type Opening struct {
	Grant *typesv1.SignedGrant
	// Reuse is for how long the node may open it again, for who shows the same, without
	// asking; 0 is never.
	Reuse time.Duration
	// Alternatives are other tasks that the subject is offered on the resource.
	Alternatives []postern.Alternative
}

// Open is OpenFor without anything that may be used again.
func (s *Service) Open(ctx context.Context, req *nodev1.OpenGrantRequest, node postern.NodeName) (*typesv1.SignedGrant, error) {
	o, err := s.OpenFor(ctx, req, node)
	return o.Grant, err
}

// OpenFor finds or makes the grant of a client that came to a node, and signs it. An OIDC
// token takes the task at once where a binding offers that, and the signed grant then
// has the subject as this token tells of it. A grant token or certificate opens just its
// own grant, and is asked for each time: it is dead once another has taken its place.
func (s *Service) OpenFor(ctx context.Context, req *nodev1.OpenGrantRequest, node postern.NodeName) (Opening, error) {
	// What changes after this, nodes are told of after it.
	settled := s.cfg.Settled != nil && s.cfg.Settled()
	g, until, err := s.shown(ctx, req, node)
	if err != nil {
		return Opening{}, err
	}
	if err := s.free(g, req.GetResource(), node); err != nil {
		return Opening{}, err
	}
	if g, err = s.ofEpoch(g); err != nil {
		return Opening{}, err
	}
	snapshot, err := s.policy()
	if err != nil {
		return Opening{}, err
	}
	o := Opening{Alternatives: snapshot.Alternatives(noun.SubjectOf(g.GetSubject()), postern.TaskName(g.GetTask()), postern.ResourceName(req.GetResource()), s.asked(req))}
	if settled {
		o.Reuse = s.reusable(postern.TaskName(g.GetTask()), until)
	}
	if o.Grant, err = s.cfg.Sign(g); err != nil {
		return Opening{}, fmt.Errorf("sign grant %s: %w", g.GetId(), err)
	}
	if err := s.noteOpened(ctx, g.GetId(), node); err != nil {
		return Opening{}, err
	}
	return o, nil
}

// reusable is for how long the grant of a token that ends then may be opened again. A task
// that lets nodes go on alone for less is asked for each time.
func (s *Service) reusable(task postern.TaskName, until time.Time) time.Duration {
	snapshot, err := s.policy()
	if err != nil || until.IsZero() {
		return 0
	}
	if terms, ok := snapshot.Terms(task); !ok || terms.MaxStaleness < reuse {
		return 0
	}
	return max(0, min(reuse, until.Sub(s.cfg.Now())))
}

// shown is the grant that what a client has shown opens, and until when that is known to
// be so without asking; zero where it is not known.
func (s *Service) shown(ctx context.Context, req *nodev1.OpenGrantRequest, node postern.NodeName) (g *typesv1.Grant, until time.Time, err error) {
	name := postern.TaskName(req.GetTask())
	if err := object.CheckName(string(name)); err != nil {
		return nil, until, fault.Refused(&postern.Refusal{Code: postern.CodeNoGrant, Reason: "this is not the name of a task", Hint: "log in as TASK.RESOURCE; see what you may do with: postern tasks", Cause: err})
	}
	switch {
	case things(req) > 1:
		return nil, until, fault.Refused(&postern.Refusal{Code: postern.CodeBadToken, Reason: "a client certificate and a token were shown at once", Hint: grantcert.Hint})
	case len(req.GetClientCertificate()) > 0:
		g, err = s.ofCertificate(ctx, byCertificate, s.cfg.Certificates.GrantFromCert, req.GetClientCertificate(), name)
	case len(req.GetSshCertificate()) > 0:
		g, err = s.ofCertificate(ctx, bySSH, s.cfg.Certificates.SSHGrantFromCert, req.GetSshCertificate(), name)
	case req.GetToken() == "":
		return nil, until, fault.Refused(&postern.Refusal{Code: postern.CodeBadToken, Reason: "a token is needed", Hint: "give a token as the password: postern token"})
	case strings.HasPrefix(req.GetToken(), tokenPrefix):
		g, err = s.ofToken(ctx, req.GetToken(), name)
	default:
		var sub postern.Subject
		if sub, until, err = s.bearer(ctx, req); err != nil {
			return nil, time.Time{}, err
		}
		g, err = s.take(ctx, sub, name, taking{
			request: s.asked(req),
			node:    node, address: req.GetClientAddress(),
		})
	}
	return g, until, err
}

// asked is what is known of how a client asks at a node.
func (s *Service) asked(req *nodev1.OpenGrantRequest) policy.Request {
	return policy.Request{Time: s.cfg.Now(), Address: req.GetClientAddress(), Client: req.GetClientProgram()}
}

// bearer is whose token was shown: of a browser that has signed in for just this, and may
// sign out at any time, or an OIDC token, which is good until its end.
func (s *Service) bearer(ctx context.Context, req *nodev1.OpenGrantRequest) (sub postern.Subject, until time.Time, err error) {
	if strings.HasPrefix(req.GetToken(), entrance.TokenPrefix) {
		sub, err = s.cfg.Browser(ctx, req.GetToken(), req.GetTask(), req.GetResource())
		return sub, until, err
	}
	if sub, until, err = s.cfg.Verifier.Data(ctx, req.GetToken()); err != nil {
		return postern.Subject{}, time.Time{}, howTo(err)
	}
	return sub, until, nil
}

// things is how many things a client has shown that could open a grant.
func things(req *nodev1.OpenGrantRequest) int {
	n := 0
	for _, have := range []bool{req.GetToken() != "", len(req.GetClientCertificate()) > 0, len(req.GetSshCertificate()) > 0} {
		if have {
			n++
		}
	}
	return n
}

// ofEpoch is a grant that came back with a backup, as nodes of the new epoch can use it:
// they must have the policy by which it was just found to stand.
func (s *Service) ofEpoch(g *typesv1.Grant) (*typesv1.Grant, error) {
	snapshot, err := s.policy()
	if err != nil || g.GetMinVersion().GetEpoch() == snapshot.Version().Epoch {
		return g, err
	}
	g = proto.CloneOf(g)
	g.MinVersion = versionToWire(snapshot.Version())
	return g, nil
}

// howTo adds to a bad token how to get a good one.
func howTo(err error) error {
	f := fault.From(err)
	if f.Kind != postern.CodeBadToken.String() || len(f.Violations) > 0 {
		return err
	}
	return fault.Refused(&postern.Refusal{
		Code: postern.CodeBadToken, Reason: f.Reason, Cause: err,
		Hint: "the password is a token, from: postern token; automation gets one by: postern grant TASK --token-file FILE",
	})
}

// free says why a grant cannot be used for a resource through a node now.
func (s *Service) free(g *typesv1.Grant, resource string, node postern.NodeName) error {
	snapshot, err := s.policy()
	if err != nil {
		return err
	}
	r, err := snapshot.ResourceOf(postern.TaskName(g.GetTask()), postern.ResourceName(resource))
	if err != nil {
		return asFault(err)
	}
	return locked(snapshot, noun.SubjectOf(g.GetSubject()), postern.GrantID(g.GetId()), r, node, s.cfg.Now())
}

func locked(snapshot *policy.Snapshot, sub postern.Subject, g postern.GrantID, r postern.ResourceName, n postern.NodeName, now time.Time) error {
	reason, lock, ok := snapshot.Barred(&sub, g, r, n, now)
	if !ok {
		return nil
	}
	return fault.Refused(&postern.Refusal{Code: postern.CodeKilled, Reason: reason, Rule: "lock/" + lock, Hint: "ask the operators"})
}

// taking is how a subject takes a task.
type taking struct {
	request policy.Request
	node    postern.NodeName // where it is taken; empty at the API
	address string
	ttl     time.Duration // at most; 0 is the task's own
	csr     []byte        // for a certificate instead of a token
	sshKey  string        // for an SSH certificate instead of a token
	// exchanged is true where the actor is a workload that was given the subject's token.
	exchanged bool
	given     string // the grant of that token; empty for an OIDC token
	extend    bool   // anew although a grant is live
}

// take finds the live grant of a subject for a task, or makes it. The grant has the
// subject as given; the stored one as it was made.
func (s *Service) take(ctx context.Context, sub postern.Subject, name postern.TaskName, how taking) (*typesv1.Grant, error) {
	if how.node != "" {
		how.request.Region = s.region(ctx, how.node)
	}
	wire, err := noun.Subject(sub)
	if err != nil {
		return nil, err
	}
	g, err := store.Again(func() (*typesv1.Grant, error) { return s.takeOnce(ctx, sub, name, how) })
	switch {
	case store.IsConflict(err):
		return nil, fault.Wrap(err, codes.Unavailable, "the task could not be taken; try again").WithKind(postern.CodeUnavailable.String())
	case err != nil:
		return nil, asFault(err)
	}
	g.Subject = wire
	return g, nil
}

func (s *Service) takeOnce(ctx context.Context, sub postern.Subject, name postern.TaskName, how taking) (*typesv1.Grant, error) {
	snapshot, err := s.policy()
	if err != nil {
		return nil, err
	}
	if err := locked(snapshot, sub, "", "", how.node, s.cfg.Now()); err != nil {
		return nil, err
	}
	taken, pointed, err := s.pointed(ctx, pointer(takenKind, snapshot, sub, name), sub, name)
	if err != nil {
		return nil, err
	}
	if !how.extend && Live(taken, s.cfg.Now()) {
		why, err := s.unfounded(ctx, taken, &sub)
		if err != nil {
			return nil, err
		}
		if why == "" {
			return taken, nil
		}
		if err := s.end(ctx, taken.GetId(), audit.Entry{Actor: "system", Address: how.address}, why); err != nil {
			return nil, err
		}
	}
	offer, err := snapshot.Offer(sub, name, how.request)
	if err != nil {
		return nil, err
	}
	if offer.Approval != nil && offer.Approval.Scope == postern.ScopeGrant {
		return nil, s.mustAsk(ctx, snapshot, sub, name, offer)
	}
	g, err := s.draft(sub, offer, how.request)
	if err != nil {
		return nil, err
	}
	if err := s.activate(g, snapshot, shorter(offer.Duration, how.ttl), offer.Expires); err != nil {
		return nil, err
	}
	op, err := put(g, 0)
	if err != nil {
		return nil, err
	}
	if err := s.few(sub); err != nil {
		return nil, err
	}
	ops, err := s.unclosed(ctx, g)
	if err != nil {
		return nil, err
	}
	_, err = s.cfg.Audit.Commit(ctx, audit.Entry{Actor: sub.Name, Actors: sub.Actors(), Address: how.address, Action: "grant.open", Object: Kind + "/" + g.GetId(), Detail: about(g, how.node)},
		append(ops, op, store.Op{Key: pointed.Key, Value: []byte(g.GetId()), If: pointed.Revision})...)
	if err != nil {
		return nil, fmt.Errorf("open grant: %w", err)
	}
	return g, nil
}

// pointed is the grant of a subject for a task to which a pointer leads, in whatever state,
// or nil; e is the pointer, with no revision where there is none.
func (s *Service) pointed(ctx context.Context, at store.Key, sub postern.Subject, name postern.TaskName) (g *typesv1.Grant, e store.Entry, err error) {
	e, err = s.cfg.Store.Get(ctx, at)
	if errors.Is(err, store.ErrNotFound) {
		return nil, store.Entry{Key: at}, nil
	}
	if err != nil {
		return nil, e, fmt.Errorf("find the grant for %s: %w", name, err)
	}
	g, _, err = s.load(ctx, string(e.Value))
	switch {
	case fault.CodeOf(err) == codes.NotFound:
		return nil, e, nil
	case err != nil:
		return nil, e, err
	case !sameWho(noun.SubjectOf(g.GetSubject()), sub) || g.GetTask() != string(name):
		return nil, e, fmt.Errorf("find the grant for %s: %s is not the subject's", name, g.GetId())
	}
	return g, e, nil
}

// mustAsk refuses a task that people must say yes to.
func (s *Service) mustAsk(ctx context.Context, snapshot *policy.Snapshot, sub postern.Subject, name postern.TaskName, o policy.Offer) error {
	asked, _, err := s.pointed(ctx, pointer(askedKind, snapshot, sub, name), sub, name)
	if err != nil {
		return err
	}
	r := &postern.Refusal{
		Code: postern.CodeNoGrant, Rule: o.Binding,
		Reason: fmt.Sprintf("task %q needs a yes by approval rule %q", name, o.Approval.Rule),
		Hint:   fmt.Sprintf("ask for it: postern request %s --reason \"...\"", name),
	}
	if waiting(asked) {
		r.Reason = fmt.Sprintf("your request for task %q still waits for a yes by approval rule %q", name, o.Approval.Rule)
		r.Hint = fmt.Sprintf("see how it stands: postern requests (%s)", asked.GetHold())
	}
	e := fault.Refused(r)
	e.Code = codes.FailedPrecondition // not a no: a yes is missing
	return e
}

// few says no to a subject that has too many grants already, as of the last pass.
func (s *Service) few(sub postern.Subject) error {
	switch n := (*s.counts.Load())[who{sub.Name, sub.Workload}]; {
	case n.live >= maxLive:
		return fault.Refused(&postern.Refusal{Code: postern.CodeLimit, Reason: fmt.Sprintf("%s has %d live grants, which is the most", sub.Name, n.live), Hint: "end some: postern revoke GRANT"})
	case n.ended >= maxEnded:
		return fault.Refused(&postern.Refusal{Code: postern.CodeLimit, Reason: fmt.Sprintf("%s has %d grants that ended before their time, which is the most", sub.Name, n.ended), Hint: "wait until the time of some is over"})
	}
	return nil
}

// region is where a node stands; empty where that is not known.
func (s *Service) region(ctx context.Context, node postern.NodeName) string {
	e, err := s.cfg.Store.Get(ctx, store.Key{Kind: "node", Name: string(node)})
	if err != nil {
		return ""
	}
	o, err := store.DecodeObject(e)
	if err != nil {
		return ""
	}
	return o.GetNode().GetSpec().GetRegion()
}

func shorter(d, ttl time.Duration) time.Duration {
	if ttl > 0 && ttl < d {
		return ttl
	}
	return d
}

// about is a grant as the audit log tells of it.
func about(g *typesv1.Grant, node postern.NodeName) map[string]any {
	m := map[string]any{"subject": g.GetSubject().GetName(), "task": g.GetTask(), "binding": g.GetBinding(), "state": g.GetState().String()}
	if g.GetEndTime() != nil {
		m["end"] = g.GetEndTime().AsTime().UTC()
	}
	if len(g.GetCertificateHash()) > 0 {
		m["bearer"] = byCertificate.name
	}
	if actors := noun.SubjectOf(g.GetSubject()).Actors(); len(actors) > 0 {
		m["actors"] = actors
	}
	for k, v := range map[string]string{"bound": g.GetBound().GetRef(), "workload": g.GetSubject().GetWorkload(), "node": string(node), "reason": g.GetReason(), "endReason": g.GetEndReason(), "hold": g.GetHold()} {
		if v != "" {
			m[k] = v
		}
	}
	return m
}
