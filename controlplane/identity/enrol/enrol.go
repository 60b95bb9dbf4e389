// Package enrol gives a process the name of a node: a join token, used once, is traded
// for a certificate, and a current certificate for the next one. It writes Node
// objects. Keys and signatures are authority's; who may make join tokens is the API's.
package enrol

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	joinKind = "join"
	nodeKind = "node"

	// Registered is what the audit log calls it when a node has enrolled.
	Registered = "node.register"

	defaultTTL = 10 * time.Minute
	maxTTL     = time.Hour

	maxLabels    = 64
	maxEndpoints = 16
	maxTextBytes = 256 // a label, a region, an address
	maxHPKEBytes = 4 << 10
)

// A Committer makes changes together with the audit entry that tells of them.
type Committer interface {
	Commit(ctx context.Context, e audit.Entry, ops ...store.Op) (revision int64, err error)
}

// Config is what a Service needs; everything but Now and Reserved is required.
type Config struct {
	Store     store.Store
	Authority *authority.Authority
	Snapshot  func() *policy.Snapshot
	Audit     Committer
	// Reserved are the control plane's own host names, for which no node gets a
	// certificate. Loopback addresses are no secret of anybody and never reserved.
	Reserved []string
	Now      func() time.Time
	Logger   *slog.Logger
}

// Service implements EnrolService. It is safe for concurrent use.
type Service struct {
	nodev1.UnimplementedEnrolServiceServer
	cfg Config
}

var _ nodev1.EnrolServiceServer = (*Service)(nil)

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg}
}

// join is a join token as the store has it.
type join struct {
	Hash    []byte // SHA-256 of the token
	Name    string
	Region  string
	Labels  map[string]string
	Role    string
	Expires time.Time
	By      string
}

// CreateJoinToken makes a one-time token for a node. By is who asks, for the audit log.
func (s *Service) CreateJoinToken(ctx context.Context, by, address string, req *apiv1.CreateJoinTokenRequest) (*apiv1.CreateJoinTokenResponse, error) {
	ttl := defaultTTL
	if req.GetTtl() != nil {
		ttl = req.GetTtl().AsDuration()
	}
	if v := checkJoin(req, ttl); len(v) > 0 {
		return nil, fault.Invalid(v...)
	}
	id, token := newToken(s.cfg.Authority.Pin())
	expires := s.cfg.Now().Add(ttl)
	value, err := json.Marshal(join{Hash: hashToken(token), Name: req.GetName(), Region: req.GetRegion(), Labels: req.GetLabels(), Role: req.GetRole(), Expires: expires, By: by})
	if err != nil {
		return nil, fmt.Errorf("create join token: %w", err)
	}
	_, err = s.cfg.Audit.Commit(ctx, audit.Entry{
		Actor: by, Address: address, Action: "node.create-join-token", Object: nodeKind + "/" + req.GetName(), Outcome: "ok",
		Detail: map[string]any{"token": id, "region": req.GetRegion(), "labels": req.GetLabels(), "role": req.GetRole(), "expires": expires},
	}, store.Op{Key: store.Key{Kind: joinKind, Name: id}, Value: value, If: 0})
	if err != nil {
		return nil, fmt.Errorf("create join token: %w", err)
	}
	return &apiv1.CreateJoinTokenResponse{Token: token, ExpireTime: timestamppb.New(expires)}, nil
}

func checkJoin(req *apiv1.CreateJoinTokenRequest, ttl time.Duration) []fault.Violation {
	var v []fault.Violation
	if err := object.CheckName(req.GetName()); err != nil {
		v = append(v, fault.Violation{Field: "name", Reason: err.Error()})
	}
	if ttl <= 0 || ttl > maxTTL {
		v = append(v, fault.Violation{Field: "ttl", Reason: fmt.Sprintf("%s is not between 0 and %s", ttl, maxTTL)})
	}
	if r := req.GetRole(); r != "" && r != postern.RoleWall {
		v = append(v, fault.Violation{Field: "role", Reason: fmt.Sprintf("%q is not known; leave it out for a node, or say %s", r, postern.RoleWall)})
	}
	if len(req.GetRegion()) > maxTextBytes {
		v = append(v, fault.Violation{Field: "region", Reason: "is too long"})
	}
	if len(req.GetLabels()) > maxLabels {
		v = append(v, fault.Violation{Field: "labels", Reason: fmt.Sprintf("are more than %d", maxLabels)})
	}
	for k, val := range req.GetLabels() {
		if k == "" || len(k) > maxTextBytes || len(val) > maxTextBytes {
			v = append(v, fault.Violation{Field: "labels", Reason: "have an empty or overlong entry"})
		}
	}
	return v
}

// errJoin is the one answer for every join token that does not do, so that a thief
// does not learn why.
func errJoin() error {
	return fault.New(codes.Unauthenticated, "this join token is wrong, used, or over; make a new one: postern nodes enrol NAME").WithKind(postern.CodeBadToken.String())
}

// Register implements EnrolService. A name that exists already goes over to the new
// certificate, and the old one is refused from then on.
func (s *Service) Register(ctx context.Context, req *nodev1.RegisterRequest) (*nodev1.RegisterResponse, error) {
	id, err := tokenID(req.GetJoinToken())
	if err != nil {
		return nil, errJoin()
	}
	key := store.Key{Kind: joinKind, Name: id}
	entry, err := s.cfg.Store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, errJoin()
	}
	if err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	var j join
	if err := json.Unmarshal(entry.Value, &j); err != nil {
		return nil, fmt.Errorf("register: %s: %w", key, err)
	}
	if !sameHash(j.Hash, hashToken(req.GetJoinToken())) || !s.cfg.Now().Before(j.Expires) {
		return nil, errJoin()
	}
	if req.GetName() != j.Name {
		return nil, fault.New(codes.PermissionDenied, "this join token is for the node %q, not for %q", j.Name, req.GetName())
	}
	name := postern.NodeName(j.Name)
	if err := s.locked(name); err != nil {
		return nil, err
	}
	certs, err := s.issue(name, req)
	if err != nil {
		return nil, err
	}
	node, revision, err := s.node(ctx, name)
	if err != nil {
		return nil, err
	}
	if node == nil {
		o := object.Bare(nodeKind, j.Name)
		node = o.GetNode()
		node.Metadata.Uid = rand.Text()
		node.Metadata.CreatedBy = j.By
		node.Metadata.CreateTime = timestamppb.New(s.cfg.Now())
	}
	if j.Role != "" && len(req.GetEndpoints()) > 0 {
		return nil, fault.New(codes.PermissionDenied, "this join token is for a %s, which serves no clients", j.Role)
	}
	node.Metadata.Labels = j.Labels
	node.Spec = &typesv1.NodeSpec{Region: j.Region, Role: j.Role, PublicKeys: node.GetSpec().GetPublicKeys()}
	op, err := s.put(node, revision, certs, req.GetEndpoints(), req.GetHpkeKey())
	if err != nil {
		return nil, err
	}
	_, err = s.cfg.Audit.Commit(ctx, audit.Entry{
		Actor: nodeKind + "/" + j.Name, Action: Registered, Object: nodeKind + "/" + j.Name, Outcome: "ok",
		Detail: map[string]any{"token": id, "by": j.By, "serial": node.GetSpec().GetSerial(), "again": revision != 0, "endpoints": req.GetEndpoints()},
	}, store.Op{Key: key, Delete: true, If: entry.Revision}, op)
	if store.IsConflict(err) {
		return nil, errJoin() // somebody else used it in between
	}
	if err != nil {
		return nil, fmt.Errorf("register: %w", err)
	}
	s.cfg.Logger.InfoContext(ctx, "node registered", "node", j.Name, "serial", node.GetSpec().GetSerial())
	return &nodev1.RegisterResponse{
		Certificate: authority.PEM(certs.client), ServerCertificate: authority.PEM(certs.server), Ca: s.cfg.Authority.Bundle(),
		Name: j.Name, Region: j.Region, Labels: maps.Clone(j.Labels), SshHostCertificate: certs.sshHost,
	}, nil
}

// node reads a Node object, or nil where there is none; revision is 0 then.
func (s *Service) node(ctx context.Context, name postern.NodeName) (*typesv1.Node, int64, error) {
	e, err := s.cfg.Store.Get(ctx, store.Key{Kind: nodeKind, Name: string(name)})
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read node %s: %w", name, err)
	}
	o, err := store.DecodeObject(e)
	if err != nil {
		return nil, 0, fmt.Errorf("read node %s: %w", name, err)
	}
	return o.GetNode(), e.Revision, nil
}

// put sets what a node's certificates and endpoints are now.
func (s *Service) put(n *typesv1.Node, revision int64, c certs, endpoints map[string]string, hpkeKey []byte) (store.Op, error) {
	keyID, err := authority.KeyID(c.client.PublicKey)
	if err != nil {
		return store.Op{}, fmt.Errorf("node %s: %w", n.GetMetadata().GetName(), err)
	}
	if n.Spec == nil {
		n.Spec = &typesv1.NodeSpec{}
	}
	public, err := x509.MarshalPKIXPublicKey(c.client.PublicKey)
	if err != nil {
		return store.Op{}, fmt.Errorf("node %s: %w", n.GetMetadata().GetName(), err)
	}
	n.Spec.PublicKeys = withKey(n.Spec.PublicKeys, public)
	n.Spec.Serial = authority.Serial(c.client)
	n.Spec.KeyId = keyID
	n.Spec.Endpoints = endpoints
	n.Spec.HpkeKey = hpkeKey
	n.Metadata.UpdateTime = timestamppb.New(s.cfg.Now())
	key, value, err := store.EncodeObject(&typesv1.Object{Kind: &typesv1.Object_Node{Node: n}})
	if err != nil {
		return store.Op{}, fmt.Errorf("node %s: %w", n.GetMetadata().GetName(), err)
	}
	return store.Op{Key: key, Value: value, If: revision}, nil
}

// maxKeys is how many public keys of a node are remembered: recordings are sealed with
// the key of the day, and may arrive days later.
const maxKeys = 16

// withKey puts a key before those that are known.
func withKey(known [][]byte, key []byte) [][]byte {
	known = slices.DeleteFunc(known, func(k []byte) bool { return bytes.Equal(k, key) })
	known = append([][]byte{key}, known...)
	return known[:min(len(known), maxKeys)]
}

func (s *Service) locked(name postern.NodeName) error {
	snapshot := s.cfg.Snapshot()
	if snapshot == nil || snapshot.Version().IsZero() {
		return fault.New(codes.Unavailable, "the control plane has not read its policy yet; try again").WithKind(postern.CodeUnavailable.String())
	}
	reason, lock, ok := snapshot.Barred(&postern.Subject{}, "", "", name, s.cfg.Now())
	if !ok {
		return nil
	}
	return fault.New(codes.PermissionDenied, "%s (lock %s)", reason, lock).WithKind(postern.CodeKilled.String())
}

type certs struct {
	client, server *x509.Certificate
	sshHost        []byte // wire form; nil where there is no key or no name to certify
}
