package task

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// closedKind tells which tickets and jobs are closed: a typesv1.Closed by a hash of
	// what it names.
	closedKind = "closed"
	// keepClosed is how long that is known: nobody takes a task for a ticket that was
	// closed longer ago without its being open again.
	keepClosed  = 90 * 24 * time.Hour
	maxRefBytes = 200
)

// reference is what a grant that was taken by an offer ends with; nil where nothing.
func reference(o policy.Offer, sub postern.Subject, reason string) (*typesv1.GrantReference, error) {
	if o.Bound == nil {
		return nil, nil
	}
	ref := &typesv1.GrantReference{Hook: o.Bound.GetHook()}
	no := &postern.Refusal{Code: postern.CodeNoGrant, Rule: o.Binding}
	if claim := o.Bound.GetClaim(); claim != "" {
		ref.Job = true
		if ref.Ref = jobText(sub.Claims[claim]); ref.Ref == "" {
			no.Reason = fmt.Sprintf("binding %q binds the task to a job, and the token does not name one in its claim %q", o.Binding, claim)
			return nil, no
		}
		return ref, nil
	}
	if ref.Ref = policy.Ticket(reason); ref.Ref == "" {
		no.Reason = fmt.Sprintf("binding %q binds the task to a ticket, and none is named", o.Binding)
		no.Hint = fmt.Sprintf("name one: postern request %s --reason \"OPS-123: why\"", o.Task)
		return nil, no
	}
	return ref, nil
}

// jobText is a claim that names a job: a text, or a whole number. It is empty where it
// names none.
func jobText(v any) string {
	switch v := v.(type) {
	case string:
		if len(v) <= maxRefBytes {
			return v
		}
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return strconv.FormatFloat(v, 'f', -1, 64)
		}
	}
	return ""
}

func closedKey(ref *typesv1.GrantReference) store.Key {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%s", len(ref.GetHook()), ref.GetHook(), ref.GetRef()))
	return store.Key{Kind: closedKind, Name: hex.EncodeToString(sum[:])}
}

func closedText(ref *typesv1.GrantReference) string {
	return fmt.Sprintf("%s is closed, as %s says", ref.GetRef(), ref.GetHook())
}

// unclosed refuses a grant whose ticket or job is closed, and returns what keeps it from
// being written once that has changed.
func (s *Service) unclosed(ctx context.Context, g *typesv1.Grant) ([]store.Op, error) {
	if g.GetBound() == nil {
		return nil, nil
	}
	key := closedKey(g.GetBound())
	switch _, err := s.cfg.Store.Get(ctx, key); {
	case err == nil:
		return nil, fault.Refused(&postern.Refusal{Code: postern.CodeNoGrant, Rule: g.GetBinding(), Reason: closedText(g.GetBound()), Hint: "name one that is open"})
	case !errors.Is(err, store.ErrNotFound):
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return []store.Op{{Key: key, Check: true, If: 0}}, nil
}

// Close writes down that a ticket or job is closed, together with more: every replica
// then ends its grants, and no further one is made. Closing what is closed changes
// nothing but more.
func (s *Service) Close(ctx context.Context, ref *typesv1.GrantReference, by audit.Entry, more ...store.Op) error {
	now := s.cfg.Now()
	value, err := proto.Marshal(&typesv1.Closed{What: ref, Time: timestamppb.New(now), KeepUntil: timestamppb.New(now.Add(keepClosed))})
	if err != nil {
		return fmt.Errorf("close %s: %w", ref.GetRef(), err)
	}
	return s.tell(ctx, ref, "reference.close", by, append(more, store.Op{Key: closedKey(ref), Value: value, If: store.AnyRevision}))
}

// Reopen takes back that a ticket or job is closed; grants that ended stay over.
func (s *Service) Reopen(ctx context.Context, ref *typesv1.GrantReference, by audit.Entry, more ...store.Op) error {
	return s.tell(ctx, ref, "reference.reopen", by, append(more, store.Op{Key: closedKey(ref), Delete: true, If: store.AnyRevision}))
}

func (s *Service) tell(ctx context.Context, ref *typesv1.GrantReference, action string, by audit.Entry, ops []store.Op) error {
	by.Action, by.Object, by.Outcome = action, "hook/"+ref.GetHook(), "ok"
	by.Detail = map[string]any{"ref": ref.GetRef()}
	if _, err := s.cfg.Audit.Commit(ctx, by, ops...); err != nil {
		return fmt.Errorf("%s %s: %w", action, ref.GetRef(), err)
	}
	return nil
}

// closed reports whether what a grant is bound to is closed, as this replica has heard.
func (s *Service) closed(g *typesv1.Grant) bool {
	if g.GetBound() == nil {
		return false
	}
	_, ok := s.cache.View().Get(closedKey(g.GetBound()))
	return ok
}

// forgetClosed forgets what was closed long ago.
func (s *Service) forgetClosed(ctx context.Context) error {
	for e := range s.cache.View().All(closedKind) {
		c := &typesv1.Closed{}
		if err := proto.Unmarshal(e.Value, c); err != nil {
			return fmt.Errorf("read %s: %w", e.Key, err)
		}
		if s.cfg.Now().Before(c.GetKeepUntil().AsTime()) {
			continue
		}
		if _, err := s.cfg.Store.Commit(ctx, store.Op{Key: e.Key, Delete: true, If: e.Revision}); err != nil && !store.IsConflict(err) {
			return err
		}
	}
	return nil
}
