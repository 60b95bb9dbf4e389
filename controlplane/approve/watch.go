package approve

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const (
	// retryAfter is how long Run waits after the store failed.
	retryAfter = time.Second
	// giveUpTimeout bounds a withdrawal for a session that is gone.
	giveUpTimeout = 5 * time.Second
	// endingGrace is how far apart the end of a call and that of the replica may be seen.
	endingGrace = 200 * time.Millisecond
)

// Follow tells each how a hold stands, now and after every change, for a session that
// waits. It returns the hold once there is nothing more to wait for. Whoever ends ctx by
// cancelling it, as a client does that goes away, gives up: the hold is withdrawn,
// unless others wait for the same. Whoever has waited for the rule's timeout, or lets
// ctx's deadline pass, only stops waiting: people can answer still, and the same question
// goes through once they said yes.
func (s *Service) Follow(ctx context.Context, id string, each func(*typesv1.Hold) error) (*typesv1.Hold, error) {
	l := s.hub.listen(id, true)
	h, err := s.follow(ctx, id, l, each)
	gone := errors.Is(ctx.Err(), context.Canceled) && (h == nil || Waiting(h)) && !s.ending()
	if others := l.close(); gone && !others {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpTimeout)
		defer cancel()
		if derr := s.giveUp(late, id); derr != nil {
			s.cfg.Logger.WarnContext(late, "a hold was not withdrawn", "hold", id, "error", derr)
		}
	}
	return h, err
}

// ending reports whether this replica ends, which ends every call too: nobody has given
// up then. The two reach us in any order, and so it looks for a moment.
func (s *Service) ending() bool {
	t := time.NewTimer(endingGrace)
	defer t.Stop()
	select {
	case <-s.hub.ends():
		return true
	case <-t.C:
		return false
	}
}

func (s *Service) follow(ctx context.Context, id string, l *listener, each func(*typesv1.Hold) error) (*typesv1.Hold, error) {
	var last *typesv1.Hold
	var late <-chan time.Time // once the rule is known
	for {
		h, _, err := s.load(ctx, id)
		if err != nil {
			return last, err
		}
		if !proto.Equal(h, last) {
			last = h
			if err := each(h); err != nil {
				return h, err
			}
		}
		if !Waiting(h) {
			return h, nil
		}
		if late == nil {
			_, timeout, err := s.rule(h.GetRule())
			if err != nil {
				return h, err
			}
			t := time.NewTimer(timeout)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-ctx.Done():
			return h, context.Cause(ctx)
		case <-late:
			return h, errNobodyAnswered(h)
		case <-l.signal:
			l.take()
		}
	}
}

// errNobodyAnswered ends a wait, and not the hold.
func errNobodyAnswered(h *typesv1.Hold) error {
	f := fault.New(codes.DeadlineExceeded, "nobody approved the request in time").WithKind(postern.CodeCancelled.String())
	f.Violations = []fault.Violation{
		{Field: fault.FieldDetail, Reason: "request " + h.GetId() + " can still be answered, until " + h.GetExpireTime().AsTime().UTC().Format(time.RFC3339)},
	}
	return f.WithHint("do the same again: it goes through once the request is approved")
}

// giveUp withdraws what nobody has answered; a yes that came in between stays.
func (s *Service) giveUp(ctx context.Context, id string) error {
	h, _, err := s.load(ctx, id)
	if err != nil || !Waiting(h) {
		return err
	}
	_, err = s.change(ctx, id, audit.Entry{Actor: h.GetSubject(), Action: "hold.withdraw"}, func(h *typesv1.Hold) ([]store.Op, error) {
		if !Waiting(h) {
			return nil, fault.New(codes.FailedPrecondition, "settled meanwhile")
		}
		h.State = typesv1.HoldState_HOLD_STATE_WITHDRAWN
		return nil, nil
	})
	if fault.CodeOf(err) == codes.FailedPrecondition {
		return nil
	}
	return err
}

// asks are the groups that h asks: those of its rule as it is now, and the further one once
// that is asked; of a hold that waits no more, those that it asked last.
func (s *Service) asks(h *typesv1.Hold) []string {
	if !Waiting(h) {
		return h.GetApproverGroups()
	}
	rule, _, err := s.rule(h.GetRule())
	if err != nil { // nobody can answer it now
		return h.GetApproverGroups()
	}
	groups := groupsOf(rule.GetSpec())
	if further, _ := policy.Escalation(rule.GetSpec()); further != "" && escalated(h, further) && !slices.Contains(groups, further) {
		groups = append(groups, further)
	}
	return groups
}

// groupsOf are the groups that a rule asks at once.
func groupsOf(rule *typesv1.ApprovalRuleSpec) (groups []string) {
	for _, q := range rule.GetAll() {
		if !slices.Contains(groups, q.GetGroup()) {
			groups = append(groups, q.GetGroup())
		}
	}
	return groups
}

// shown is h as a subject sees it, with whom it asks now: nil where that is not at all, for
// they neither asked for it nor may answer it. h stays as it is.
func (s *Service) shown(h *typesv1.Hold, sub postern.Subject) *typesv1.Hold {
	h = s.asking(h)
	if !Asked(h, sub) && (sub.Workload != "" || !slices.ContainsFunc(h.GetApproverGroups(), func(g string) bool { return slices.Contains(sub.Groups, g) })) {
		return nil
	}
	return h
}

// asking is h with whom it asks now; h stays as it is.
func (s *Service) asking(h *typesv1.Hold) *typesv1.Hold {
	if groups := s.asks(h); !slices.Equal(groups, h.GetApproverGroups()) {
		h = proto.CloneOf(h)
		h.ApproverGroups = groups
	}
	return h
}

// Get reads a hold that the caller may see.
func (s *Service) Get(ctx context.Context, by Caller, id string) (*typesv1.Hold, error) {
	h, _, err := s.load(ctx, id)
	if err != nil {
		return nil, err
	}
	if h = s.shown(h, by.Subject); h == nil {
		return nil, errNoHold(id)
	}
	return h, nil
}

// List reads the holds that the caller may see, newest first.
func (s *Service) List(ctx context.Context, by Caller, mine, pending bool) ([]*typesv1.Hold, error) {
	entries, _, err := s.cfg.Store.List(ctx, kind, "", 0)
	if err != nil {
		return nil, fmt.Errorf("list holds: %w", err)
	}
	var holds []*typesv1.Hold
	for _, e := range entries {
		h := s.legible(ctx, e)
		if h == nil {
			continue
		}
		if h = s.shown(h, by.Subject); h == nil || mine && !Asked(h, by.Subject) || pending && !Waiting(h) {
			continue
		}
		holds = append(holds, h)
	}
	newestFirst(holds)
	return holds, nil
}

// Open reads the holds of a subject or a workload that can still change, newest first.
func (s *Service) Open(ctx context.Context, subject string) ([]*typesv1.Hold, error) {
	entries, _, err := s.cfg.Store.List(ctx, kind, "", 0)
	if err != nil {
		return nil, fmt.Errorf("list holds: %w", err)
	}
	var holds []*typesv1.Hold
	for _, e := range entries {
		if h := s.legible(ctx, e); h != nil && strings.EqualFold(h.GetSubject(), subject) && open(h) {
			holds = append(holds, h)
		}
	}
	newestFirst(holds)
	return holds, nil
}

func newestFirst(holds []*typesv1.Hold) {
	slices.SortFunc(holds, func(a, b *typesv1.Hold) int {
		return cmp.Or(b.GetCreateTime().AsTime().Compare(a.GetCreateTime().AsTime()), strings.Compare(a.GetId(), b.GetId()))
	})
}

// Watch tells each every hold that the caller may see, oldest first, then every change, and
// those that a change of policy lets the caller see or asks of others, until ctx ends or each
// fails. Holds must not be changed.
func (s *Service) Watch(ctx context.Context, by Caller, each func(*typesv1.Hold) error) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.hub.ready:
	}
	l := s.hub.listen("", false)
	defer l.close()
	told := map[string]*typesv1.Hold{}
	holds := s.hub.all()
	for {
		newestFirst(holds)
		for _, h := range slices.Backward(holds) {
			id := h.GetId()
			if h = s.shown(h, by.Subject); h == nil {
				delete(told, id)
				continue
			}
			if proto.Equal(told[id], h) {
				continue
			}
			told[id] = h
			if err := each(h); err != nil {
				return err
			}
		}
		holds = holds[:0]
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.signal:
			for _, id := range l.take() {
				if h := s.hub.get(id); h != nil {
					holds = append(holds, h)
				} else {
					delete(told, id)
				}
			}
		}
	}
}

// All are the holds as this replica saw them last, with whom they ask now; they must not be
// changed. There are none before Ready.
func (s *Service) All() []*typesv1.Hold {
	holds := s.hub.all()
	for i, h := range holds {
		holds[i] = s.asking(h)
	}
	return holds
}

// Ready is closed once All has what is in the store.
func (s *Service) Ready() <-chan struct{} { return s.hub.ready }

// Changes returns a channel that gets an element after holds have changed, or whom they ask,
// and a function that ends it.
func (s *Service) Changes() (<-chan struct{}, func()) {
	l := s.hub.listen("", false)
	return l.signal, func() { l.close() }
}

// Run follows the store, so that changes made by other replicas are told too, ends what
// nobody answered, and forgets what is long settled; it begins once there is a policy, which
// says whom holds ask. Every replica runs it: two that do the same at once do no harm.
func (s *Service) Run(ctx context.Context) error {
	s.hub.endsWith(ctx.Done())
	changed, stop := s.cfg.Changed()
	defer stop()
	for _, err := s.policy(); err != nil; _, err = s.policy() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
	return run.All(ctx,
		run.Part{Name: "follow policy", Run: func(ctx context.Context) error {
			for {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-changed:
					s.hub.tellWaiting()
				}
			}
		}},
		run.Part{Name: "watch holds", Run: func(ctx context.Context) error { return s.again(ctx, "watch", s.watch) }},
		run.Part{Name: "end holds", Run: func(ctx context.Context) error { return s.again(ctx, "sweep", s.sweep) }},
	)
}

func (s *Service) again(ctx context.Context, part string, fn func(context.Context) error) error {
	for ctx.Err() == nil {
		if err := fn(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "holds are not looked after; trying again", "part", part, "error", err)
			run.Pause(ctx, retryAfter)
		}
	}
	return ctx.Err()
}

func (s *Service) watch(ctx context.Context) error {
	entries, revision, err := s.cfg.Store.List(ctx, kind, "", 0)
	if err != nil {
		return err
	}
	holds := make(map[string]*typesv1.Hold, len(entries))
	for _, e := range entries {
		if h := s.legible(ctx, e); h != nil {
			holds[e.Name] = h
		}
	}
	w, err := s.cfg.Store.Watch(ctx, revision+1, kind)
	if err != nil {
		return err
	}
	defer w.Close()
	s.hub.replace(holds)
	for {
		batch, err := w.Next(ctx)
		if err != nil {
			return err
		}
		for _, e := range batch.Events {
			var h *typesv1.Hold
			if !e.Deleted {
				h = s.legible(ctx, e.Entry)
			}
			s.hub.set(e.Name, h)
		}
	}
}

// legible is the hold of an entry; nil, which is logged, where it is damaged: nobody can answer
// or use that one, and the others are as good as before.
func (s *Service) legible(ctx context.Context, e store.Entry) *typesv1.Hold {
	h, err := decode(e)
	if err != nil {
		s.cfg.Logger.WarnContext(ctx, "a hold is damaged and passed over", "error", err)
		return nil
	}
	return h
}

// sweep ends and forgets what is due.
func (s *Service) sweep(ctx context.Context) error {
	l := s.hub.listen("", false)
	defer l.close()
	for {
		l.take()
		next := time.Time{}
		var failed run.Failures
		holds := s.hub.all()
		many := tooMany(holds)
		for _, h := range holds {
			due := h.GetExpireTime().AsTime()
			switch {
			case many[h.GetId()]:
				due = time.Time{}
			case !open(h):
				due = keptUntil(h)
			case escalates(h) && h.GetEscalateTime().AsTime().Before(due):
				due = h.GetEscalateTime().AsTime()
			}
			if s.cfg.Now().Before(due) {
				if next.IsZero() || due.Before(next) {
					next = due
				}
				continue
			}
			failed.Add(s.end(ctx, h)) // and goes on: nothing of one hold may keep the others
		}
		if err := failed.Err(); err != nil {
			return err
		}
		timer := time.NewTimer(keep)
		if !next.IsZero() {
			timer.Reset(next.Sub(s.cfg.Now()))
		}
		select {
		case <-ctx.Done():
		case <-l.signal:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// escalates reports whether a further group is to be asked of h, and is not yet.
func escalates(h *typesv1.Hold) bool {
	return Waiting(h) && h.GetEscalateTime() != nil && !escalated(h, h.GetEscalateGroup())
}

// escalate asks a further group of a hold that nobody has settled.
func (s *Service) escalate(ctx context.Context, h *typesv1.Hold) error {
	_, err := s.change(ctx, h.GetId(), audit.Entry{Actor: "system", Action: "hold.escalate"}, func(h *typesv1.Hold) ([]store.Op, error) {
		if !escalates(h) || s.cfg.Now().Before(h.GetEscalateTime().AsTime()) {
			return nil, fault.New(codes.FailedPrecondition, "not due")
		}
		h.ApproverGroups = append(h.ApproverGroups, h.GetEscalateGroup())
		return nil, nil
	})
	return err
}

// end expires a hold that is open, and forgets one that is not; where a further group is
// due first, it is asked.
func (s *Service) end(ctx context.Context, h *typesv1.Hold) error {
	if !open(h) {
		return s.forget(ctx, h)
	}
	if escalates(h) && s.cfg.Now().Before(h.GetExpireTime().AsTime()) {
		if err := s.escalate(ctx, h); fault.CodeOf(err) != codes.FailedPrecondition && fault.CodeOf(err) != codes.NotFound {
			return err
		}
		return nil
	}
	_, err := s.change(ctx, h.GetId(), audit.Entry{Actor: "system", Action: "hold.expire"}, func(h *typesv1.Hold) ([]store.Op, error) {
		if !open(h) || s.cfg.Now().Before(h.GetExpireTime().AsTime()) {
			return nil, fault.New(codes.FailedPrecondition, "not due")
		}
		h.State = typesv1.HoldState_HOLD_STATE_EXPIRED
		return nil, nil
	})
	if c := fault.CodeOf(err); c == codes.FailedPrecondition || c == codes.NotFound {
		return nil // another replica was first
	}
	return err
}

func (s *Service) forget(ctx context.Context, h *typesv1.Hold) error {
	ops := []store.Op{{Key: holdKey(h.GetId()), Delete: true, If: store.AnyRevision}}
	question := store.Key{Kind: questionKind, Name: hex.EncodeToString(h.GetDigest())}
	e, err := s.cfg.Store.Get(ctx, question)
	switch {
	case err == nil && string(e.Value) == h.GetId():
		ops = append(ops, store.Op{Key: question, Delete: true, If: e.Revision})
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return err
	}
	if _, err = s.cfg.Store.Commit(ctx, ops...); store.IsConflict(err) {
		return nil
	}
	return err
}
