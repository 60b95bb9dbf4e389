package userapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// MaxApply is how many objects one Apply takes: one transaction's worth, less the
// operations that order policy writes and append the audit entry.
const MaxApply = store.MaxOps - 3

var maxApplyText = strconv.Itoa(MaxApply)

const (
	maxWriteBytes = store.MaxCommitBytes - 2*store.MaxValueBytes // the rest is for the audit entry
	replicaWait   = 10 * time.Second
	settleWait    = 2 * time.Second
	maxAttempts   = 10
)

// orderKey is put by every write of policy, so that two writes that were both checked
// against the same world never both succeed.
func orderKey() store.Key { return store.Key{Kind: "policyorder", Name: "last"} }

// intent is what a caller wants of one object.
type intent struct {
	object *typesv1.Object
	must   condition
	remove bool
}

type condition uint8

const (
	either condition = iota
	absent
	present
)

// step is an intent, worked out.
type step struct {
	key    store.Key
	entry  store.Entry // as stored; zero where it is not there
	change authz.Change
	action string // created, updated, unchanged or deleted
	fields []string
}

// write works out, checks and commits intents in one transaction; with dryRun it does
// all but the commit.
func (p *Policy) write(ctx context.Context, dryRun bool, intents ...intent) ([]*apiv1.Applied, *typesv1.Version, error) {
	return p.writeBy(ctx, dryRun, func(world) []intent { return intents })
}

// writeBy is write of what is intended in the world as it is before. Another write of
// policy in the same moment makes it begin anew.
func (p *Policy) writeBy(ctx context.Context, dryRun bool, intended func(before world) []intent) ([]*apiv1.Applied, *typesv1.Version, error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, nil, err
	}
	for attempt := 1; ; attempt++ {
		done, version, err := p.attempt(ctx, c, dryRun, intended)
		if !store.IsConflict(err) {
			return done, version, err
		}
		if attempt == maxAttempts {
			return nil, nil, fault.Wrap(err, codes.Aborted, "others write policy at this moment; try again").WithKind("CONTENTION")
		}
	}
}

func (p *Policy) attempt(ctx context.Context, c *authz.Caller, dryRun bool, intended func(world) []intent) ([]*apiv1.Applied, *typesv1.Version, error) {
	before, order, err := p.current(ctx)
	if err != nil {
		return nil, nil, err
	}
	steps, err := p.plan(ctx, c, before, intended(before))
	if err != nil {
		return nil, nil, err
	}
	after, changes := overlay(before, steps)
	own, err := c.MayWrite(changes, before, after, p.cfg.Now())
	if err != nil {
		return nil, nil, err
	}
	if err := p.check(steps, before, after); err != nil {
		return nil, nil, err
	}
	version := &typesv1.Version{Epoch: before.view.Version().Epoch, Revision: before.view.Version().Revision}
	if len(changes) == 0 {
		audit.Settled(ctx)
		return answer(steps, nil), version, nil
	}
	ops := []store.Op{{Key: orderKey(), Value: []byte(c.Subject.Name), If: order}}
	values, total := make(map[store.Key][]byte), 0
	for _, s := range steps {
		if s.action == unchanged {
			continue
		}
		op, err := p.op(ctx, s)
		if err != nil {
			return nil, nil, err
		}
		ops, values[s.key] = append(ops, op), op.Value
		total += len(op.Value)
	}
	if total > maxWriteBytes {
		return nil, nil, fault.Invalid(fault.Violation{Field: "objects", Reason: fmt.Sprintf("are %d bytes together, more than the %d of one transaction: apply them in parts", total, maxWriteBytes)})
	}
	revision, entry := int64(0), c.Entry(refs(steps), changesDetail(steps, own))
	if dryRun {
		err = p.cfg.Audit.Check(ctx, entry, ops...)
	} else {
		revision, err = p.cfg.Audit.Commit(ctx, entry, ops...)
	}
	switch {
	case errors.Is(err, audit.ErrTooMuch):
		return nil, nil, fault.Invalid(fault.Violation{Field: "objects", Reason: "and what the audit log keeps of them are more than one transaction: apply them in parts"})
	case err != nil:
		return nil, nil, err
	case dryRun:
		audit.Settled(ctx)
		return answer(steps, nil), version, nil
	}
	version.Revision = revision
	p.settle(ctx, version)
	return answer(steps, func(k store.Key) (store.Entry, bool) {
		v, ok := values[k]
		return store.Entry{Key: k, Value: v, Revision: revision}, ok
	}), version, nil
}

// settle lets who has written read what they wrote: the next call may ask for what this
// one gave. Where compiling takes longer, they are told all the same.
func (p *Policy) settle(ctx context.Context, version *typesv1.Version) {
	if p.cfg.Enforced == nil {
		return
	}
	wait, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	v := postern.Version{Epoch: version.GetEpoch(), Revision: version.GetRevision()}
	if err := p.cfg.Enforced(wait, v); err != nil {
		p.cfg.Logger.WarnContext(ctx, "what was written is not in force here yet", "version", v, "error", err)
	}
}

// current is the world as of now: not older than the last write of policy. The commit
// fails if there is another one after it.
func (p *Policy) current(ctx context.Context) (world, int64, error) {
	order := int64(0)
	e, err := p.cfg.Store.Get(ctx, orderKey())
	switch {
	case err == nil:
		order = e.Revision
	case !errors.Is(err, store.ErrNotFound):
		return world{}, 0, err
	}
	wait, cancel := context.WithTimeout(ctx, replicaWait)
	defer cancel()
	select {
	case <-p.cfg.Cache.Ready():
	case <-wait.Done():
		return world{}, 0, fault.Wrap(context.Cause(wait), codes.Unavailable, "the control plane has not read its store yet; try again")
	}
	if err := p.cfg.Cache.WaitFor(wait, order); err != nil {
		return world{}, 0, fault.Wrap(err, codes.Unavailable, "this replica of the control plane is behind its store; try again")
	}
	view := p.cfg.Cache.View()
	p.decoded.prune(view)
	return world{view: view, decoded: p.decoded}, order, nil
}

const (
	created   = "created"
	updated   = "updated"
	unchanged = "unchanged"
	deleted   = "deleted"
)

// plan works out what each intent does to the world.
func (p *Policy) plan(ctx context.Context, c *authz.Caller, before world, intents []intent) ([]step, error) {
	var steps []step
	seen := make(map[store.Key]bool)
	for i, in := range intents {
		if object.Kind(in.object) == "" {
			return nil, fault.Invalid(fault.Violation{Field: where(intents, i, in.object), Reason: "is empty: set one of " + strings.Join(object.Kinds(), ", ")})
		}
		after := proto.CloneOf(in.object)
		object.Normalize(after)
		meta := object.Meta(after)
		s := step{key: store.Key{Kind: object.Kind(after), Name: meta.GetName()}}
		if seen[s.key] {
			return nil, fault.Invalid(fault.Violation{Field: where(intents, i, after), Reason: "is there twice"})
		}
		seen[s.key] = true
		etag := meta.GetEtag()
		if etag != "" {
			if _, err := store.EtagRevision(etag); err != nil {
				return nil, fault.Invalid(fault.Violation{Field: where(intents, i, after) + ".metadata.etag", Reason: "is not an etag"})
			}
		}
		entry, exists := before.entry(s.key)
		s.entry = entry
		was := before.Lookup(s.key.Kind, s.key.Name)
		unread := exists && was == nil
		if unread {
			was = object.Bare(s.key.Kind, s.key.Name)
		}
		switch {
		case exists && in.must == absent:
			return nil, fault.New(codes.AlreadyExists, "%s exists already: update it, or apply", s.key)
		case !exists && (in.must == present || etag != ""):
			return nil, fault.New(codes.NotFound, "there is no %s", s.key)
		case exists && !c.MayRead(was): // nor be told how it is
			return nil, notFound(s.key.Kind, s.key.Name)
		case unread && !(in.remove && c.Has(authz.Admin)): // who may remove whatever it was
			return nil, fault.New(codes.FailedPrecondition, "stored %s cannot be read: an admin must delete it before it can be made anew", s.key)
		case exists && etag != "" && etag != store.Etag(entry):
			return nil, p.stale(ctx, was, after, etag)
		}
		holder, err := p.holder(ctx, was.GetLock())
		if err != nil {
			return nil, err
		}
		if s.change.Before, s.change.Locked = was, holder; in.remove {
			s.action = deleted
		} else {
			if err := p.complete(c, &s, after); err != nil {
				return nil, err
			}
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// holder is whose grant a lock stands on; nil where it stands on none that is on file.
func (p *Policy) holder(ctx context.Context, l *typesv1.Lock) (*typesv1.Subject, error) {
	if l.GetSpec().GetGrant() == "" {
		return nil, nil
	}
	g, err := p.cfg.Grant(ctx, postern.GrantID(l.GetSpec().GetGrant()))
	if fault.CodeOf(err) == codes.NotFound {
		return nil, nil
	}
	return g.GetSubject(), err
}

// where is how a violation names an object of a request.
func where(intents []intent, i int, o *typesv1.Object) string {
	if len(intents) == 1 {
		return "object"
	}
	return fmt.Sprintf("objects[%d](%s)", i, object.Ref(o))
}

// complete sets what the system keeps of an object, and says what a step does.
func (p *Policy) complete(c *authz.Caller, s *step, after *typesv1.Object) error {
	if len(after.GetSecret().GetSpec().GetSealed()) > 0 {
		return fault.Invalid(fault.Violation{Field: "spec.sealed", Reason: "is the system's own: set spec.data"})
	}
	meta, now := object.Meta(after), timestamppb.New(p.cfg.Now())
	meta.Etag = ""
	was := s.change.Before
	if was == nil {
		s.action = created
		meta.Uid, meta.CreateTime, meta.UpdateTime, meta.CreatedBy = rand.Text(), now, now, c.Subject.Name
		s.change.After = after
		return nil
	}
	old := object.Meta(was)
	meta.Uid, meta.CreateTime, meta.UpdateTime, meta.CreatedBy = old.GetUid(), old.GetCreateTime(), old.GetUpdateTime(), old.GetCreatedBy()
	if sec := after.GetSecret(); sec != nil && len(sec.GetSpec().GetData()) == 0 {
		sec.Spec = proto.CloneOf(was.GetSecret().GetSpec()) // labels change, the value stays
	}
	s.change.After = after
	s.fields = differ(was, after)
	if s.action = updated; len(s.fields) == 0 {
		s.action = unchanged
	}
	if slices.ContainsFunc(s.fields, func(f string) bool { return strings.HasPrefix(f, "spec") }) {
		meta.UpdateTime = now
	}
	return nil
}

// overlay is the world after the steps, and the changes that they make.
func overlay(before world, steps []step) (world, []authz.Change) {
	over := make(map[store.Key]*typesv1.Object)
	var changes []authz.Change
	for _, s := range steps {
		if s.action != unchanged {
			over[s.key] = s.change.After
			changes = append(changes, s.change)
		}
	}
	return before.with(over), changes
}

// check validates the steps against the world as it will be: the objects themselves,
// and those that refer to what changes.
func (p *Policy) check(steps []step, before, after world) error {
	var found []fault.Violation
	single := len(steps) == 1
	for _, s := range steps {
		if s.action != created && s.action != updated {
			continue
		}
		violations := policy.Validate(s.change.After, after.Lookup)
		if s.change.After.GetTask().GetSpec().GetRecord().GetStoreRaw() && !p.cfg.StoresRaw {
			violations = append(violations, fault.Violation{Field: "spec.record.storeRaw", Reason: "needs a raw key, which this control plane has not: see recordings.rawKey of its configuration"})
		}
		for _, v := range violations {
			if !single {
				v.Field = s.key.String() + " " + v.Field
			}
			found = append(found, v)
		}
	}
	if len(found) > 0 {
		return fault.Invalid(found...)
	}
	all := after.everything()
	for _, s := range steps {
		if s.action == unchanged || s.action == created {
			continue
		}
		referrers := policy.Referrers(s.key.Kind, s.key.Name, all)
		if s.action == deleted {
			if len(referrers) > 0 {
				return fault.New(codes.FailedPrecondition, "%s is in use by %s: change or delete those first", s.key, strings.Join(referrers, ", ")).WithKind("REFERENCED")
			}
			continue
		}
		for _, ref := range referrers {
			if err := stillValid(ref, s.key, before, after); err != nil {
				return err
			}
		}
	}
	return nil
}

// stillValid refuses a change that makes an object invalid that refers to what changes.
func stillValid(ref string, changed store.Key, before, after world) error {
	kind, name, _ := strings.Cut(ref, "/")
	old := make(map[fault.Violation]bool)
	if o := before.Lookup(kind, name); o != nil {
		for _, v := range policy.Validate(o, before.Lookup) {
			old[v] = true
		}
	}
	for _, v := range policy.Validate(after.Lookup(kind, name), after.Lookup) {
		if !old[v] {
			return fault.New(codes.FailedPrecondition, "%s refers to %s, and would no longer be valid: %s: %s", ref, changed, v.Field, v.Reason).WithKind("REFERENCED")
		}
	}
	return nil
}

// op is the operation of a step, with the values of a Secret sealed.
func (p *Policy) op(ctx context.Context, s step) (store.Op, error) {
	op := store.Op{Key: s.key, If: s.entry.Revision}
	if s.action == deleted {
		op.Delete = true
		return op, nil
	}
	o := s.change.After
	if sec := o.GetSecret(); len(sec.GetSpec().GetData()) > 0 {
		sealed, err := p.cfg.Sealer.SealSecret(ctx, s.key.Name, sec.GetSpec().GetData())
		if err != nil {
			return op, fmt.Errorf("seal %s: %w", s.key, err)
		}
		o = proto.CloneOf(o)
		o.GetSecret().Spec = &typesv1.SecretSpec{Sealed: sealed}
	}
	_, value, err := store.EncodeObject(o)
	if err != nil {
		return op, err
	}
	if len(value) > store.MaxValueBytes {
		return op, fault.Invalid(fault.Violation{Field: s.key.String(), Reason: fmt.Sprintf("is %d bytes long, more than %d", len(value), store.MaxValueBytes)})
	}
	op.Value = value
	return op, nil
}

// answer tells what was done, with the etags of what was written.
func answer(steps []step, written func(store.Key) (store.Entry, bool)) []*apiv1.Applied {
	out := make([]*apiv1.Applied, len(steps))
	for i, s := range steps {
		o := s.change.After
		if o == nil {
			o = s.change.Before
		}
		o = shown(o)
		if s.entry.Revision != 0 {
			object.Meta(o).Etag = store.Etag(s.entry)
		}
		if written != nil {
			if e, ok := written(s.key); ok {
				object.Meta(o).Etag = store.Etag(e)
			}
		}
		out[i] = &apiv1.Applied{Action: s.action, Object: o}
	}
	return out
}

func refs(steps []step) string {
	var out []string
	for _, s := range steps {
		if s.action != unchanged {
			out = append(out, s.key.String())
		}
	}
	return strings.Join(out, " ")
}

// changesDetail is what the audit log says of a write at a glance; it keeps before and
// after of each object by itself.
func changesDetail(steps []step, own bool) any {
	var changes []map[string]any
	for _, s := range steps {
		if s.action == unchanged {
			continue
		}
		c := map[string]any{"object": s.key.String(), "action": s.action}
		if len(s.fields) > 0 {
			c["fields"] = s.fields
		}
		changes = append(changes, c)
	}
	detail := map[string]any{"changes": changes}
	if own {
		detail["own"] = true // an admin changed what they may themselves use
	}
	return detail
}
