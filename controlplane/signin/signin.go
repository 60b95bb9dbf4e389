// Package signin lets people in who have nothing but a terminal: they sign in at their
// issuer on any device, by a page of ours that says first who is about to be let in, for
// what, and from where. What the page says lies in the store, so that any replica shows
// it. The grant is the task package's to make.
package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/identity"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

// Kind is the store's kind of what is under way.
const Kind = "signin"

// Strangers can begin a sign-in, and so there are few at once.
const (
	maxOpen      = 500 // in all
	maxOfAddress = 5   // from one address
	maxText      = 256 // bytes of what a client says of itself
	// keepLeft is how long a sign-in that its client has left still counts: each costs the
	// issuer a code, and who hangs up and comes back would get any number.
	keepLeft = time.Minute
)

// Config is what a Service works with.
type Config struct {
	Store  store.Store
	Device func(ctx context.Context) (*identity.Device, error)
	// Open makes the grant of who has signed in.
	Open func(ctx context.Context, req *nodev1.OpenGrantRequest, node postern.NodeName) (*typesv1.SignedGrant, error)
	// URL is the page for a code.
	URL    func(code string) string
	Logger *slog.Logger
	Now    func() time.Time
}

// A Service lets people sign in. It is safe for concurrent use.
type Service struct{ cfg Config }

// New makes a Service.
func New(cfg Config) *Service { return &Service{cfg} }

// sheet is one sign-in that is under way, as the page shows it.
type sheet struct {
	Link     string    `json:"link"` // the issuer's page
	Code     string    `json:"code"`
	Task     string    `json:"task"`
	Resource string    `json:"resource,omitempty"`
	Address  string    `json:"address"`
	Program  string    `json:"program,omitempty"`
	Node     string    `json:"node"`
	Expires  time.Time `json:"expires"`
	Left     bool      `json:"left,omitempty"` // by its client: it is counted, and not shown
}

// codeForm is what issuers make codes of.
var codeForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{3,31}$`)

// SignIn begins a sign-in, has the client told where, and waits for it; it returns the
// grant of who has signed in. Ending ctx gives up. Errors are *fault.Error.
func (s *Service) SignIn(ctx context.Context, req *nodev1.SignInRequest, node postern.NodeName, show func(*nodev1.SignInPrompt) error) (*typesv1.SignedGrant, error) {
	for _, name := range []string{req.GetTask(), req.GetResource()} {
		if name != "" && object.CheckName(name) != nil || req.GetTask() == "" {
			return nil, fault.New(codes.InvalidArgument, "this is not the name of a task").WithKind(postern.CodeNoGrant.String())
		}
	}
	if err := s.few(ctx, req.GetClientAddress()); err != nil {
		return nil, err
	}
	d, err := s.cfg.Device(ctx)
	if err != nil {
		return nil, err
	}
	if !codeForm.MatchString(d.Code) {
		return nil, fault.New(codes.Unavailable, "the issuer's code cannot be shown").WithKind(postern.CodeUnavailable.String())
	}
	key := store.Key{Kind: Kind, Name: d.Code}
	sh := sheet{
		Link: d.URL, Code: d.Code, Task: req.GetTask(), Resource: req.GetResource(), Address: cut(req.GetClientAddress()), Program: cut(req.GetClientProgram()),
		Node: string(node), Expires: d.Expires,
	}
	op, err := put(key, sh, 0)
	if err != nil {
		return nil, err
	}
	if _, err := s.cfg.Store.Commit(ctx, op); err != nil {
		return nil, fault.Wrap(err, codes.Unavailable, "the sign-in could not be begun; try again").WithKind(postern.CodeUnavailable.String())
	}
	if err := show(&nodev1.SignInPrompt{Url: s.cfg.URL(d.Code), Code: d.Code, ExpireTime: timestamppb.New(d.Expires)}); err != nil {
		s.left(ctx, key, sh)
		return nil, err
	}
	token, err := d.Token(ctx)
	if err != nil && ctx.Err() != nil {
		s.left(ctx, key, sh)
		return nil, err
	}
	defer s.forget(ctx, key)
	if err != nil {
		return nil, err
	}
	return s.cfg.Open(ctx, &nodev1.OpenGrantRequest{
		Token: token, Task: req.GetTask(), Resource: req.GetResource(), ClientAddress: req.GetClientAddress(), ClientProgram: req.GetClientProgram(),
	}, node)
}

func put(k store.Key, sh sheet, revision int64) (store.Op, error) {
	value, err := json.Marshal(sh)
	if err != nil {
		return store.Op{}, fmt.Errorf("write %s: %w", k, err)
	}
	return store.Op{Key: k, Value: value, If: revision}, nil
}

// left notes that nobody waits for a sign-in any more.
func (s *Service) left(ctx context.Context, k store.Key, sh sheet) {
	sh.Left = true
	if end := s.cfg.Now().Add(keepLeft); end.Before(sh.Expires) {
		sh.Expires = end
	}
	op, err := put(k, sh, store.AnyRevision)
	if err != nil {
		op = store.Op{Key: k, Delete: true, If: store.AnyRevision}
	}
	s.over(ctx, op)
}

func (s *Service) forget(ctx context.Context, k store.Key) {
	s.over(ctx, store.Op{Key: k, Delete: true, If: store.AnyRevision})
}

// overTimeout bounds the writing down of what is over.
const overTimeout = 5 * time.Second

func (s *Service) over(ctx context.Context, op store.Op) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), overTimeout)
	defer cancel()
	if _, err := s.cfg.Store.Commit(ctx, op); err != nil {
		s.cfg.Logger.Warn("a sign-in that is over was not forgotten; the next one will see to it", "error", err)
	}
}

// few says no where too many sign-ins are under way. What is over, and was not forgotten
// by a replica that has died, it forgets.
func (s *Service) few(ctx context.Context, address string) error {
	all, _, err := s.cfg.Store.List(ctx, Kind, "", 0)
	if err != nil {
		return fault.Wrap(err, codes.Unavailable, "the sign-in could not be begun; try again").WithKind(postern.CodeUnavailable.String())
	}
	host := hostOf(address)
	open, ofAddress := 0, 0
	for _, e := range all {
		sh, err := read(e.Value)
		if err != nil || !sh.Expires.After(s.cfg.Now()) {
			s.forget(ctx, e.Key)
			continue
		}
		open++
		if hostOf(sh.Address) == host {
			ofAddress++
		}
	}
	if open >= maxOpen || ofAddress >= maxOfAddress {
		return fault.New(codes.ResourceExhausted, "too many people are signing in%s; try again in some minutes", map[bool]string{true: " from this address"}[ofAddress >= maxOfAddress]).WithKind(postern.CodeLimit.String())
	}
	return nil
}

func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

func read(value []byte) (*sheet, error) {
	sh := &sheet{}
	if err := json.Unmarshal(value, sh); err != nil {
		return nil, fmt.Errorf("a sign-in cannot be read: %w", err)
	}
	return sh, nil
}

// find is the sign-in with the code; nil where there is none.
func (s *Service) find(ctx context.Context, code string) (*sheet, error) {
	if !codeForm.MatchString(code) {
		return nil, nil
	}
	e, err := s.cfg.Store.Get(ctx, store.Key{Kind: Kind, Name: code})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sh, err := read(e.Value)
	if err != nil || sh.Left || !sh.Expires.After(s.cfg.Now()) {
		return nil, err
	}
	return sh, nil
}

// cut bounds what a client says of itself.
func cut(text string) string { return text[:min(len(text), maxText)] }
