// Package entrance lets browsers in to web apps behind nodes. A node that is asked by a
// browser with nothing to show sends it to a page here, on which its person signs in; the
// browser comes back to the node with a code, which only the browser in which all began can
// turn into a session: a token for one task on one resource, kept here by its hash.
package entrance

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// Path is where browsers sign in; a ticket follows.
	Path = "/web/enter/"
	// Back is where nodes are come back to.
	Back = "/.postern/callback"
	// TokenPrefix begins the tokens of browsers' sessions.
	TokenPrefix = "psb_"
	// kind is the store's kind of codes and sessions.
	kind = "browser"

	ticketTime = 10 * time.Minute // to sign in
	codeTime   = time.Minute      // to come back
	// sessionTime is how long somebody stays signed in at an app, whatever they do: groups
	// are those of the sign-in.
	sessionTime = time.Hour

	maxHost     = 255
	maxTicket   = 2 << 10
	maxVerifier = 128
)

// Committer makes changes together with the audit entry that tells of them.
type Committer interface {
	Commit(ctx context.Context, e audit.Entry, ops ...store.Op) (int64, error)
}

// Config is what a Service works with; everything is required.
type Config struct {
	URL   string // of the control plane, as browsers reach it
	Store store.Store
	Audit Committer
	// Sign and Keys make tickets and know them again.
	Sign func(claims any) (string, error)
	Keys func() jose.JSONWebKeySet
	// Resource is the resource as it is enforced, if the node may serve it.
	Resource func(node postern.NodeName, r postern.ResourceName) (*typesv1.Resource, bool)
	// Ended tells nodes, by its hash, of a token that opens nothing any more; what it has
	// opened then ends. It returns when they have heard of it, or cannot.
	Ended func(ctx context.Context, hash [sha256.Size]byte)
	Now   func() time.Time
}

// A Service lets browsers in. It is safe for concurrent use, and by several replicas over
// one store.
type Service struct{ cfg Config }

// New makes a Service.
func New(cfg Config) *Service { return &Service{cfg} }

// a ticket is a sign-in that is under way, in the link itself: strangers can begin one, and
// leave nothing behind.
type ticket struct {
	jwt.Claims
	Task      string `json:"task"`
	Resource  string `json:"resource"`
	Host      string `json:"host"`
	Challenge []byte `json:"challenge"`
}

// kept is a code or a session, as the store has it by its hash.
type kept struct {
	Subject   postern.Subject `json:"subject"`
	Task      string          `json:"task"`
	Resource  string          `json:"resource"`
	Host      string          `json:"host"`
	Challenge []byte          `json:"challenge,omitempty"` // of a code; a session has none
	Expires   time.Time       `json:"expires"`
}

func (s *Service) audience() string { return s.cfg.URL + Path }

// Begin says where a browser signs in. Errors are *fault.Error.
func (s *Service) Begin(_ context.Context, node postern.NodeName, req *nodev1.BeginBrowserRequest) (*nodev1.BeginBrowserResponse, error) {
	if object.CheckName(req.GetTask()) != nil || object.CheckName(req.GetResource()) != nil || len(req.GetChallenge()) != sha256.Size || len(req.GetHost()) > maxHost {
		return nil, fault.New(codes.InvalidArgument, "this is no sign-in of a browser").WithKind(postern.CodeNoGrant.String())
	}
	// A node can have people sent back to what it serves, and to nothing else.
	r, ok := s.cfg.Resource(node, postern.ResourceName(req.GetResource()))
	if label, _, _ := strings.Cut(req.GetHost(), "."); !ok || r.GetSpec().GetProtocol() != string(postern.HTTP) || label != req.GetTask()+"--"+req.GetResource() {
		return nil, fault.New(codes.PermissionDenied, "node %q does not serve %q as %q", node, req.GetResource(), req.GetHost()).WithKind(postern.CodeNoGrant.String())
	}
	now := s.cfg.Now()
	link, err := s.cfg.Sign(ticket{
		Claims: jwt.Claims{Issuer: s.cfg.URL, Audience: jwt.Audience{s.audience()}, IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(ticketTime))},
		Task:   req.GetTask(), Resource: req.GetResource(), Host: req.GetHost(), Challenge: req.GetChallenge(),
	})
	if err != nil {
		return nil, fault.Wrap(err, codes.Internal, "the sign-in could not be begun")
	}
	return &nodev1.BeginBrowserResponse{Url: s.audience() + link}, nil
}

// Enter gives who is signed in on the pages a code for what the ticket says, and returns
// where their browser takes it. Errors are *fault.Error.
func (s *Service) Enter(ctx context.Context, link string, sub postern.Subject, address string) (string, error) {
	if len(link) > maxTicket {
		return "", fault.New(codes.InvalidArgument, "this link is none of ours")
	}
	signed, err := jwt.ParseSigned(link, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return "", fault.Wrap(err, codes.InvalidArgument, "this link is none of ours")
	}
	var t ticket
	if err := signed.Claims(s.cfg.Keys(), &t); err != nil {
		return "", fault.Wrap(err, codes.InvalidArgument, "this link is none of ours")
	}
	if err := t.ValidateWithLeeway(jwt.Expected{Issuer: s.cfg.URL, AnyAudience: jwt.Audience{s.audience()}, Time: s.cfg.Now()}, 0); err != nil {
		return "", fault.Wrap(err, codes.InvalidArgument, "this link is over; open the app's page again")
	}
	if err := s.sweep(ctx); err != nil {
		return "", err
	}
	code := rand.Text()
	op, err := put(code, kept{Subject: sub, Task: t.Task, Resource: t.Resource, Host: t.Host, Challenge: t.Challenge, Expires: s.cfg.Now().Add(codeTime)})
	if err != nil {
		return "", err
	}
	_, err = s.cfg.Audit.Commit(ctx, audit.Entry{
		Actor: sub.Name, Address: address, Action: "browser.signin", Object: "task/" + t.Task, Outcome: "ok", Detail: map[string]any{"resource": t.Resource, "host": t.Host},
	}, op)
	if err != nil {
		return "", lost(err)
	}
	return "https://" + t.Host + Back + "?" + url.Values{"code": {code}}.Encode(), nil
}

// Finish trades a code for a session, once. Errors are *fault.Error.
func (s *Service) Finish(ctx context.Context, node postern.NodeName, req *nodev1.FinishBrowserRequest) (*nodev1.FinishBrowserResponse, error) {
	if len(req.GetCode()) > maxVerifier || len(req.GetVerifier()) > maxVerifier {
		return nil, bad()
	}
	k, revision, err := s.find(ctx, req.GetCode())
	if err != nil {
		return nil, err
	}
	challenge := sha256.Sum256([]byte(req.GetVerifier()))
	if k == nil || len(k.Challenge) == 0 || k.Host != req.GetHost() || subtle.ConstantTimeCompare(k.Challenge, challenge[:]) != 1 {
		return nil, bad()
	}
	if _, ok := s.cfg.Resource(node, postern.ResourceName(k.Resource)); !ok {
		return nil, bad()
	}
	token := TokenPrefix + rand.Text()
	session := *k
	session.Challenge, session.Expires = nil, s.cfg.Now().Add(sessionTime)
	op, err := put(token, session)
	if err != nil {
		return nil, err
	}
	if _, err := s.cfg.Store.Commit(ctx, store.Op{Key: keyOf(req.GetCode()), Delete: true, If: revision}, op); err != nil {
		if store.IsConflict(err) {
			return nil, bad() // it was used already
		}
		return nil, lost(err)
	}
	return &nodev1.FinishBrowserResponse{Token: token, ExpireTime: timestamppb.New(session.Expires)}, nil
}

// Subject is whose session a token is of, for the one task and resource that it is for.
// Errors are *fault.Error.
func (s *Service) Subject(ctx context.Context, token, task, resource string) (postern.Subject, error) {
	if len(token) > maxVerifier || !strings.HasPrefix(token, TokenPrefix) {
		return postern.Subject{}, bad()
	}
	k, _, err := s.find(ctx, token)
	if err != nil {
		return postern.Subject{}, err
	}
	if k == nil || len(k.Challenge) > 0 || k.Task != task || k.Resource != resource || k.Subject.Name == "" {
		return postern.Subject{}, bad()
	}
	return k.Subject, nil
}

// End ends the session of a token, and what it opened at nodes; one that is over is no error.
func (s *Service) End(ctx context.Context, token string) error {
	if len(token) > maxVerifier || !strings.HasPrefix(token, TokenPrefix) {
		return bad()
	}
	k, _, err := s.find(ctx, token)
	if err != nil {
		return err
	}
	if k != nil {
		_, err := s.cfg.Audit.Commit(ctx, audit.Entry{
			Actor: k.Subject.Name, Action: "browser.signout", Object: "task/" + k.Task, Outcome: "ok", Detail: map[string]any{"resource": k.Resource, "host": k.Host},
		}, store.Op{Key: keyOf(token), Delete: true, If: store.AnyRevision})
		if err != nil {
			return lost(err)
		}
	}
	s.cfg.Ended(ctx, sha256.Sum256([]byte(token)))
	return nil
}

func bad() error {
	return fault.New(codes.Unauthenticated, "this sign-in is over, or did not begin in this browser").WithKind(postern.CodeBadToken.String())
}

func lost(err error) error {
	return fault.Wrap(err, codes.Unavailable, "the control plane has lost its store; try again").WithKind(postern.CodeUnavailable.String())
}

// find is what the store has for a code or token, with its revision; nil where there is
// nothing, or it is over.
func (s *Service) find(ctx context.Context, secret string) (*kept, int64, error) {
	e, err := s.cfg.Store.Get(ctx, keyOf(secret))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, lost(err)
	}
	var k kept
	if err := json.Unmarshal(e.Value, &k); err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", e.Key, err)
	}
	if !s.cfg.Now().Before(k.Expires) {
		return nil, 0, nil
	}
	return &k, e.Revision, nil
}

// sweep forgets what is over.
func (s *Service) sweep(ctx context.Context) error {
	all, _, err := s.cfg.Store.List(ctx, kind, "", 0)
	if err != nil {
		return lost(err)
	}
	for _, e := range all {
		var k kept
		if json.Unmarshal(e.Value, &k) == nil && s.cfg.Now().Before(k.Expires) {
			continue
		}
		if _, err := s.cfg.Store.Commit(ctx, store.Op{Key: e.Key, Delete: true, If: store.AnyRevision}); err != nil {
			return lost(err)
		}
	}
	return nil
}

func put(secret string, k kept) (store.Op, error) {
	value, err := json.Marshal(k)
	return store.Op{Key: keyOf(secret), Value: value}, err
}

func keyOf(secret string) store.Key {
	sum := sha256.Sum256([]byte(secret))
	return store.Key{Kind: kind, Name: hex.EncodeToString(sum[:])}
}
