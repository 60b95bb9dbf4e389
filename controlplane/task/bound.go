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

	"google.golang.org/grpc/codes"
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
	// closedKind tells which tickets and jobs are closed, or were until lately: a
	// typesv1.Closed by a hash of what it names.
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
	c, e, err := s.told(ctx, g.GetBound())
	switch {
	case err != nil:
		return nil, err
	case c != nil && !c.GetReopened():
		return nil, fault.Refused(&postern.Refusal{Code: postern.CodeNoGrant, Rule: g.GetBinding(), Reason: closedText(g.GetBound()), Hint: "name one that is open"})
	}
	return []store.Op{{Key: e.Key, Check: true, If: e.Revision}}, nil
}

// told is what is known of a ticket or job, and where; nil where nothing is.
func (s *Service) told(ctx context.Context, ref *typesv1.GrantReference) (*typesv1.Closed, store.Entry, error) {
	e, err := s.cfg.Store.Get(ctx, closedKey(ref))
	if errors.Is(err, store.ErrNotFound) {
		return nil, store.Entry{Key: closedKey(ref)}, nil
	}
	if err != nil {
		return nil, e, fmt.Errorf("read %s: %w", closedKey(ref), err)
	}
	c, err := decodeClosed(e)
	return c, e, err
}

func decodeClosed(e store.Entry) (*typesv1.Closed, error) {
	c := &typesv1.Closed{}
	if err := proto.Unmarshal(e.Value, c); err != nil {
		return nil, fmt.Errorf("read %s: %w", e.Key, err)
	}
	return c, nil
}

// Close writes down that a ticket or job is closed since an instant, together with more:
// every replica then ends its grants, and no further one is made. Closing what is closed
// changes nothing but more. Aborted is the code of the error where something later is known
// of it, so that messages which overtake each other leave it as it is.
func (s *Service) Close(ctx context.Context, ref *typesv1.GrantReference, at time.Time, by audit.Entry, more ...store.Op) error {
	by.Action = "reference.close"
	return s.tell(ctx, &typesv1.Closed{What: ref, Time: timestamppb.New(at)}, by, more)
}

// Reopen is Close for what is open again; grants that ended stay over. What was closed and
// opened at the same instant is closed.
func (s *Service) Reopen(ctx context.Context, ref *typesv1.GrantReference, at time.Time, by audit.Entry, more ...store.Op) error {
	by.Action = "reference.reopen"
	return s.tell(ctx, &typesv1.Closed{What: ref, Time: timestamppb.New(at), Reopened: true}, by, more)
}

func (s *Service) tell(ctx context.Context, now *typesv1.Closed, by audit.Entry, more []store.Op) error {
	ref, at := now.GetWhat(), now.GetTime().AsTime()
	by.Object, by.Outcome, by.Detail = "hook/"+ref.GetHook(), "ok", map[string]any{"ref": ref.GetRef(), "time": at}
	now.KeepUntil = timestamppb.New(s.cfg.Now().Add(keepClosed))
	value, err := proto.Marshal(now)
	if err != nil {
		return fmt.Errorf("%s %s: %w", by.Action, ref.GetRef(), err)
	}
	_, err = store.Again(func() (int64, error) {
		was, e, err := s.told(ctx, ref)
		if err != nil {
			return 0, err
		}
		if d := at.Compare(was.GetTime().AsTime()); was != nil && (d < 0 || d == 0 && now.GetReopened() && !was.GetReopened()) {
			return 0, fault.New(codes.Aborted, "of %s something is known already that came after", ref.GetRef())
		}
		return s.cfg.Audit.Commit(ctx, by, append(more, store.Op{Key: e.Key, Value: value, If: e.Revision})...)
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", by.Action, ref.GetRef(), err)
	}
	return nil
}

// closed reports whether what a grant is bound to is closed, as this replica has heard.
func (s *Service) closed(g *typesv1.Grant) (bool, error) {
	if g.GetBound() == nil {
		return false, nil
	}
	e, ok := s.cache.View().Get(closedKey(g.GetBound()))
	if !ok {
		return false, nil
	}
	c, err := decodeClosed(e)
	return err == nil && !c.GetReopened(), err
}

// forgetClosed forgets what was closed long ago.
func (s *Service) forgetClosed(ctx context.Context) error {
	for e := range s.cache.View().All(closedKind) {
		c, err := decodeClosed(e)
		if err != nil {
			return err
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
