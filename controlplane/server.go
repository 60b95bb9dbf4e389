// Package controlplane assembles the control plane: it decides nothing, and every part
// that does is in a package of its own. Replicas are alike and share the store.
package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/account"
	"github.com/posterngate/postern/controlplane/api/accountapi"
	"github.com/posterngate/postern/controlplane/api/answerapi"
	"github.com/posterngate/postern/controlplane/api/approvalapi"
	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/api/grantapi"
	"github.com/posterngate/postern/controlplane/api/nodeapi"
	"github.com/posterngate/postern/controlplane/api/sessionapi"
	"github.com/posterngate/postern/controlplane/api/userapi"
	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/audit/tree"
	"github.com/posterngate/postern/controlplane/budget"
	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/controlplane/credential/oauth"
	"github.com/posterngate/postern/controlplane/credential/sealed"
	"github.com/posterngate/postern/controlplane/credential/vault"
	"github.com/posterngate/postern/controlplane/credential/wall"
	"github.com/posterngate/postern/controlplane/entrance"
	"github.com/posterngate/postern/controlplane/fleet"
	"github.com/posterngate/postern/controlplane/identity"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/identity/enrol"
	"github.com/posterngate/postern/controlplane/notify"
	"github.com/posterngate/postern/controlplane/pin"
	"github.com/posterngate/postern/controlplane/publish"
	"github.com/posterngate/postern/controlplane/recording"
	"github.com/posterngate/postern/controlplane/recording/export"
	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/keyring"
	"github.com/posterngate/postern/controlplane/signin"
	"github.com/posterngate/postern/controlplane/steward"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/task"
	"github.com/posterngate/postern/controlplane/vouch"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/telemetry"
	"github.com/posterngate/postern/pkg/trail"
)

// A Server is one replica of the control plane.
type Server struct {
	cfg       config.Config
	log       *slog.Logger
	issuers   []*nodev1.Issuer // of which nodes tell who wants to sign in
	store     store.Store
	blobs     blobs
	index     index.Index
	collector *export.OTLP                // nil where logs are sent to nobody
	exporting func([]export.Record) error // nil likewise, and where no file has them

	cache      *store.Cache
	audit      *audit.Log
	auditKey   tree.Key
	trail      *trail.Log
	authority  *authority.Authority
	hub        *publish.Hub
	fleet      *fleet.Fleet
	approve    *approve.Service
	task       *task.Service
	signIn     *signin.Service
	vault      *vault.Source // nil where none is configured
	broker     *credential.Broker
	budgets    *budget.Service
	steward    *steward.Steward
	accounts   *account.Service
	keyring    *keyring.Ring
	recordings *recording.Service
	secrets    *sealed.Source
	notify     *notify.Service
	vouch      *vouch.Service
	pins       *pin.Service
	entrance   *entrance.Service

	nodes  *nodeapi.Server
	nodeLn net.Listener
	api    *http.Server
	apiLn  net.Listener
	debug  *telemetry.Debug
}

// New opens the store and binds the sockets; nothing is served before Run.
func New(ctx context.Context, cfg config.Config, tel *telemetry.T) (_ *Server, err error) {
	s := &Server{cfg: cfg, log: tel.Logger}
	if s.store, err = openStore(ctx, cfg, s.log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	keeper, err := openKeeper(ctx, cfg, s.store)
	if err != nil {
		return nil, err
	}
	if s.trail, err = openTrail(cfg); err != nil {
		return nil, err
	}
	if err := auditKeyThere(cfg, s.trail); err != nil {
		return nil, err
	}
	if s.auditKey, err = tree.OpenKey(cfg.AuditKey); err != nil {
		return nil, err
	}
	s.audit = audit.New(s.store, time.Now).WithMoved(s.trail)
	if err := s.audit.Fits(ctx); err != nil {
		return nil, err
	}
	if s.authority, err = authority.Open(ctx, authority.Config{Store: s.store, Keeper: keeper, Audit: s.audit, Logger: s.log}); err != nil {
		return nil, err
	}
	s.cache = store.NewCache(s.store, s.log, cacheKinds()...)
	s.hub = publish.New(publish.Config{
		Cache: s.cache, Keys: s.published, Logger: s.log,
	})
	s.fleet = fleet.New(fleet.Config{Store: s.store, Hub: s.hub, Logger: s.log, Now: time.Now})
	verifier, err := s.verifier(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range verifier.Options() {
		s.issuers = append(s.issuers, &nodev1.Issuer{Url: o.GetIssuer(), Scopes: o.GetScopes()})
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	if err := s.services(ctx, keeper, verifier); err != nil {
		return nil, err
	}
	enroller := enrol.New(enrol.Config{Store: s.store, Authority: s.authority, Snapshot: s.hub.Snapshot, Audit: s.audit, Reserved: s.reserved(), Logger: s.log})
	s.serveNodes(enroller)
	if err := s.serveAPI(keeper, verifier, enroller); err != nil {
		return nil, err
	}
	if cfg.Debug != "" {
		if s.debug, err = telemetry.NewDebug(cfg.Debug, tel, s.Ready); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// listen binds the two sockets, so that their addresses are known.
func (s *Server) listen() (err error) {
	if s.apiLn, err = net.Listen("tcp", s.cfg.API.Addr); err != nil {
		return fmt.Errorf("api: %w", err)
	}
	if s.nodeLn, err = net.Listen("tcp", s.cfg.Nodes.Addr); err != nil {
		return fmt.Errorf("nodes: %w", err)
	}
	if s.cfg.URL == "" {
		_, port, err := net.SplitHostPort(s.apiLn.Addr().String())
		if err != nil {
			return err
		}
		s.cfg.URL = "https://" + net.JoinHostPort(hosts(s.cfg.API)[0], port)
	}
	return nil
}

// services makes the parts that decide, lend and keep.
func (s *Server) services(ctx context.Context, keeper sealed.Keeper, verifier *identity.Verifier) (err error) {
	s.approve = approve.New(approve.Config{
		Store: s.store, Snapshot: s.hub.Snapshot, Changed: s.hub.Subscribe, Audit: s.audit, Logger: s.log,
		URL:      func(id string) string { return s.cfg.URL + "/approvals/" + id },
		Sessions: s.sessionsOf,
	})
	s.entrance = entrance.New(entrance.Config{
		URL: s.cfg.URL, Store: s.store, Audit: s.audit, Sign: s.authority.SignIdentity, Keys: s.authority.IdentityKeys, Resource: lending{s}.Resource, Ended: s.signedOut, Now: time.Now,
	})
	s.task = task.New(task.Config{
		Store: s.store, Snapshot: s.hub.Snapshot, Settled: s.hub.Settled, Enforced: s.hub.Enforced, Changed: s.hub.Subscribe, Sign: s.authority.SignGrant,
		Verifier: verifier, Browser: s.entrance.Subject, Certificates: s.authority, Approve: s.approve, Audit: s.audit, Logger: s.log,
	})
	s.signIn = signin.New(signin.Config{
		Store: s.store, Device: verifier.Device, Open: s.task.Open, Logger: s.log, Now: time.Now,
		URL: func(code string) string { return s.cfg.URL + signin.Path + code },
	})
	s.steward = steward.New(steward.Config{Store: s.store, Snapshot: s.hub.Snapshot, Changed: s.hub.Subscribe, Audit: s.audit, Logger: s.log, Now: time.Now})
	s.budgets = budget.New(budget.Config{
		Store: s.store, Snapshot: s.hub.Snapshot, Grant: lending{s}.Grant, Last: s.last, Recall: s.recall, Logger: s.log, Now: time.Now,
	})
	s.vouch = vouch.New(vouch.Config{
		Issuer: s.cfg.URL, Sign: s.authority.SignIdentity, Keys: s.authority.IdentityKeys, Snapshot: s.hub.Snapshot, Now: time.Now,
		Resource: lending{s}.Resource, Grant: lending{s}.Grant, Alone: lending{s}.Alone,
	})
	s.pins = pin.New(pin.Config{Store: s.store, Snapshot: s.hub.Snapshot, Grant: lending{s}.Grant, Hold: s.approve.Find, Logger: s.log, Now: time.Now})
	s.secrets = sealed.NewSource(s.store, keeper)
	broker := credential.Config{
		Store: s.store, Policy: lending{s}, Keeper: keeper, Sealed: s.secrets, OAuth: oauth.New(s.secrets.Fields), Key: s.secrets.Key,
		Wall: wall.New(s.fleet), Logger: s.log,
		TTL: time.Duration(s.cfg.LeaseTTL), Last: s.last,
	}
	if s.cfg.Vault != nil {
		if s.vault, err = vault.New(vaultConfig(*s.cfg.Vault, s.log)); err != nil {
			return err
		}
		broker.Vault = s.vault
	}
	if s.broker, err = credential.New(broker); err != nil {
		return err
	}
	accounts := account.Config{
		Store: s.store, Snapshot: s.hub.Snapshot, Fleet: s.fleet, Keeper: keeper, Lent: s.broker.Lent, Audit: s.audit, Logger: s.log, Now: time.Now,
	}
	if s.vault != nil {
		accounts.Vault = s.vault
	}
	s.accounts = account.New(accounts)
	if s.blobs, err = openBlobs(ctx, s.cfg); err != nil {
		return err
	}
	if s.index, err = openIndex(ctx, s.cfg); err != nil {
		return err
	}
	if s.keyring, err = keyring.Open(ctx, keyring.Config{Store: s.store, Keeper: keeper, Audit: s.audit, Now: time.Now, Logger: s.log}); err != nil {
		return err
	}
	if s.exporting, err = s.openExport(); err != nil {
		return err
	}
	var exported func(*index.Update) error
	if s.exporting != nil {
		exported = func(u *index.Update) error { return s.exporting(export.Records(u, time.Now())) }
	}
	s.recordings, err = recording.New(recording.Config{Export: exported, Blobs: s.blobs, Index: s.index, Store: s.store, Keys: s.keyring, NodeKeys: s.sealKeys, Grant: s.task.OpenedAt, Rejected: s.rejected, Ended: s.broker.Over, Told: s.told, Alerted: s.alerted, Logger: s.log})
	return err
}

func (s *Server) serveNodes(enroller *enrol.Service) {
	s.nodes = nodeapi.New(nodeapi.Services{
		TLS: &tls.Config{
			MinVersion:     tls.VersionTLS13,
			GetCertificate: s.authority.Server(hosts(s.cfg.Nodes)...),
		},
		Authority: s.authority, Nodes: publish.Directory{Cache: s.cache, Store: s.store}, Snapshot: s.hub.Snapshot,
		Enrol: enroller, Hub: s.hub, Fleet: s.fleet, Grants: s.task, SignIns: s.signIn, Holds: s.approve, Broker: s.broker, Budgets: s.budgets, Vouchers: s.vouch, Pins: s.pins, Entrances: s.entrance, Records: s.recordings, RecordingKey: s.keyring.Public, RawKey: s.cfg.Recordings.RawPublic(),
		Options: nodeapi.Traced(), Logger: s.log,
	})
}

// reserved are names for which no node may get a certificate.
func (s *Server) reserved() []string {
	return append(append([]string(nil), hosts(s.cfg.API)...), hosts(s.cfg.Nodes)...)
}

func (s *Server) serveAPI(keeper sealed.Keeper, verifier *identity.Verifier, enroller *enrol.Service) error {
	guard, err := authz.New(authz.Config{
		Auth: verifier, Policy: s.hub.Snapshot, Staleness: s.cache.Staleness, Admins: admins(s.cfg.Admins), Audit: s.audit, Logger: s.log, Now: time.Now,
	})
	if err != nil {
		return err
	}
	policies := userapi.NewPolicy(userapi.PolicyConfig{Store: s.store, Cache: s.cache, Audit: s.audit, Sealer: sealer{keeper}, Grants: s.liveGrants, Grant: lending{s}.Grant, Enforced: s.hub.Enforced, StoresRaw: s.cfg.Recordings.RawKey != "", Logger: s.log, Now: time.Now})
	grants := grantapi.New(s.task)
	pages, err := s.pages(verifier)
	if err != nil {
		return err
	}
	pages[grantapi.ExchangePath] = guard.Limited(authz.LimitExchange, http.HandlerFunc(grants.Exchange))
	handler := userapi.Handler(userapi.Services{
		Interceptor: guard,
		Policy:      policies,
		Access:      userapi.NewAccess(userapi.AccessConfig{Hub: s.fleet, Logins: verifier, Grants: s.ownGrants, Signer: s.authority, SSHHostCAs: s.authority.SSHHostLines, Now: time.Now}),
		Grant:       grants,
		Approval:    approvalapi.New(s.approve),
		Session:     sessionapi.New(s.recordings, live{s.fleet}),
		Audit:       userapi.NewAudit(s.audit),
		Answer: answerapi.New(answerapi.Config{
			Index: s.index, Bindings: s.bindings, Workloads: func() []*typesv1.Workload { return s.hub.Snapshot().Workloads() }, Exists: s.exists, Told: s.audit.Tells, Now: time.Now,
		}),
		NodeAdmin: userapi.NewNodes(s.fleet, enroller, s.cache),
		Authority: userapi.NewAuthority(s.authority),
		Lock:      s.locks(policies, verifier, guard),
		Account:   accountapi.New(s.accounts),
		Pages:     pages,
		Ready:     s.Ready,
	})
	s.api = bounded(handler)
	s.api.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	s.api.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: s.authority.Server(hosts(s.cfg.API)...),
	}
	return nil
}

// CA is the PEM text of the CAs that sign the API's and the nodes' certificates.
func (s *Server) CA() []byte { return s.authority.Bundle() }

// APIAddr is where people and automation connect.
func (s *Server) APIAddr() net.Addr { return s.apiLn.Addr() }

// NodesAddr is where nodes connect.
func (s *Server) NodesAddr() net.Addr { return s.nodeLn.Addr() }

// Ready says why the replica cannot serve now, or nil once it can.
func (s *Server) Ready(ctx context.Context) error {
	select {
	case <-s.cache.Ready():
	case <-ctx.Done():
		return errors.New("the store has not been read yet")
	}
	if err := s.store.Ping(ctx); err != nil {
		return fault.Wrap(err, codes.Unavailable, "the store does not answer")
	}
	return s.compiled(ctx)
}

// compiled waits until there is a policy to answer by.
func (s *Server) compiled(ctx context.Context) error {
	for s.hub.Snapshot().Version().IsZero() {
		select {
		case <-ctx.Done():
			return errors.New("policy has not been compiled yet")
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// runNodes serves nodes once there is a policy: those that come back at once after a
// restart would be told that they serve nothing.
func (s *Server) runNodes(ctx context.Context) error {
	if err := s.compiled(ctx); err != nil {
		return ctx.Err()
	}
	return s.nodes.Run(ctx, s.nodeLn)
}

// Run serves until ctx is done.
func (s *Server) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.close()) }()
	stopObserving, err := s.observe()
	if err != nil {
		return err
	}
	defer stopObserving()
	parts := []run.Part{
		{Name: "cache", Run: s.cache.Run},
		{Name: "publish", Run: s.hub.Run},
		{Name: "fleet", Run: s.fleet.Run},
		{Name: "authority", Run: s.authority.Run},
		{Name: "grants", Run: s.task.Run},
		{Name: "holds", Run: s.approve.Run},
		{Name: "channels", Run: s.notify.Run},
		{Name: "leases", Run: s.broker.Run},
		{Name: "budgets", Run: s.budgets.Run},
		{Name: "pins", Run: s.pins.Run},
		{Name: "workloads", Run: s.steward.Run},
		{Name: "accounts", Run: s.accounts.Run},
		{Name: "recordings", Run: s.reconcile},
		{Name: "lost recordings", Run: s.endLost},
		{Name: "recording keys", Run: s.keyring.Run},
		{Name: "audit log", Run: s.drainAudit},
		{Name: "nodes", Run: s.runNodes},
		{Name: "api", Run: s.runAPI},
	}
	if s.exporting != nil {
		parts = append(parts, run.Part{Name: "audit export", Run: s.exportAudit})
	}
	if s.cfg.Recordings.Keep > 0 {
		parts = append(parts, run.Part{Name: "retention", Run: s.retain})
	}
	if s.vault != nil {
		parts = append(parts, run.Part{Name: "vault", Run: s.vault.Run})
	}
	if s.debug != nil {
		parts = append(parts, run.Part{Name: "debug", Run: s.debug.Run})
	}
	s.log.Info("control plane serves", "api", s.apiLn.Addr(), "nodes", s.nodeLn.Addr())
	return run.All(ctx, parts...)
}

// reconcile takes in what an earlier process stored and did not index.
func (s *Server) reconcile(ctx context.Context) error {
	select {
	case <-s.cache.Ready(): // it has the nodes' keys
	case <-ctx.Done():
		return ctx.Err()
	}
	taken, err := s.recordings.Reconcile(ctx)
	if err != nil && ctx.Err() == nil {
		return err
	}
	if taken > 0 {
		s.log.Info("recordings were indexed that had been stored before", "chunks", taken)
	}
	<-ctx.Done()
	return ctx.Err()
}

// apiGrace is how long calls may go on once the server stops.
const apiGrace = 2 * time.Second

func (s *Server) runAPI(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("stop", func(ctx context.Context) error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), apiGrace)
		defer cancel()
		if s.api.Shutdown(grace) != nil {
			return s.api.Close()
		}
		return nil
	})
	g.Go("serve", func(context.Context) error {
		if err := s.api.ServeTLS(s.apiLn, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return g.Wait()
}

func (s *Server) close() error {
	var errs []error
	for _, ln := range []net.Listener{s.apiLn, s.nodeLn} {
		if ln != nil {
			_ = ln.Close() // closed already where it was served
		}
	}
	if s.blobs != nil {
		errs = append(errs, s.blobs.Close())
	}
	if s.collector != nil {
		errs = append(errs, s.collector.Close())
	}
	if s.index != nil {
		errs = append(errs, s.index.Close())
	}
	if s.trail != nil {
		errs = append(errs, s.trail.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(errs...)
}

func (s *Server) rejected(ctx context.Context, r recording.Rejection) error {
	return s.audit.Append(ctx, audit.Entry{
		Actor: "node/" + string(r.Node), Action: "recording.reject", Object: "session/" + r.Session, Outcome: r.Reason,
		Detail: map[string]any{"chunk": r.Index},
	})
}

func (s *Server) ownGrants(ctx context.Context, c *authz.Caller) ([]*typesv1.Grant, error) {
	return s.task.List(ctx, task.Caller{Subject: c.Subject, Roles: c.Roles, Address: c.Address}, c.Subject.Name, true)
}

// liveGrants are everybody's, for a caller who may see them.
func (s *Server) liveGrants(ctx context.Context, c *authz.Caller) ([]*typesv1.Grant, error) {
	return s.task.List(ctx, task.Caller{Subject: c.Subject, Roles: c.Roles, Address: c.Address}, "", true)
}

// published are the keys by which nodes verify.
func (s *Server) published() publish.Keys {
	a := s.authority
	return publish.Keys{Grants: a.GrantKeys(), House: a.Bundle(), ClientCAs: a.ClientCAs(), SSHUserCAs: a.SSHUserCAs(), SSHHostCA: a.SSHHostCA(), Issuers: s.issuers}
}
