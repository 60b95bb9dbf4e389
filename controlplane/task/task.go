// Package task keeps the life of grants: asked, active, and refused or over. It finds
// or makes the grant of a token, makes grant tokens, and ends grants whose time is over
// or whose ground has gone. What may be taken is policy's to say, who must say yes is
// approve's, and what a grant permits is decided at the nodes.
package task

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/grantcert"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// Kind is the kind of grants in the store: a typesv1.Grant by its id.
	Kind = "grant"
	// takenKind points from a subject and task to the grant that the subject's tokens
	// use, so that there is one and finding it is one read.
	takenKind = "taken"
	// askedKind points from them to the grant that was asked of people last, so that two
	// who ask for the same at once ask one question.
	askedKind = "asked"
	// bindingKind is that of Binding objects.
	bindingKind = "binding"
	// ruleKind is that of ApprovalRule objects.
	ruleKind = "approvalrule"

	// keep is how long a grant can be read after its end, and maxKept how many of one subject's.
	keep    = 7 * 24 * time.Hour
	maxKept = 1000
	// maxID bounds the id of a grant that is asked for.
	maxID = 64
	// maxLive bounds the grants that one subject may have at once, and maxEnded those that ended
	// before their time: until then nodes must be told of them.
	maxLive        = 200
	maxEnded       = 10_000
	maxReasonBytes = 1 << 10
	// maxOriginBytes bounds what is kept of an address, and of how a client calls itself.
	maxOriginBytes = 256
	// room is what a new grant leaves of a value of the store, in bytes, for what becomes of it:
	// one that cannot be written any more could not be ended.
	room = 4 << 10

	// Workloads take grants without a login before; so many a second, and so many at once.
	workloadRate  = 50
	workloadBurst = 200
)

// A Committer makes changes together with the audit entry that tells of them.
type Committer interface {
	Commit(ctx context.Context, e audit.Entry, ops ...store.Op) (revision int64, err error)
}

// A Verifier says whose an OIDC token is, and when it ends.
type Verifier interface {
	Data(ctx context.Context, token string) (postern.Subject, time.Time, error)
	Workload(ctx context.Context, token string) (postern.Subject, time.Time, error)
}

// Certificates issues and reads grant certificates; *authority.Authority is one.
type Certificates interface {
	IssueGrant(csr []byte, name grantcert.Name, end time.Time) (*x509.Certificate, error)
	// GrantFromCert verifies all but that the certificate is on file.
	GrantFromCert(der []byte) (grantcert.Name, error)
	// IssueSSHGrant certifies a key, as in an authorized_keys file, for these principals.
	IssueSSHGrant(key string, name grantcert.Name, principals []string, end time.Time) (*ssh.Certificate, error)
	// SSHGrantFromCert is GrantFromCert for the wire form of an SSH certificate.
	SSHGrantFromCert(wire []byte) (grantcert.Name, error)
	// SSHHostLines are who certifies SSH host keys, as in an authorized_keys file.
	SSHHostLines() string
}

// Config is what a Service needs; everything but Settled, Enforced and Now is required.
type Config struct {
	Store    store.Store
	Snapshot func() *policy.Snapshot
	// Settled reports whether Snapshot has every change of policy that nodes were told of,
	// or are about to be; nil never does, and then no node goes by an answer twice.
	Settled func() bool
	// Enforced waits until this replica judges by a version, and a moment for its nodes; nil
	// waits for nothing.
	Enforced func(ctx context.Context, v postern.Version) error
	// Changed returns a channel that gets an element after each new Snapshot, and a
	// function that ends it.
	Changed  func() (<-chan struct{}, func())
	Sign     func(*typesv1.Grant) (*typesv1.SignedGrant, error)
	Verifier Verifier
	// Browser says whose a browser's session is, by its token, for a task and a resource.
	Browser func(ctx context.Context, token, task, resource string) (postern.Subject, error)
	// Certificates makes what is handed out instead of a token to who asks for it.
	Certificates Certificates
	Approve      *approve.Service
	Audit        Committer
	Now          func() time.Time // time.Now where nil
	Logger       *slog.Logger
}

// Service keeps grants. It is safe for concurrent use, and by several replicas over one
// store. Errors for users are *fault.Error; those about a client at a listener have the
// word of a postern.Code as their kind, and rule, detail and hint as violations.
type Service struct {
	cfg       Config
	workloads *rate.Limiter
	cache     *store.Cache                  // grants, to look after them, bindings and their rules, and what is closed
	counts    atomic.Pointer[map[who]count] // how many grants each had at the last pass
	openings  openings
}

// who is a subject by what grants are found by.
type who struct{ name, workload string }

// count is how many grants somebody has that live or wait, and that ended before their time.
type count struct{ live, ended int }

// New makes a Service. It must Run, so that grants end.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Service{cfg: cfg, workloads: rate.NewLimiter(workloadRate, workloadBurst), cache: store.NewCache(cfg.Store, cfg.Logger, Kind, bindingKind, ruleKind, closedKind).WithoutStaleness()}
	s.counts.Store(&map[who]count{})
	cfg.Approve.OnSettle(s.settle)
	return s
}

// policy is the policy as it stands; before it has been read nothing is decided.
func (s *Service) policy() (*policy.Snapshot, error) {
	p := s.cfg.Snapshot()
	if p == nil || p.Version().IsZero() {
		return nil, refuse(postern.CodeUnavailable, "the control plane has not read its policy yet; try again")
	}
	return p, nil
}

func grantKey(id string) store.Key { return store.Key{Kind: Kind, Name: id} }

// pointer is where a grant of a subject for a task is found: the one that is taken, or asked
// for. Where bindings tell the subject's jobs from each other, each has its own. The name is
// a hash, so that any subject's name will do. What an agent has for somebody is never what
// they have themselves.
func pointer(kind string, snapshot *policy.Snapshot, sub postern.Subject, task postern.TaskName) store.Key {
	h := sha256.New()
	for _, claim := range snapshot.BoundClaims(sub, task) {
		if job := jobText(sub.Claims[claim]); job != "" {
			_, _ = fmt.Fprintf(h, "job %d:%s%d:%s", len(claim), claim, len(job), job)
		}
	}
	for _, s := range append([]string{sub.Name, sub.Workload, string(task)}, sub.Actors()...) {
		_, _ = fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return store.Key{Kind: kind, Name: hex.EncodeToString(h.Sum(nil))}
}

func errNoGrant(id string) error {
	return fault.New(codes.NotFound, "there is no grant %.60q that you may see", id)
}

func (s *Service) load(ctx context.Context, id string) (*typesv1.Grant, int64, error) {
	if id == "" || len(id) > maxID {
		return nil, 0, errNoGrant(id)
	}
	e, err := s.cfg.Store.Get(ctx, grantKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, errNoGrant(id)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read grant %s: %w", id, err)
	}
	g, err := decode(e)
	return g, e.Revision, err
}

func decode(e store.Entry) (*typesv1.Grant, error) {
	g := &typesv1.Grant{}
	if err := proto.Unmarshal(e.Value, g); err != nil {
		return nil, fmt.Errorf("read %s: %w", e.Key, err)
	}
	return g, nil
}

// legible are all grants but those that are damaged, which are logged: nobody can use one, and
// the others are as good as before.
func (s *Service) legible(ctx context.Context) ([]*typesv1.Grant, error) {
	entries, _, err := s.cfg.Store.List(ctx, Kind, "", 0)
	if err != nil {
		return nil, fmt.Errorf("list grants: %w", err)
	}
	var grants []*typesv1.Grant
	for _, e := range entries {
		g, err := decode(e)
		if err != nil {
			s.cfg.Logger.WarnContext(ctx, "a grant is damaged and passed over", "error", err)
			continue
		}
		grants = append(grants, g)
	}
	return grants, nil
}

// put writes a grant that has the revision given; 0 is a new one.
func put(g *typesv1.Grant, revision int64) (store.Op, error) {
	value, err := proto.Marshal(g)
	if err != nil {
		return store.Op{}, fmt.Errorf("write grant %s: %w", g.GetId(), err)
	}
	most := store.MaxValueBytes
	if revision == 0 {
		most -= room
	}
	if len(value) > most {
		return store.Op{}, fault.New(codes.ResourceExhausted, "the token's claims are too many to be kept with a grant").WithKind(postern.CodeLimit.String())
	}
	return store.Op{Key: grantKey(g.GetId()), Value: value, If: revision}, nil
}

// Live reports whether g may be used at now.
func Live(g *typesv1.Grant, now time.Time) bool {
	return g.GetState() == typesv1.GrantState_GRANT_STATE_ACTIVE && g.GetEndTime() != nil && now.Before(g.GetEndTime().AsTime())
}

func waiting(g *typesv1.Grant) bool { return g.GetState() == typesv1.GrantState_GRANT_STATE_ASKED }

// show is g as people may see it.
func show(g *typesv1.Grant) *typesv1.Grant {
	g = proto.CloneOf(g)
	g.TokenHash, g.CertificateHash = nil, nil
	return g
}

func versionToWire(v postern.Version) *typesv1.Version {
	return &typesv1.Version{Epoch: v.Epoch, Revision: v.Revision}
}

// draft is a new grant by an offer that was made to a request, not yet active.
func (s *Service) draft(sub postern.Subject, o policy.Offer, req policy.Request) (*typesv1.Grant, error) {
	wire, err := noun.Subject(sub)
	if err != nil {
		return nil, err
	}
	g := &typesv1.Grant{
		Id: newGrantID(), Subject: wire, Task: string(o.Task), Binding: o.Binding, Reason: req.Reason,
		Origin: &typesv1.GrantOrigin{Address: clip(req.Address), Region: req.Region, Client: clip(req.Client)},
		State:  typesv1.GrantState_GRANT_STATE_ASKED, CreateTime: timestamppb.New(s.cfg.Now()),
	}
	if g.Bound, err = reference(o, sub, req.Reason); err != nil {
		return nil, err
	}
	if a := o.Approval; a != nil && a.Scope != postern.ScopeGrant {
		g.Approval = noun.Approval(a)
	}
	return g, nil
}

// clip bounds what a client says of itself.
func clip(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxOriginBytes)], "")
}

// requested is how a grant was taken or asked for: by that, its binding's condition is asked
// again.
func requested(g *typesv1.Grant) policy.Request {
	at := g.GetStartTime()
	if at == nil {
		at = g.GetCreateTime()
	}
	o := g.GetOrigin()
	return policy.Request{
		Time: at.AsTime(), Address: o.GetAddress(), Region: o.GetRegion(), Client: o.GetClient(),
		Reason: g.GetReason(), Ticket: policy.Ticket(g.GetReason()),
	}
}

// activate begins g now. It ends after duration, or before that with its binding or
// its workload, whatever comes first; the end is never moved.
func (s *Service) activate(g *typesv1.Grant, snapshot *policy.Snapshot, duration time.Duration, expires time.Time) error {
	now := s.cfg.Now()
	end := now.Add(duration)
	if !expires.IsZero() && expires.Before(end) {
		end = expires
	}
	if name := g.GetSubject().GetWorkload(); name != "" {
		w, ok := findWorkload(snapshot, name)
		if !ok {
			return refuse(postern.CodeNoGrant, "workload %q does not exist any more", name)
		}
		if t := w.GetSpec().GetExpires().AsTime(); t.Before(end) {
			end = t
		}
	}
	if !now.Before(end) {
		return refuse(postern.CodeNoGrant, "the task cannot be taken any more: binding %q has ended", g.GetBinding())
	}
	g.State = typesv1.GrantState_GRANT_STATE_ACTIVE
	g.StartTime, g.EndTime = timestamppb.New(now), timestamppb.New(end)
	g.MinVersion = versionToWire(snapshot.Version())
	return nil
}

func findWorkload(snapshot *policy.Snapshot, name string) (*typesv1.Workload, bool) {
	for _, w := range snapshot.Workloads() {
		if w.GetMetadata().GetName() == name {
			return w, true
		}
	}
	return nil, false
}

// refuse says no to a client, with the kind of the code.
func refuse(code postern.Code, format string, args ...any) *fault.Error {
	return fault.Refused(&postern.Refusal{Code: code, Reason: fmt.Sprintf(format, args...)})
}

// asFault is err for a client: a refusal of policy as such, all else as it is.
func asFault(err error) error {
	var r *postern.Refusal
	if errors.As(err, &r) {
		return fault.Refused(r)
	}
	return err
}
