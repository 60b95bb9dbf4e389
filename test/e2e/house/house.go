// Package house is the whole of Postern for one test: a real PostgreSQL with a small
// sample company, an identity provider, the control plane and its nodes, in one process
// but over the same mutual TLS as anywhere. Suites call Main first and Start in each
// test; what they then do, they do with stock clients, the API, or the built CLI.
package house

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane"
	controlconfig "github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/dataplane"
	nodeconfig "github.com/posterngate/postern/dataplane/config"
	"github.com/posterngate/postern/dataplane/wall"
	"github.com/posterngate/postern/deploy/dev/idp"
	"github.com/posterngate/postern/pkg/conf"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/telemetry"
	"github.com/posterngate/postern/test/e2e/fleet"
	"github.com/posterngate/postern/test/ports"
	"github.com/posterngate/postern/test/servers"
	"github.com/posterngate/postern/test/wait"
)

// Patience bounds every wait for something that must happen.
const Patience = wait.Patience

// A NodeSpec says what a node is like.
type NodeSpec struct {
	Name, Region string
	Labels       map[string]string
	// Behind puts a wire that can be cut between the node and the control plane.
	Behind bool
}

// Options change a House; the zero value has one node and the sample company.
type Options struct {
	Nodes []NodeSpec
	// Extra is YAML of further objects, applied after the sample company.
	Extra string
	// Bare leaves out the sample company and its target: the suite brings its own.
	Bare bool
	// Wall runs a postern-wall too. The secret "warehouse-admin" is for it; whoever brings
	// another world waits with Walled.
	Wall bool
	// WallEvery is how often it looks at each resource; a second where 0.
	WallEvery time.Duration
	// Control changes the control plane's configuration; nil leaves it.
	Control func(*controlconfig.Config)
	// SSH adds the sample company's host.
	SSH bool
	// Host are further lines of that host's sshd_config; ${DIR} stands for its folder.
	Host []string
	// HTTP adds the sample company's service.
	HTTP bool
	// Target are settings of the sample company's PostgreSQL.
	Target map[string]string
}

// A House is everything that runs for one test. Its fields are not changed after Start.
type House struct {
	Dir       string        // of the control plane, the nodes and the CLI's homes
	PG        *servers.PG   // the target, with the database "warehouse"; nil where Bare
	Web       *servers.SSHD // the sample host; nil without Options.SSH
	Orders    *OrdersAPI    // the sample service; nil without Options.HTTP
	Control   *controlplane.Server
	Nodes     []*Node
	Issuer    string // URL of the identity provider
	CA        []byte // PEM
	CAFile    string
	Addr      string // URL of the API
	RawKey    string // the file with the key to what masks hide
	NodesAddr string // host:port for nodes

	// StopWall stops the wall, where there is one, and waits for its end.
	StopWall func()

	http     *http.Client
	log      *logs
	accounts map[string]string // password by account of the target
	mu       sync.Mutex
	tokens   map[[2]string]string // by client and person
}

// A Node is one running node.
type Node struct {
	NodeSpec
	Dir string
	PG  string // host:port of its PostgreSQL listener
	SSH string // of its SSH listener
	// HTTP is of its HTTP listener, and HTTPDomain the name below which each task has one,
	// with the port.
	HTTP, HTTPDomain string
	// Wire is to the control plane; nil without NodeSpec.Behind.
	Wire *fleet.Proxy
	*dataplane.Node

	stop func()
}

// Stop stops the node, as SIGTERM does, and waits for its end.
func (n *Node) Stop() { n.stop() }

// People of the sample company; passwords are the names.
var People = []idp.Person{
	{Name: "alice", Email: "alice@sample.example", Groups: []string{"analysts"}},
	{Name: "bob", Email: "bob@sample.example", Groups: []string{"leads"}},
	{Name: "carol", Email: "carol@sample.example", Groups: []string{"contractors"}},
	{Name: "ada", Email: "ada@sample.example", Groups: []string{"admins"}},
	{Name: "nightly", Claims: map[string]any{"environment": "prod"}},
	{Name: "mallory", Email: "mallory@evil.example@sample.example"}, // who is of none of the company's groups
}

// Start brings a House up; it is gone at the test's end. A test that fails shows the
// logs of both planes.
func Start(t testing.TB, opts ...Options) *House {
	t.Helper()
	var o Options
	if len(opts) > 0 {
		o = opts[0]
	}
	if len(o.Nodes) == 0 {
		o.Nodes = []NodeSpec{{Name: "node-1", Region: "local"}}
	}
	h := &House{Dir: t.TempDir(), log: &logs{}, tokens: map[[2]string]string{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of both planes:\n%s", h.log.tail())
		}
	})
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// The target starts beside the rest: each waits mostly for its own disk and clock.
	side := run.New(ctx)
	if !o.Bare {
		side.Go("target", func(context.Context) error { h.startTarget(t, o.Target); return nil })
	}
	if o.SSH {
		side.Go("host", func(context.Context) error { h.startWeb(t, o.Host...); return nil })
	}
	provider := h.startIDP(t)
	h.startControl(t, o)
	provider.Web(h.Addr)
	if err := side.Wait(); err != nil || (h.PG == nil && !o.Bare) || (h.Web == nil && o.SSH) {
		t.Fatalf("the target did not start: %v", err)
	}
	if o.HTTP {
		h.startOrders(t)
	}
	if !o.Bare {
		h.applyWorld(t)
	}
	if o.SSH {
		h.applyWeb(t)
	}
	if o.Extra != "" {
		h.Apply(t, "ada", o.Extra)
	}
	for _, n := range o.Nodes {
		h.startNode(t, n)
	}
	if o.Wall {
		h.startWall(t, o.WallEvery)
	}
	if !o.Bare {
		h.Settled(t)
	}
	if o.Wall && !o.Bare {
		h.Walled(t)
	}
	if o.SSH {
		h.Serves(t, "web-1")
	}
	if o.HTTP {
		h.Serves(t, "orders-api")
	}
	t.Logf("the house is up after %s", time.Since(began).Round(time.Millisecond))
	return h
}

// part runs until the test's end, or stop.
func (h *House) part(t testing.TB, name string, do func(context.Context) error) (stop func()) {
	g := run.New(context.Background())
	g.Go(name, do)
	stop = sync.OnceFunc(func() {
		g.Stop()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (h *House) telemetry() *telemetry.T {
	return &telemetry.T{Logger: slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
}

func (h *House) startIDP(t testing.TB) *idp.Provider {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.Issuer = "http://" + ln.Addr().String()
	provider, err := idp.New(h.Issuer, filepath.Join(h.Dir, "idp.key"), People)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: provider, ReadHeaderTimeout: 10 * time.Second}
	h.part(t, "idp", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
		defer stop()
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return provider
}

func (h *House) startControl(t testing.TB, o Options) {
	t.Helper()
	cfg := controlconfig.Config{
		DataDir: filepath.Join(h.Dir, "control"),
		API:     controlconfig.Listener{Addr: "127.0.0.1:0", Hosts: []string{"localhost"}},
		Nodes:   controlconfig.Listener{Addr: "127.0.0.1:0"},
		Issuers: []controlconfig.Issuer{{
			Name: "sample", URL: h.Issuer, Scopes: []string{"openid", "profile", "email", "groups", "offline_access"},
		}},
		Admins: []controlconfig.Admin{{Group: "admins"}},
	}
	h.RawKey = filepath.Join(h.Dir, "raw.key")
	cfg.Recordings.RawKey = RawKey(t, h.RawKey)
	if o.Control != nil {
		o.Control(&cfg)
	}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	var err error
	if h.Control, err = controlplane.New(context.Background(), cfg, h.telemetry()); err != nil {
		t.Fatalf("control plane: %v", err)
	}
	h.part(t, "control plane", h.Control.Run)
	h.Addr = "https://" + h.Control.APIAddr().String()
	h.NodesAddr = h.Control.NodesAddr().String()
	h.CA, h.CAFile = h.Control.CA(), filepath.Join(h.Dir, "ca.pem")
	if err := os.WriteFile(h.CAFile, h.CA, 0o644); err != nil {
		t.Fatal(err)
	}
	h.http = &http.Client{Transport: &http.Transport{TLSClientConfig: h.TLS(), ForceAttemptHTTP2: true}}
	t.Cleanup(h.http.CloseIdleConnections)
	if err := h.Control.Ready(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// freeAddr is an address of loopback for a node, which tells it when it enrols, before it
// binds.
func freeAddr(t testing.TB) string {
	t.Helper()
	addr, err := ports.Addr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func (h *House) startNode(t testing.TB, spec NodeSpec) {
	t.Helper()
	n := &Node{NodeSpec: spec, Dir: filepath.Join(h.Dir, spec.Name), PG: freeAddr(t), SSH: freeAddr(t), HTTP: freeAddr(t)}
	_, port, _ := net.SplitHostPort(n.HTTP)
	n.HTTPDomain = "postern.localhost:" + port
	cfg := nodeconfig.Config{
		Name: spec.Name, DataDir: n.Dir, ControlPlane: []string{h.NodesAddr}, JoinTokenFile: filepath.Join(h.Dir, spec.Name+".join"),
		Listeners: map[postern.Protocol]nodeconfig.Listener{
			postern.Postgres: {Addr: n.PG}, postern.SSH: {Addr: n.SSH}, postern.HTTP: {Addr: n.HTTP, Public: n.HTTPDomain},
		},
		Loops: fleet.Loops(), Drain: conf.Duration(time.Millisecond),
	}
	if spec.Behind {
		n.Wire = fleet.NewProxy(t, h.NodesAddr)
		cfg.ControlPlane = []string{n.Wire.Addr}
	}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	resp := Must(h.API("ada").Nodes.CreateJoinToken(t.Context(), Request(&apiv1.CreateJoinTokenRequest{Name: spec.Name, Region: spec.Region, Labels: spec.Labels})))(t)
	if err := os.WriteFile(cfg.JoinTokenFile, []byte(resp.Msg.GetToken()), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if n.Node, err = dataplane.New(context.Background(), cfg, h.telemetry()); err != nil {
		t.Fatalf("node %s: %v", spec.Name, err)
	}
	n.stop = h.part(t, "node "+spec.Name, n.Run)
	h.Nodes = append(h.Nodes, n)
}

// startWall runs a postern-wall beside the nodes.
func (h *House) startWall(t testing.TB, every time.Duration) {
	t.Helper()
	cfg := wall.Config{
		Name: "wall-1", DataDir: filepath.Join(h.Dir, "wall-1"), ControlPlane: []string{h.NodesAddr}, JoinTokenFile: filepath.Join(h.Dir, "wall-1.join"),
		Every: conf.Duration(cmp.Or(every, time.Second)), Grace: conf.Duration(time.Second),
	}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	resp := Must(h.API("ada").Nodes.CreateJoinToken(t.Context(), Request(&apiv1.CreateJoinTokenRequest{Name: cfg.Name, Region: "local", Role: postern.RoleWall})))(t)
	if err := os.WriteFile(cfg.JoinTokenFile, []byte(resp.Msg.GetToken()), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := wall.New(context.Background(), cfg, h.telemetry())
	if err != nil {
		t.Fatalf("wall: %v", err)
	}
	h.StopWall = h.part(t, "wall", w.Run)
}

// Walled waits until the wall says that it keeps resources.
func (h *House) Walled(t testing.TB) {
	t.Helper()
	Eventually(t, func() string { return "the wall says what it keeps" }, func() bool {
		resp, err := h.API("ada").Nodes.ListNodes(t.Context(), Request(&apiv1.ListNodesRequest{}))
		return err == nil && slices.ContainsFunc(resp.Msg.GetNodes(), func(n *apiv1.NodeStatus) bool {
			return n.GetRole() == postern.RoleWall && len(n.GetReport().GetResources()) > 0
		})
	})
}

// Settled waits until every node enforces the newest policy and serves the warehouse.
func (h *House) Settled(t testing.TB) {
	t.Helper()
	h.Serves(t, "warehouse")
}

// Serves waits until every node enforces the newest policy and serves the resources.
func (h *House) Serves(t testing.TB, resources ...string) {
	t.Helper()
	nodes := h.API("ada").Nodes
	last := "no answer"
	Eventually(t, func() string { return "the nodes enforce the newest policy: " + last }, func() bool {
		resp, err := nodes.ListNodes(t.Context(), Request(&apiv1.ListNodesRequest{}))
		if err != nil {
			last = err.Error()
			return false
		}
		ready := 0
		for _, n := range resp.Msg.GetNodes() {
			if n.GetRole() != "" { // a wall, which says what it keeps
				continue
			}
			last = fmt.Sprintf("%s connected %v at %d of %d, serves %v, rejects %v", n.GetName(), n.GetConnected(),
				n.GetVersion().GetRevision(), resp.Msg.GetVersion().GetRevision(), n.GetReport().GetResources(), n.GetRejections())
			if n.GetConnected() && n.GetVersion().GetRevision() >= resp.Msg.GetVersion().GetRevision() &&
				!slices.ContainsFunc(resources, func(r string) bool { return !slices.Contains(n.GetReport().GetResources(), r) }) {
				ready++
			}
		}
		return ready == len(h.Nodes)
	})
}

// Eventually polls until ok, and ends the test when patience is over.
func Eventually(t testing.TB, what func() string, ok func() bool) {
	t.Helper()
	wait.Telling(t, what, ok)
}

// Must ends the test on an error: Must(f())(t).
func Must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// logs keeps what both planes say.
type logs struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// Log is everything that both planes have said so far.
func (h *House) Log() string {
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	return h.log.b.String()
}

func (l *logs) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	const most = 24 << 10
	s := l.b.String()
	if len(s) > most {
		s = s[len(s)-most:]
	}
	return s
}
