// Package dataplane assembles a node: it decides nothing, and every part that does is
// in a package of its own. A node keeps on disk its identity and its spool, and nothing
// else.
package dataplane

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/dataplane/budget"
	"github.com/posterngate/postern/dataplane/config"
	"github.com/posterngate/postern/dataplane/control"
	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engines"
	"github.com/posterngate/postern/dataplane/lease"
	"github.com/posterngate/postern/dataplane/listen"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/dataplane/session"
	"github.com/posterngate/postern/dataplane/snapshot"
	"github.com/posterngate/postern/dataplane/spool"
	"github.com/posterngate/postern/pkg/conf"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/release"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/sql/worker"
	"github.com/posterngate/postern/pkg/telemetry"
)

// A Node is one data-plane process.
type Node struct {
	cfg      config.Config
	log      *slog.Logger
	identity *control.Identity
	policy   *snapshot.Holder
	control  *control.Client
	spool    *spool.Spool
	leases   *lease.Book
	budgets  *budget.Book
	keeper   *session.Keeper
	parser   *worker.Pool
	loops    *pump.Loops // nil where sessions do without
	engines  map[postern.Protocol]engine.Engine
	listen   map[postern.Protocol]*listen.Listener
	debug    *telemetry.Debug
}

func identityDir(cfg config.Config) string { return filepath.Join(cfg.DataDir, "identity") }

// Enrolled reports whether the data directory holds an identity already.
func Enrolled(cfg config.Config) bool {
	_, err := control.LoadIdentity(identityDir(cfg))
	return !errors.Is(err, control.ErrNotEnrolled)
}

// Load reads and checks a configuration, also for what only this release can tell.
func Load(file string) (cfg config.Config, err error) {
	err = conf.Load(file, &cfg, cfg.Check, func() error { return check(cfg) })
	return cfg, err
}

func check(cfg config.Config) error {
	for p := range cfg.Listeners {
		if engines.All[p] == nil {
			return fmt.Errorf("listeners.%s: this release speaks %s", p, strings.Join(protocols(), ", "))
		}
	}
	return nil
}

// New makes a node: it enrols where it has to, recovers its spool, and binds its
// sockets. Nothing is served before Run.
func New(ctx context.Context, cfg config.Config, tel *telemetry.T) (_ *Node, err error) {
	if err := check(cfg); err != nil { // before a join token is spent
		return nil, err
	}
	n := &Node{cfg: cfg, log: tel.Logger.With("node", cfg.Name), policy: snapshot.New(), parser: worker.New(worker.Config{Logger: tel.Logger})}
	endpoints := map[string]string{}
	for p, l := range cfg.Listeners {
		if endpoints[string(p)] = l.Public; l.Public == "" {
			endpoints[string(p)] = l.Addr
		}
	}
	enrol := control.EnrolConfig{Addrs: cfg.ControlPlane, Name: cfg.Name, Endpoints: endpoints}
	if n.identity, err = control.OpenIdentity(ctx, identityDir(cfg), cfg.JoinTokenFile, enrol); err != nil {
		return nil, err
	}
	process := rand.Text()
	n.control = control.New(control.Config{
		Addrs: cfg.ControlPlane, Identity: n.identity, Process: process, Snapshot: n.policy, OnCommand: n.command, Report: n.report,
		Endpoints: endpoints, Release: release.Version, Protocols: protocols(), DialOptions: control.Traced(), Logger: n.log,
	})
	var recovered spool.Recovery
	n.spool, recovered, err = spool.Open(spool.Config{
		Dir: filepath.Join(cfg.DataDir, "spool"), Node: n.identity.Name(), Key: signer{n.identity}, Uplink: n.control, RecordingKey: n.control.RecordingKey, RawKey: n.control.RawKey,
		MaxBytes: int64(cfg.Spool.MaxBytes), MaxUnshipped: time.Duration(cfg.Spool.MaxUnshipped), Logger: n.log,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	n.tell(recovered)
	n.leases = lease.NewBook(lease.Config{Node: n.identity.Name(), Key: n.identity.HPKEKey, Control: n.control, Logger: n.log})
	n.budgets = budget.NewBook(budget.Config{Process: process, Control: n.control, Logger: n.log, Now: time.Now})
	n.keeper = session.New(session.Config{
		Node: n.identity.Name(), Region: n.identity.Region(), Control: n.control, Snapshots: n.policy,
		Leases: leases{n.leases}, Records: records{n.spool}, Budgets: n.budgets, Logger: n.log, Now: time.Now,
	})
	loops := cfg.Loops
	if loops == 0 {
		loops = pump.DefaultLoops()
	}
	if loops > 0 {
		if n.loops, err = pump.NewLoops(loops); err != nil {
			n.log.Warn("sessions do without event loops", "error", err)
		} else if err := n.loops.Batches(); err != nil {
			n.log.Info("event loops write to each socket by a call of its own", "reason", err)
		}
	}
	return n, n.bind(tel)
}

// tell tells operators what an earlier process left, and what of it is lost. A killed
// process leaves a damaged end, behind which nothing stands.
func (n *Node) tell(r spool.Recovery) {
	for _, s := range r.Sessions {
		n.log.Warn("session recovered from the spool", "session", s.ID, "last", s.Last, "truncated", s.Truncated)
	}
	if r.Damage != "" {
		n.log.Warn("the spool was damaged", "where", r.Damage)
	}
	for _, what := range r.Lost {
		n.log.Error("records were lost", "what", what)
	}
}

// bind makes the engines and their sockets.
func (n *Node) bind(tel *telemetry.T) error {
	n.engines, n.listen = map[postern.Protocol]engine.Engine{}, map[postern.Protocol]*listen.Listener{}
	for p, l := range n.cfg.Listeners {
		e := engines.All[p](engines.Deps{
			TLS: &tls.Config{
				MinVersion:     tls.VersionTLS12,
				GetCertificate: n.identity.ServerCertificate,
			},
			ClientCAs: n.policy.ClientCAs, HostKeys: n.identity.SSHHostKeys, UserCAs: n.policy.UserCAs, Issuers: n.policy.Issuers, AllowPlaintext: l.AllowPlaintext, Parser: n.parser, Loops: n.loops, Logger: n.log,
		})
		ln, err := listen.New(listen.Config{Addr: l.Addr, Engine: e, Door: n.keeper, MaxConns: int(l.MaxConns), Logger: n.log})
		if err != nil {
			return err
		}
		n.engines[p], n.listen[p] = e, ln
	}
	if n.cfg.Debug == "" {
		return nil
	}
	var err error
	n.debug, err = telemetry.NewDebug(n.cfg.Debug, tel, n.Ready)
	return err
}

func protocols() []string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(engines.All)) {
		out = append(out, string(p))
	}
	return out
}

// Addr is the bound address of a protocol's listener, or nil.
func (n *Node) Addr(p postern.Protocol) net.Addr {
	if l := n.listen[p]; l != nil {
		return l.Addr()
	}
	return nil
}

// Ready says why the node takes no sessions now, or nil.
func (n *Node) Ready(context.Context) error {
	switch {
	case n.keeper.Draining():
		return errors.New("draining")
	case !n.control.Connected():
		return errors.New("the control plane does not answer")
	}
	if err := n.spool.Healthy(); err != nil {
		return fmt.Errorf("records cannot be kept: %w", err)
	}
	return nil
}

// Run serves until ctx is done, and then drains: live sessions may go on for the
// configured time, what they recorded is shipped, and what they borrowed given back.
func (n *Node) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, n.close()) }()
	stopObserving, err := n.observe()
	if err != nil {
		return err
	}
	defer stopObserving()
	// The parts that sessions need outlive the listeners.
	below := run.New(context.WithoutCancel(ctx))
	below.Go("control", n.control.Run)
	below.Go("spool", n.spool.Run)
	below.Go("leases", n.leases.Run)
	below.Go("budgets", n.budgets.Run)
	below.Go("parser", n.parser.Run)
	if n.loops != nil {
		below.Go("loops", n.loops.Run)
	}
	above := run.New(below.Context())
	above.Go("sessions", n.keeper.Run)
	for p, l := range n.listen {
		above.Go("listener "+string(p), l.Run)
	}
	if n.debug != nil {
		above.Go("debug", n.debug.Run)
	}
	n.log.Info("node serves", "region", n.identity.Region(), "release", release.Version)
	select {
	case <-ctx.Done():
		n.drain(time.Duration(n.cfg.Drain))
	case <-above.Context().Done(): // a part has failed
	}
	above.Stop()
	err = above.Wait()
	n.budgets.Settle(context.WithoutCancel(ctx))
	n.ship()
	below.Stop()
	return errors.Join(err, below.Wait())
}

// drain takes no new sessions and waits for the live ones.
func (n *Node) drain(timeout time.Duration) {
	n.keeper.Drain()
	for _, l := range n.listen {
		l.Drain()
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(timeout)
	for len(n.keeper.Live()) > 0 {
		select {
		case <-deadline:
			return
		case <-tick.C:
		}
	}
}

// shipTimeout is how long a stopping node waits for its records to be stored. What is
// left stays in the spool.
const shipTimeout = 10 * time.Second

func (n *Node) ship() {
	ctx, cancel := context.WithTimeout(context.Background(), shipTimeout)
	defer cancel()
	if err := n.spool.Drain(ctx); err != nil {
		n.log.Warn("records stay in the spool until the node starts again", "error", err)
	}
}

func (n *Node) close() error {
	if n.spool == nil {
		return nil
	}
	return n.spool.Close()
}

// signer signs with whichever key the node has now.
type signer struct{ id *control.Identity }

func (s signer) Public() crypto.PublicKey { return s.id.Signer().Public() }

func (s signer) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.id.Signer().Sign(rand, digest, opts)
}
