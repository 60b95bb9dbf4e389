package userapi

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	api "github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	defaultReceiptWait = 2 * time.Second
	indexWait          = 2 * time.Second
	indexPoll          = 50 * time.Millisecond
	maxSubjectBytes    = 256
	maxLockReason      = 400 // bytes; what is put around it fits a text of policy too
)

// LocksConfig is what Locks needs; all is required.
type LocksConfig struct {
	Policy   *Policy
	Version  func() postern.Version // the newest that is published
	Snapshot func() *policy.Snapshot
	// Receipt waits until connected nodes enforce a version, for wait at most.
	Receipt func(ctx context.Context, v postern.Version, wait time.Duration) *apiv1.Receipt
	// EndGrants ends all grants of the subject or workload on whom a lock stands, and returns
	// those that the lock has ended and the revision in which they are.
	EndGrants func(ctx context.Context, c *authz.Caller, lock *typesv1.Lock, why string) ([]*typesv1.Grant, int64, error)
	OpenHolds func(ctx context.Context, subject string) ([]*typesv1.Hold, error)
	DropHold  func(ctx context.Context, actor, id string) error
	// Sessions are those of a subject or workload, newest first: all that are live, and the last that were.
	Sessions func(ctx context.Context, subject string) ([]*typesv1.Session, error)
	Leases   func(ctx context.Context, under []*typesv1.Grant) ([]*apiv1.LeaseStatus, error)
	// Blast tells what a thief could do.
	Blast func(ctx context.Context, req *apiv1.GetBlastRequest) (*apiv1.GetBlastResponse, error)
}

// Locks answers LockService.
type Locks struct{ cfg LocksConfig }

var _ api.LockServiceHandler = (*Locks)(nil)

// NewLocks makes a Locks.
func NewLocks(cfg LocksConfig) *Locks { return &Locks{cfg} }

// GetReceipt implements apiv1connect.LockServiceHandler.
func (l *Locks) GetReceipt(ctx context.Context, r *connect.Request[apiv1.GetReceiptRequest]) (*connect.Response[apiv1.GetReceiptResponse], error) {
	wait := defaultReceiptWait
	if d := r.Msg.GetWait(); d != nil {
		if !d.IsValid() || d.AsDuration() < 0 {
			return nil, fault.Invalid(fault.Violation{Field: "wait", Reason: "is not a duration, or is negative"})
		}
		wait = cmp.Or(d.AsDuration(), wait)
	}
	v := l.cfg.Version()
	if w := r.Msg.GetVersion(); w != nil {
		v = postern.Version{Epoch: w.GetEpoch(), Revision: w.GetRevision()}
	}
	return connect.NewResponse(&apiv1.GetReceiptResponse{Receipt: l.cfg.Receipt(ctx, v, wait)}), nil
}

// leaver is one call of Offboard.
type leaver struct {
	subject, heir, reason string
	lock                  string                     // on the subject
	locks                 map[string]*typesv1.Object // that stand for this
	owned                 []*apiv1.OffboardedWorkload
	named                 []string
}

// offboardLock is the name of the lock that keeps a subject or workload out: always the
// same, so that offboarding somebody twice goes on with the first time.
func offboardLock(kind, name string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + name))
	return "offboard-" + hex.EncodeToString(sum[:8])
}

// Offboard implements apiv1connect.LockServiceHandler. The lock comes first: with it the
// caller's right is decided, and what follows can only be less than what it forbids.
func (l *Locks) Offboard(ctx context.Context, r *connect.Request[apiv1.OffboardRequest]) (*connect.Response[apiv1.OffboardResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	m := r.Msg
	if err := checkOffboard(m); err != nil {
		return nil, err
	}
	if _, lock, ok := l.cfg.Snapshot().Locked(m.GetTransferTo(), "", "", "", "", l.cfg.Policy.cfg.Now()); ok {
		return nil, fault.New(codes.FailedPrecondition, "%s cannot take over: lock %q stands on them", m.GetTransferTo(), lock)
	}
	j := &leaver{subject: m.GetSubject(), heir: m.GetTransferTo(), reason: cmp.Or(m.GetReason(), "has left"), lock: offboardLock("subject", m.GetSubject())}
	holds, err := l.cfg.OpenHolds(ctx, j.subject)
	if err != nil {
		return nil, err
	}
	resp := &apiv1.OffboardResponse{}
	version, err := l.shutOut(ctx, j, resp)
	if err != nil {
		return nil, err
	}
	why := fmt.Sprintf("offboarded by %s: %s", c.Subject.Name, j.reason)
	if resp.Grants, err = l.endGrants(ctx, c, j, why, version); err != nil {
		return nil, err
	}
	if err := l.withdraw(ctx, c, j, holds, resp); err != nil {
		return nil, err
	}
	resp.Receipt = l.cfg.Receipt(ctx, postern.Version{Epoch: version.GetEpoch(), Revision: version.GetRevision()}, defaultReceiptWait)
	if resp.Sessions, err = l.ended(ctx, j, resp); err != nil {
		return nil, err
	}
	if resp.Leases, err = l.cfg.Leases(ctx, resp.GetGrants()); err != nil {
		return nil, err
	}
	entry := c.Entry("subject/"+j.subject, map[string]any{
		"transferTo": j.heir, "reason": j.reason, "workloads": len(resp.GetWorkloads()),
		"grants": len(resp.GetGrants()), "holds": len(resp.GetHolds()), "sessions": len(resp.GetSessions()),
	})
	return connect.NewResponse(resp), l.cfg.Policy.cfg.Audit.Append(ctx, entry)
}

func checkOffboard(m *apiv1.OffboardRequest) error {
	var v []fault.Violation
	if n := len(m.GetSubject()); n == 0 || n > maxSubjectBytes {
		v = append(v, fault.Violation{Field: "subject", Reason: fmt.Sprintf("is required, of at most %d bytes", maxSubjectBytes)})
	}
	if len(m.GetTransferTo()) > maxSubjectBytes {
		v = append(v, fault.Violation{Field: "transfer_to", Reason: fmt.Sprintf("is longer than %d bytes", maxSubjectBytes)})
	}
	if m.GetTransferTo() != "" && m.GetTransferTo() == m.GetSubject() {
		v = append(v, fault.Violation{Field: "transfer_to", Reason: "is who leaves"})
	}
	if len(m.GetReason()) > maxLockReason {
		v = append(v, fault.Violation{Field: "reason", Reason: fmt.Sprintf("is longer than %d bytes", maxLockReason)})
	}
	if len(v) > 0 {
		return fault.Invalid(v...)
	}
	return nil
}

// shutOut writes the locks and the workloads' new owner. The first transaction has the
// lock on the subject; a person with very many workloads needs several.
func (l *Locks) shutOut(ctx context.Context, j *leaver, resp *apiv1.OffboardResponse) (*typesv1.Version, error) {
	for {
		more := false
		done, version, err := l.cfg.Policy.writeBy(ctx, false, func(before world) (todo []intent) {
			todo, more = j.plan(before)
			return todo
		})
		if err != nil {
			return nil, err
		}
		for _, d := range done {
			switch o := d.GetObject(); {
			case o.GetLock() != nil && d.GetAction() != deleted:
				j.locks[object.Name(o)] = o
			case o.GetWorkload() != nil:
				resp.Workloads = append(resp.Workloads, &apiv1.OffboardedWorkload{Name: object.Name(o), Owner: j.heir})
			}
		}
		if !more {
			resp.Workloads = append(resp.Workloads, j.owned...)
			resp.NamedIn = j.named
			for _, name := range slices.Sorted(maps.Keys(j.locks)) {
				resp.Locks = append(resp.Locks, j.locks[name])
			}
			return version, nil
		}
	}
}

// plan is what is to be written in the world as it is, and whether there is more.
func (j *leaver) plan(before world) (todo []intent, more bool) {
	j.locks, j.owned, j.named = map[string]*typesv1.Object{}, nil, nil
	lock := object.Bare("lock", j.lock)
	lock.GetLock().Spec = &typesv1.LockSpec{Subject: j.subject, Reason: j.reason}
	todo = append(todo, intent{object: lock})
	for o := range before.All("workload") {
		if o.GetWorkload().GetSpec().GetOwner() != j.subject {
			continue
		}
		next := j.move(before, o)
		if j.heir == "" {
			next = j.stop(before, object.Name(o))
		}
		if more = len(todo)+len(next) > MaxApply; more {
			return todo, true
		}
		todo = append(todo, next...)
	}
	for _, kind := range []string{"binding", "rolebinding"} {
		for o := range before.All(kind) {
			all := append(slices.Clone(o.GetBinding().GetSpec().GetSubjects()), o.GetRoleBinding().GetSpec().GetSubjects()...)
			if slices.ContainsFunc(all, func(s *typesv1.SubjectSelector) bool { return s.GetSubject() == j.subject }) {
				j.named = append(j.named, object.Ref(o))
			}
		}
	}
	return todo, false
}

// stop locks a workload that nobody takes, where it is not locked for that already.
func (j *leaver) stop(before world, name string) []intent {
	lock := object.Bare("lock", offboardLock("workload", name))
	lock.GetLock().Spec = &typesv1.LockSpec{Workload: name, Reason: "its owner has left, and nobody took it"}
	j.owned = append(j.owned, &apiv1.OffboardedWorkload{Name: name, Owner: j.subject, Locked: true})
	if was := before.Lookup("lock", object.Name(lock)); proto.Equal(was.GetLock().GetSpec(), lock.GetLock().GetSpec()) {
		j.locks[object.Name(lock)] = was
		return nil
	}
	return []intent{{object: lock}}
}

// move gives a workload its new owner, and lifts the lock where nobody took it before.
func (j *leaver) move(before world, o *typesv1.Object) []intent {
	next := proto.CloneOf(o)
	next.GetWorkload().Spec.Owner, object.Meta(next).Etag = j.heir, ""
	todo := []intent{{object: next, must: present}}
	if stop := offboardLock("workload", object.Name(o)); before.Lookup("lock", stop) != nil {
		todo = append(todo, intent{object: object.Bare("lock", stop), must: present, remove: true})
	}
	return todo
}

// endGrants ends the grants of the person and of workloads that stop, and moves version
// on to where they are over.
func (l *Locks) endGrants(ctx context.Context, c *authz.Caller, j *leaver, why string, version *typesv1.Version) ([]*typesv1.Grant, error) {
	var all []*typesv1.Grant
	for _, o := range j.locks {
		ended, revision, err := l.cfg.EndGrants(ctx, c, o.GetLock(), why)
		if err != nil {
			return nil, fmt.Errorf("end the grants of %s: %w", target(o), err)
		}
		all = append(all, ended...)
		version.Revision = max(version.GetRevision(), revision)
	}
	slices.SortFunc(all, func(a, b *typesv1.Grant) int { return b.GetCreateTime().AsTime().Compare(a.GetCreateTime().AsTime()) })
	return all, nil
}

// target is the subject or workload that a lock keeps out.
func target(lock *typesv1.Object) string {
	spec := lock.GetLock().GetSpec()
	return cmp.Or(spec.GetSubject(), spec.GetWorkload())
}

// withdraw takes back what the person asked: before, and until the lock stood.
func (l *Locks) withdraw(ctx context.Context, c *authz.Caller, j *leaver, before []*typesv1.Hold, resp *apiv1.OffboardResponse) error {
	again, err := l.cfg.OpenHolds(ctx, j.subject)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, h := range append(before, again...) {
		if seen[h.GetId()] {
			continue
		}
		seen[h.GetId()] = true
		if err := l.cfg.DropHold(ctx, c.Subject.Name, h.GetId()); err != nil {
			return fmt.Errorf("withdraw %s: %w", h.GetId(), err)
		}
		h.State = typesv1.HoldState_HOLD_STATE_WITHDRAWN
		resp.Holds = append(resp.Holds, h)
	}
	return nil
}

// ended is sessions, once the index knows all to which the ledger says that something
// was lent: what nodes record takes its time. Those of a node that is cut off may be missing.
func (l *Locks) ended(ctx context.Context, j *leaver, resp *apiv1.OffboardResponse) ([]*typesv1.Session, error) {
	leases, err := l.cfg.Leases(ctx, resp.GetGrants())
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, indexWait)
	defer cancel()
	tick := time.NewTicker(indexPoll)
	defer tick.Stop()
	for {
		lived, over, err := l.sessions(ctx, resp.GetLocks())
		if err != nil {
			return nil, fmt.Errorf("list sessions of %s: %w", j.subject, err)
		}
		if !slices.ContainsFunc(leases, func(one *apiv1.LeaseStatus) bool { return one.GetSession() != "" && !over[one.GetSession()] }) {
			return lived, nil
		}
		select {
		case <-tick.C:
		case <-wait.Done():
			return lived, ctx.Err()
		}
	}
}

// sessions are those that lived when their lock was made, and which are over now.
func (l *Locks) sessions(ctx context.Context, locks []*typesv1.Object) (lived []*typesv1.Session, over map[string]bool, err error) {
	over = map[string]bool{}
	for _, o := range locks {
		list, err := l.cfg.Sessions(ctx, target(o))
		if err != nil {
			return nil, nil, err
		}
		for _, s := range list {
			if o.GetLock().GetSpec().GetSubject() == "" && s.GetWorkload() == "" {
				continue // of a person who has the workload's name
			}
			over[s.GetId()] = s.GetEndTime() != nil
			if s.GetEndTime() == nil || s.GetEndTime().AsTime().After(object.Meta(o).GetCreateTime().AsTime()) {
				lived = append(lived, s)
			}
		}
	}
	return lived, over, nil
}
