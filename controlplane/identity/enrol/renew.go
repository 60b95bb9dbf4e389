package enrol

import (
	"context"
	"crypto/ecdh"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/conf"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// Renew implements EnrolService. The caller's certificate must be the node's current
// one: an older one means that somebody else has renewed it since, which one of two
// holders of one key does. The one exception is a node that did not hear the answer and
// asks again for the very key that it has been certified for already: only it can.
func (s *Service) Renew(ctx context.Context, req *nodev1.RenewRequest) (*nodev1.RenewResponse, error) {
	cert, address := clientCert(ctx)
	name, err := s.cfg.Authority.NodeFromCert(cert)
	if err != nil {
		return nil, fault.Wrap(err, codes.Unauthenticated, "a renewal needs the node's own client certificate").WithKind(postern.CodeBadToken.String())
	}
	node, revision, err := s.node(ctx, name)
	if err != nil {
		return nil, err
	}
	if node == nil {
		return nil, fault.New(codes.Unauthenticated, "node %q is not enrolled any more", name).WithKind(postern.CodeBadToken.String())
	}
	if err := s.locked(name); err != nil {
		return nil, err
	}
	key, err := authority.ParseCSR(req.GetCsr())
	if err != nil {
		return nil, fault.Wrap(err, codes.InvalidArgument, "csr: %s", err)
	}
	wanted, err := authority.KeyID(key)
	if err != nil {
		return nil, fmt.Errorf("renew %s: %w", name, err)
	}
	if authority.Serial(cert) != node.GetSpec().GetSerial() && wanted != node.GetSpec().GetKeyId() {
		return nil, s.superseded(ctx, name, cert, node, address)
	}
	if role := node.GetSpec().GetRole(); role != "" && len(req.GetEndpoints()) > 0 {
		return nil, fault.New(codes.PermissionDenied, "%q is a %s, which serves no clients", name, role)
	}
	if err := s.taken(ctx, name, node.GetSpec().GetEndpoints(), req.GetEndpoints()); err != nil {
		return nil, err
	}
	certs, err := s.issue(name, req)
	if err != nil {
		return nil, err
	}
	op, err := s.put(node, revision, certs, req.GetEndpoints(), req.GetHpkeKey())
	if err != nil {
		return nil, err
	}
	_, err = s.cfg.Audit.Commit(ctx, audit.Entry{
		Actor: nodeKind + "/" + string(name), Address: address, Action: "node.renew", Object: nodeKind + "/" + string(name), Outcome: "ok",
		Detail: map[string]any{"old": authority.Serial(cert), "serial": node.GetSpec().GetSerial(), "endpoints": req.GetEndpoints()},
	}, op)
	if store.IsConflict(err) {
		return nil, fault.Wrap(err, codes.Aborted, "the node changed meanwhile; try again")
	}
	if err != nil {
		return nil, fmt.Errorf("renew %s: %w", name, err)
	}
	return &nodev1.RenewResponse{Certificate: authority.PEM(certs.client), ServerCertificate: authority.PEM(certs.server), Ca: s.cfg.Authority.Bundle(), SshHostCertificate: certs.sshHost}, nil
}

// superseded tells operators of a certificate that was used after its successor was
// made, and refuses it.
func (s *Service) superseded(ctx context.Context, name postern.NodeName, cert *x509.Certificate, node *typesv1.Node, address string) error {
	reason := "a newer certificate was issued to this node already: its key was copied, or its folder or the control plane's store was put back to a backup"
	s.cfg.Logger.ErrorContext(ctx, "superseded node certificate used", "node", string(name), "serial", authority.Serial(cert), "current", node.GetSpec().GetSerial(), "address", address)
	if _, err := s.cfg.Audit.Commit(ctx, audit.Entry{
		Actor: nodeKind + "/" + string(name), Address: address, Action: "node.renew", Object: nodeKind + "/" + string(name),
		Outcome: "refused: superseded certificate",
		Detail:  map[string]any{"serial": authority.Serial(cert), "current": node.GetSpec().GetSerial()},
	}); err != nil {
		s.cfg.Logger.ErrorContext(ctx, "superseded certificate not audited", "node", string(name), "error", err)
	}
	return fault.New(codes.PermissionDenied, "%s; lock the node, find out, and enrol it anew", reason).WithKind(fault.KindSuperseded)
}

// clientCert is the certificate that TLS has verified for this call, or nil.
func clientCert(ctx context.Context) (cert *x509.Certificate, address string) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, ""
	}
	if p.Addr != nil {
		address = p.Addr.String()
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.VerifiedChains[0]) == 0 {
		return nil, address
	}
	return info.State.VerifiedChains[0][0], address
}

// asking is what a node sends to be certified.
type asking interface {
	GetCsr() []byte
	GetHpkeKey() []byte
	GetSshHostKey() []byte
	GetEndpoints() map[string]string
}

// issue makes the certificates of a node.
func (s *Service) issue(name postern.NodeName, req asking) (certs, error) {
	hosts, err := s.hosts(req.GetEndpoints())
	if err != nil {
		return certs{}, err
	}
	hpkeKey := req.GetHpkeKey()
	if len(hpkeKey) > maxHPKEBytes {
		return certs{}, fault.Invalid(fault.Violation{Field: "hpke_key", Reason: fmt.Sprintf("is longer than %d bytes", maxHPKEBytes)})
	}
	if _, err := ecdh.X25519().NewPublicKey(hpkeKey); err != nil {
		return certs{}, fault.Invalid(fault.Violation{Field: "hpke_key", Reason: "is not an X25519 public key"})
	}
	client, err := s.cfg.Authority.IssueNode(req.GetCsr(), name)
	if err != nil {
		return certs{}, fault.Wrap(err, codes.InvalidArgument, "csr: %s", err)
	}
	server, err := s.cfg.Authority.IssueListener(req.GetCsr(), name, hosts, s.below(req.GetEndpoints())...)
	if err != nil {
		return certs{}, fault.Wrap(err, codes.InvalidArgument, "endpoints: %s", err)
	}
	out := certs{client: client, server: server}
	if len(req.GetSshHostKey()) > 0 && len(hosts) > 0 {
		host, err := s.cfg.Authority.IssueSSHHost(req.GetSshHostKey(), name, hosts)
		if err != nil {
			return certs{}, fault.Wrap(err, codes.InvalidArgument, "ssh_host_key: %s", err)
		}
		out.sshHost = host.Marshal()
	}
	return out, nil
}

// hosts are the names and addresses that a node's listeners are certified for. A node
// must not be able to pass for the control plane.
func (s *Service) hosts(endpoints map[string]string) ([]string, error) {
	if len(endpoints) > maxEndpoints {
		return nil, fault.Invalid(fault.Violation{Field: "endpoints", Reason: fmt.Sprintf("are more than %d", maxEndpoints)})
	}
	var hosts []string
	for protocol, address := range endpoints {
		field := "endpoints." + protocol
		if len(protocol) > maxTextBytes || len(address) > maxTextBytes {
			return nil, fault.Invalid(fault.Violation{Field: "endpoints", Reason: "have an overlong entry"})
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, fault.Invalid(fault.Violation{Field: field, Reason: "is not HOST:PORT"})
		}
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		if ip := net.ParseIP(host); ip == nil {
			if err := authority.CheckHost(host); err != nil {
				return nil, fault.Invalid(fault.Violation{Field: field, Reason: err.Error()})
			}
		} else if ip.IsUnspecified() || ip.IsMulticast() {
			return nil, fault.Invalid(fault.Violation{Field: field, Reason: "is no address that a client can connect to"})
		}
		if s.reserved(host) {
			return nil, fault.New(codes.PermissionDenied, "endpoints: %s is the control plane's own name", host)
		}
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return hosts, nil
}

// below is the name of a listener for HTTP, below which each task has one of its own. The
// control plane's own names are never among those.
func (s *Service) below(endpoints map[string]string) []string {
	host, _, err := net.SplitHostPort(endpoints[string(postern.HTTP)])
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if err != nil || net.ParseIP(host) != nil || s.reservedBelow(host) {
		return nil
	}
	return []string{host}
}

// reservedBelow reports whether the control plane has a name in the label below host.
func (s *Service) reservedBelow(host string) bool {
	return slices.ContainsFunc(s.cfg.Reserved, func(r string) bool {
		_, parent, ok := strings.Cut(strings.ToLower(strings.TrimSuffix(r, ".")), ".")
		return ok && parent == host
	})
}

func (s *Service) reserved(host string) bool {
	if conf.Loopback(host) {
		return false
	}
	ip := net.ParseIP(host)
	for _, r := range s.cfg.Reserved {
		if other := net.ParseIP(r); ip != nil && other != nil && ip.Equal(other) || strings.EqualFold(strings.TrimSuffix(r, "."), host) {
			return true
		}
	}
	return false
}
