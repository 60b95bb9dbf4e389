package controlplane

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/api/userapi"
	"github.com/posterngate/postern/controlplane/blast"
	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/controlplane/credential/sealed"
	"github.com/posterngate/postern/controlplane/credential/vault"
	"github.com/posterngate/postern/controlplane/fleet"
	"github.com/posterngate/postern/controlplane/identity"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/publish"
	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/etcd"
	"github.com/posterngate/postern/controlplane/task"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

func openStore(ctx context.Context, cfg config.Config, log *slog.Logger) (store.Store, error) {
	ec, err := storeConfig(cfg, log)
	if err != nil {
		return nil, err
	}
	return etcd.Open(ctx, ec)
}

// openKeeper opens the key file, and makes it for a store that has nothing to be opened by it.
func openKeeper(ctx context.Context, cfg config.Config, s store.Store) (sealed.Keeper, error) {
	if _, err := os.Stat(cfg.KeyFile); errors.Is(err, fs.ErrNotExist) {
		kept, err := authority.Kept(ctx, s)
		if err != nil {
			return nil, err
		}
		if kept {
			return nil, fmt.Errorf("keyFile: there is no %s, and the store has keys that only it opens; put it back, from its backup or from another replica", cfg.KeyFile)
		}
	}
	return sealed.OpenKeyFile(cfg.KeyFile)
}

// storeConfig is how to reach the store, with what the files say that the configuration names.
func storeConfig(cfg config.Config, log *slog.Logger) (etcd.Config, error) {
	ec := etcd.Config{Logger: log, Endpoints: cfg.Etcd.Endpoints, Username: cfg.Etcd.Username}
	if len(cfg.Etcd.Endpoints) == 0 {
		ec.Embedded = &etcd.Embedded{Dir: filepath.Join(cfg.DataDir, "etcd")}
		return ec, nil
	}
	if cfg.Etcd.PasswordFile != "" {
		b, err := os.ReadFile(cfg.Etcd.PasswordFile)
		if err != nil {
			return ec, fmt.Errorf("etcd.passwordFile: %w", err)
		}
		ec.Password = strings.TrimSpace(string(b))
	}
	if cfg.Etcd.CA != "" || cfg.Etcd.Cert != "" {
		tc, err := clientTLS(cfg.Etcd.CA, cfg.Etcd.Cert, cfg.Etcd.Key)
		if err != nil {
			return ec, fmt.Errorf("etcd: %w", err)
		}
		ec.TLS = tc
	}
	return ec, nil
}

func clientTLS(caFile, certFile, keyFile string) (*tls.Config, error) {
	tc := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, err
		}
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", caFile)
		}
	}
	if certFile != "" {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, err
		}
		tc.Certificates = []tls.Certificate{cert}
	}
	return tc, nil
}

// cacheKinds are what the services read from memory.
func cacheKinds() []string {
	kinds := append(userapi.PolicyKinds(), publish.Kinds()...)
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// hosts are the names of a listener's certificate, the best known first.
func hosts(l config.Listener) []string {
	out := slices.Clone(l.Hosts)
	if host, _, err := net.SplitHostPort(l.Addr); err == nil {
		if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) && !slices.Contains(out, host) {
			out = append([]string{host}, out...)
		}
	}
	if len(out) == 0 {
		out = []string{"localhost", "127.0.0.1"}
	}
	return out
}

func admins(all []config.Admin) []*typesv1.SubjectSelector {
	var out []*typesv1.SubjectSelector
	for _, a := range all {
		out = append(out, &typesv1.SubjectSelector{Subject: a.Subject, Group: a.Group})
	}
	return out
}

func (s *Server) verifier(ctx context.Context) (*identity.Verifier, error) {
	all, err := issuers(s.cfg)
	if err != nil {
		return nil, err
	}
	return identity.New(ctx, identity.Config{Issuers: all, Workloads: func() []*typesv1.Workload { return s.hub.Snapshot().Workloads() }, Logger: s.log})
}

// issuers are those of the configuration, with what the files say that it names.
func issuers(cfg config.Config) ([]identity.IssuerConfig, error) {
	var all []identity.IssuerConfig
	for _, is := range cfg.Issuers {
		one := identity.IssuerConfig{
			Name: is.Name, URL: is.URL, APIAudience: is.APIAudience, DataAudience: is.DataAudience,
			WebClientID: is.WebClientID, APIClientID: is.APIClientID, DataClientID: is.DataClientID, AllowSharedAudience: is.AllowSharedAudience,
			NameClaim: is.NameClaim, GroupsClaim: is.GroupsClaim, EmailClaim: is.EmailClaim, EmailsVerified: is.EmailsVerified,
			Algorithms: is.Algorithms, Leeway: time.Duration(is.Leeway), Scopes: is.Scopes,
		}
		if is.WebClientSecretFile != "" {
			text, err := os.ReadFile(is.WebClientSecretFile)
			if err != nil {
				return nil, fmt.Errorf("issuer %s: webClientSecretFile: %w", is.Name, err)
			}
			one.WebClientSecret = strings.TrimSpace(string(text))
		}
		if is.CA != "" {
			pem, err := os.ReadFile(is.CA)
			if err != nil {
				return nil, fmt.Errorf("issuer %s: %w", is.Name, err)
			}
			one.CA = pem
		}
		all = append(all, one)
	}
	return all, nil
}

func vaultConfig(c config.Vault, log *slog.Logger) vault.Config {
	out := vault.Config{Address: c.Address, CA: c.CA, Namespace: c.Namespace, TokenFile: c.TokenFile, TokenRole: c.TokenRole, Logger: log}
	if c.AppRole != nil {
		out.AppRole = &vault.AppRole{Mount: c.AppRole.Mount, RoleID: c.AppRole.RoleID, SecretIDFile: c.AppRole.SecretIDFile}
	}
	if c.JWT != nil {
		out.JWT = &vault.JWT{Mount: c.JWT.Mount, Role: c.JWT.Role, TokenFile: c.JWT.TokenFile}
	}
	if c.Kubernetes != nil {
		out.Kubernetes = &vault.JWT{Mount: c.Kubernetes.Mount, Role: c.Kubernetes.Role, TokenFile: c.Kubernetes.TokenFile}
	}
	return out
}

// sealer seals Secret objects for the API.
type sealer struct{ keeper sealed.Keeper }

func (s sealer) SealSecret(ctx context.Context, name string, data map[string]string) ([]byte, error) {
	o := object.Bare("secret", name).GetSecret()
	o.Spec = &typesv1.SecretSpec{Data: data}
	if err := sealed.SealSecret(ctx, s.keeper, o); err != nil {
		return nil, err
	}
	return o.GetSpec().GetSealed(), nil
}

// live ends sessions wherever they are.
type live struct{ fleet *fleet.Fleet }

func (l live) Kill(ctx context.Context, session, reason string) (string, error) {
	node, err := l.fleet.Broadcast(ctx, &nodev1.Command{Kind: &nodev1.Command_KillSession{KillSession: &nodev1.KillSession{Session: session, Reason: reason}}})
	switch {
	case node != "": // whoever did not answer does not have it
	case err != nil:
		return "", err
	default:
		return "", fault.New(codes.NotFound, "no connected node has session %q", session)
	}
	return string(node), nil
}

// last is what any replica heard of a node last.
func (s *Server) last(node postern.NodeName) (process string, joined, seen time.Time) {
	got, _ := s.fleet.Last(node)
	return got.Process, got.Joined, got.Seen
}

// recall asks a node for what it does not use of a grant's budget.
func (s *Server) recall(node postern.NodeName, grant postern.GrantID) {
	s.fleet.Tell(node, &nodev1.Command{Kind: &nodev1.Command_ReturnBudget{ReturnBudget: &nodev1.ReturnBudget{Grant: string(grant)}}})
}

// lending answers what may be lent, from memory.
type lending struct{ s *Server }

func (l lending) Resource(node postern.NodeName, r postern.ResourceName) (*typesv1.Resource, bool) {
	res, ok := l.s.hub.Snapshot().Resource(r)
	if !ok {
		return nil, false
	}
	e, ok := l.s.cache.Get(store.Key{Kind: "node", Name: string(node)})
	if !ok {
		return nil, false
	}
	o, err := store.DecodeObject(e)
	if err != nil || !publish.Reaches(res, o.GetNode()) {
		return nil, false
	}
	return res, true
}

func (l lending) Login(t postern.TaskName, r postern.ResourceName) (*typesv1.CredentialRef, bool) {
	return l.s.hub.Snapshot().Login(t, r)
}

func (l lending) HostLogin(t postern.TaskName) policy.HostLogin {
	return l.s.hub.Snapshot().HostLogin(t)
}

func (l lending) Tokens(t postern.TaskName) map[string]*postern.MaskRule {
	return l.s.hub.Snapshot().Tokens(t)
}

func (l lending) Locked(g *typesv1.Grant, r postern.ResourceName, node postern.NodeName) string {
	sub := noun.SubjectOf(g.GetSubject())
	reason, _, _ := l.s.hub.Snapshot().LockedFor(&sub, postern.GrantID(g.GetId()), r, node, time.Now())
	return reason
}

func (l lending) Alone(t postern.TaskName) time.Duration {
	terms, ok := l.s.hub.Snapshot().Terms(t)
	if !ok {
		return policy.DefaultMaxStaleness + policy.DefaultSessionGrace
	}
	return terms.MaxStaleness + terms.SessionGrace
}

func (l lending) Grant(ctx context.Context, id postern.GrantID) (*typesv1.Grant, error) {
	e, err := l.s.store.Get(ctx, store.Key{Kind: task.Kind, Name: string(id)})
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.New(codes.NotFound, "there is no grant %q", id)
	}
	if err != nil {
		return nil, err
	}
	g := &typesv1.Grant{}
	return g, proto.Unmarshal(e.Value, g)
}

// sealKeys are the keys with which a node may have sealed: that of its certificate, and
// those before it.
func (s *Server) sealKeys(node string) ([]crypto.PublicKey, error) {
	e, ok := s.cache.Get(store.Key{Kind: "node", Name: node})
	if !ok {
		return nil, fmt.Errorf("node %q is not enrolled", node)
	}
	o, err := store.DecodeObject(e)
	if err != nil {
		return nil, err
	}
	var keys []crypto.PublicKey
	for _, der := range o.GetNode().GetSpec().GetPublicKeys() {
		key, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			return nil, fmt.Errorf("a key of node %q: %w", node, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// locks takes away what somebody has, in every part that gave it.
func (s *Server) locks(policies *userapi.Policy, verifier *identity.Verifier, guard *authz.Interceptor) *userapi.Locks {
	return userapi.NewLocks(userapi.LocksConfig{
		Policy: policies, Version: s.hub.Version, Snapshot: s.hub.Snapshot, Receipt: s.fleet.Receipt,
		EndGrants: func(ctx context.Context, c *authz.Caller, lock *typesv1.Lock, why string) ([]*typesv1.Grant, int64, error) {
			return s.task.EndOf(ctx, task.Caller{Subject: c.Subject, Roles: c.Roles, Address: c.Address}, lock, why)
		},
		Blast:     s.blast(verifier, guard).Of,
		OpenHolds: s.approve.Open, DropHold: s.approve.Drop, Leases: s.broker.Under,
		Sessions: func(ctx context.Context, subject string) ([]*typesv1.Session, error) {
			return lately(ctx, s.recordings.List, subject)
		},
	})
}

// lately are the sessions of a subject that are live, and the newest of all: those of a job that
// connects every second are many, and one that has been open since yesterday is among them.
func lately(ctx context.Context, list func(context.Context, index.Filter) ([]*typesv1.Session, error), subject string) ([]*typesv1.Session, error) {
	all, err := list(ctx, index.Filter{Subject: subject, Live: true, Limit: index.MaxPage})
	if err != nil {
		return nil, err
	}
	newest, err := list(ctx, index.Filter{Subject: subject, Limit: index.MaxPage})
	if err != nil {
		return nil, err
	}
	had := map[string]bool{}
	for _, s := range all {
		had[s.GetId()] = true
	}
	for _, s := range newest {
		if !had[s.GetId()] {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b *typesv1.Session) int { return b.GetStartTime().AsTime().Compare(a.GetStartTime().AsTime()) })
	return all, nil
}

// blast tells what a thief of a token, node or lease could do.
func (s *Server) blast(verifier *identity.Verifier, guard *authz.Interceptor) *blast.Service {
	return blast.New(blast.Config{
		Snapshot: s.hub.Snapshot, Verifier: verifier, Grants: s.task, Methods: guard.Methods,
		Nodes: s.fleet.Nodes, Loans: s.broker.Loans, Now: time.Now,
		Node: func(ctx context.Context, name postern.NodeName) (*typesv1.Node, error) {
			return publish.Directory{Cache: s.cache, Store: s.store}.Node(ctx, name, "")
		},
		Serves: func(n *typesv1.Node, r *typesv1.Resource) bool { return publish.Reaches(r, n) },
	})
}

// signOutWait is for how long a browser that signs out waits for nodes that do not answer.
const signOutWait = 3 * time.Second

// signedOut has every node end what a browser's token opened.
func (s *Server) signedOut(ctx context.Context, hash [sha256.Size]byte) {
	ctx, cancel := context.WithTimeout(ctx, signOutWait)
	defer cancel()
	if _, err := s.fleet.Broadcast(ctx, &nodev1.Command{Kind: &nodev1.Command_EndSignIn{EndSignIn: &nodev1.EndSignIn{TokenHash: hash[:]}}}); err != nil {
		s.log.WarnContext(ctx, "not every node was told that a browser has signed out", "error", err)
	}
}
