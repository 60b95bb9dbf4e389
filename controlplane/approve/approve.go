// Package approve parks things for people and keeps their answers: grants, sessions and
// statements. An approval is bound by a digest to just what was asked, and is used at
// most once. When something must be parked is policy's to say; what an approved grant
// becomes is the task package's; telling people is done by those who watch.
package approve

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
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
)

const (
	// kind is the kind of holds in the store: a typesv1.Hold by its id.
	kind = "hold"
	// grantKind is that of the grants they are under: a typesv1.Grant by its id.
	grantKind = "grant"
	// questionKind points from the digest of a question to the hold that asks it last,
	// so that the same question is never asked twice at once.
	questionKind = "question"

	defaultTimeout = 15 * time.Minute
)

// A Committer makes changes together with the audit entry that tells of them.
type Committer interface {
	Commit(ctx context.Context, e audit.Entry, ops ...store.Op) (revision int64, err error)
}

// Config is what a Service needs; everything but Changed, Sessions and Now is required.
type Config struct {
	Store    store.Store
	Snapshot func() *policy.Snapshot
	// Changed returns a channel that gets an element after each new Snapshot, and a function
	// that ends it; nil where there is only one.
	Changed func() (<-chan struct{}, func())
	Audit   Committer
	URL     func(id string) string // where people answer a hold
	// Sessions are a subject's newest ones under a task, and whether there are more; nil
	// where none are on record.
	Sessions func(ctx context.Context, subject, task string) (sessions []*typesv1.Session, more bool, err error)
	Now      func() time.Time // time.Now where nil
	Logger   *slog.Logger
}

// Service keeps holds. It is safe for concurrent use, and by several replicas over one
// store. Errors for users are *fault.Error.
type Service struct {
	cfg    Config
	hub    *hub
	settle Settle
}

// Settle says what else must change in the same transaction as a hold of scope grant
// that is settled; an error keeps it as it was.
type Settle func(ctx context.Context, h *typesv1.Hold) ([]store.Op, error)

// New makes a Service. It must Run for anybody to be told of changes.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func() (<-chan struct{}, func()) { return nil, func() {} }
	}
	return &Service{cfg: cfg, hub: newHub()}
}

// OnSettle sets what happens to grants; it must be called before the Service is used.
func (s *Service) OnSettle(fn Settle) { s.settle = fn }

// URL is where people answer a hold.
func (s *Service) URL(id string) string { return s.cfg.URL(id) }

// A Caller is a person who calls the API.
type Caller struct {
	Subject postern.Subject
	Address string
}

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// newID is a random id of 80 bits with a prefix.
func newID(prefix string) string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + idEncoding.EncodeToString(b[:])
}

// Waiting reports whether people can still answer h.
func Waiting(h *typesv1.Hold) bool { return h.GetState() == typesv1.HoldState_HOLD_STATE_PENDING }

// scopeGrant reports whether the yes to h is used the moment it is given.
func scopeGrant(h *typesv1.Hold) bool { return h.GetScope() == string(postern.ScopeGrant) }

// open reports whether h can still change.
func open(h *typesv1.Hold) bool {
	return Waiting(h) || h.GetState() == typesv1.HoldState_HOLD_STATE_APPROVED && !scopeGrant(h)
}

func stateWord(h *typesv1.Hold) string {
	return strings.ToLower(strings.TrimPrefix(h.GetState().String(), "HOLD_STATE_"))
}

// policy is the policy as it stands; before it has been read nothing is decided.
func (s *Service) policy() (*policy.Snapshot, error) {
	p := s.cfg.Snapshot()
	if p == nil || p.Version().IsZero() {
		return nil, fault.New(codes.Unavailable, "the control plane has not read its policy yet; try again").WithKind(postern.CodeUnavailable.String())
	}
	return p, nil
}

func holdKey(id string) store.Key { return store.Key{Kind: kind, Name: id} }

func errNoHold(id string) error {
	return fault.New(codes.NotFound, "there is no hold %.60q that you may see", id)
}

func (s *Service) load(ctx context.Context, id string) (*typesv1.Hold, int64, error) {
	if id == "" || len(id) > 64 {
		return nil, 0, errNoHold(id)
	}
	e, err := s.cfg.Store.Get(ctx, holdKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, errNoHold(id)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read hold %s: %w", id, err)
	}
	h, err := decode(e)
	return h, e.Revision, err
}

// Find is a hold as it is on file, for the control plane itself. A *fault.Error of code
// NotFound says that there is none.
func (s *Service) Find(ctx context.Context, id string) (*typesv1.Hold, error) {
	h, _, err := s.load(ctx, id)
	return h, err
}

func decode(e store.Entry) (*typesv1.Hold, error) {
	h := &typesv1.Hold{}
	if err := proto.Unmarshal(e.Value, h); err != nil {
		return nil, fmt.Errorf("read %s: %w", e.Key, err)
	}
	return h, nil
}

// put writes a hold that has the revision given; 0 is a new one.
func put(h *typesv1.Hold, revision int64) (store.Op, error) {
	value, err := proto.Marshal(h)
	if err != nil {
		return store.Op{}, fmt.Errorf("write hold %s: %w", h.GetId(), err)
	}
	most := store.MaxValueBytes
	if revision == 0 {
		most -= room
	}
	if len(value) > most {
		return store.Op{}, fault.New(codes.ResourceExhausted, "what is asked is too large to be shown to people").WithKind(postern.CodeLimit.String())
	}
	return store.Op{Key: holdKey(h.GetId()), Value: value, If: revision}, nil
}

// grant reads the grant that a hold is under.
func (s *Service) grant(ctx context.Context, id string) (*typesv1.Grant, int64, error) {
	e, err := s.cfg.Store.Get(ctx, store.Key{Kind: grantKind, Name: id})
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, fault.New(codes.NotFound, "grant %.60q is gone", id).WithKind(postern.CodeKilled.String())
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read grant %s: %w", id, err)
	}
	g := &typesv1.Grant{}
	if err := proto.Unmarshal(e.Value, g); err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", e.Key, err)
	}
	return g, e.Revision, nil
}

// change moves one hold by fn, which is given a copy of it and says what else must
// hold; where others get ahead it is asked again. Every change but the first goes this
// way, and so no two can both win.
func (s *Service) change(ctx context.Context, id string, entry audit.Entry, fn func(h *typesv1.Hold) ([]store.Op, error)) (*typesv1.Hold, error) {
	h, err := store.Again(func() (*typesv1.Hold, error) { return s.changeOnce(ctx, id, entry, fn) })
	if store.IsConflict(err) {
		return nil, fault.Wrap(err, codes.Aborted, "hold %s changes too fast; try again", id)
	}
	return h, err
}

func (s *Service) changeOnce(ctx context.Context, id string, entry audit.Entry, fn func(h *typesv1.Hold) ([]store.Op, error)) (*typesv1.Hold, error) {
	was, revision, err := s.load(ctx, id)
	if err != nil {
		return nil, err
	}
	h := proto.CloneOf(was)
	h.ApproverGroups = s.asks(h)
	ops, err := fn(h)
	if err != nil {
		return nil, err
	}
	if scopeGrant(h) && h.GetState() != was.GetState() && s.settle != nil {
		more, err := s.settle(ctx, h)
		if err != nil {
			return nil, err
		}
		ops = append(ops, more...)
	}
	op, err := put(h, revision)
	if err != nil {
		return nil, err
	}
	entry.Object, entry.Outcome = kind+"/"+id, "ok"
	entry.Detail = map[string]any{"state": stateWord(h), "scope": h.GetScope(), "subject": h.GetSubject(), "grant": h.GetGrant(), "task": h.GetTask(), "rule": h.GetRule(), "approvals": said(h)}
	if _, err = s.cfg.Audit.Commit(ctx, entry, append(ops, op)...); err != nil {
		return nil, fmt.Errorf("change hold %s: %w", id, err)
	}
	return h, nil
}

// said are the answers as the audit log keeps them.
func said(h *typesv1.Hold) []string {
	var out []string
	for _, a := range h.GetApprovals() {
		word := "no"
		if a.GetApproved() {
			word = "yes"
		}
		out = append(out, a.GetSubject()+": "+word)
	}
	return out
}
