package fleet

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/deploy/dev/idp"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/ports"
	"github.com/posterngate/postern/test/servers"
)

// Options say what a fleet consists of. The zero Options are the whole: three members
// of etcd, Vault, and the nodes eu-1-a and us-1-a.
type Options struct {
	// Embedded keeps policy in the control plane's own etcd instead of a cluster.
	Embedded bool
	// Sealed lends sealed passwords instead of users that Vault makes.
	Sealed bool
	// Replicas of the control plane; one where 0. Several need a cluster of etcd, and share
	// an object store for recordings and a PostgreSQL database for their index.
	Replicas int
	// Nodes are those to start; nil starts one in each of the regions eu-1 and us-1.
	Nodes []NodeSpec
	// LeaseTTL of credentials, such as "20s"; empty keeps the default.
	LeaseTTL string
	// EtcdProxied puts a Proxy between the control plane and each member of etcd.
	EtcdProxied bool
	// World is YAML that is applied after the sample company, expanded like it.
	World string
	// Control is YAML that the control plane's configuration has besides.
	Control string
	// Postgres changes the warehouse's server.
	Postgres servers.PGOptions
	// LogLevel of both planes; debug where empty.
	LogLevel string
	// Profiling serves profiles on the control plane's debug listener.
	Profiling bool
}

// NodeSpec is a node to be.
type NodeSpec struct {
	Name, Region string
	// Replica of the control plane that the node prefers.
	Replica int
	// Proxied puts a Proxy between the node and the control plane.
	Proxied bool
	// SSH and HTTP are served too.
	SSH, HTTP bool
	// Plaintext lets clients speak without TLS as well.
	Plaintext bool
	// Spool bounds what is not stored yet, in bytes; 256 MiB where 0.
	Spool int64
	// Profiling serves profiles on the debug listener.
	Profiling bool
	// Binary to run instead of the checkout's postern-node; a path.
	Binary string
	// In is the network it runs in; nil is the test's.
	In *Namespace
}

// A Fleet is the running whole. Its methods are safe for concurrent use, but for those
// that start and stop processes.
type Fleet struct {
	Dir     string // of everything; others may enter
	Addr    string // URL of the API that commands use
	CA      string // file
	Issuer  string
	Debug   string // host:port of the control plane's debug listener
	PG      *servers.PG
	Vault   *servers.VaultServer // nil where passwords are sealed
	Etcd    *servers.EtcdCluster // nil where it is embedded
	Control *Process             // the first of Replicas
	Nodes   map[string]*Node
	// Replicas are those of the control plane; Debug and Addr are the first one's.
	Replicas []*Replica
	// EtcdProxies stand between the control plane and etcd, where that was asked for.
	EtcdProxies []*Proxy

	opts       Options
	vaultToken string
	accounts   map[string]string // password by account, where they are sealed
	people     *people
	idp        *idp.Provider
}

func (f *Fleet) logLevel() string {
	if f.opts.LogLevel != "" {
		return f.opts.LogLevel
	}
	return "debug"
}

// startWait bounds each wait for a part to answer.
const startWait = 45 * time.Second

// Start brings everything up, signs ada in, applies the sample company and enrols the
// nodes. It returns once each node serves the warehouse, and ends all with the test.
func Start(t testing.TB, o Options) *Fleet {
	t.Helper()
	f := &Fleet{opts: o, Nodes: map[string]*Node{}}
	if o.Nodes == nil {
		f.opts.Nodes = []NodeSpec{{Name: "eu-1-a", Region: "eu-1"}, {Name: "us-1-a", Region: "us-1"}}
	}
	dir, err := os.MkdirTemp("", "postern-fleet-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("POSTERN_KEEP") != "" {
			t.Logf("everything is kept in %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f.Dir = dir
	began := time.Now()
	f.startBackends(t)
	t.Logf("binaries and backends: %s", time.Since(began).Round(time.Millisecond))
	f.startControl(t)
	f.login(t, "ada")
	f.Must(t, "ada", "apply", "-f", f.worldFile(t))
	g := run.New(t.Context())
	for _, spec := range f.opts.Nodes {
		n := f.newNode(t, spec)
		g.Go(spec.Name, func(context.Context) error { return n.Process.Start() })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, n := range f.Nodes {
		f.AwaitServing(t, n.Name)
	}
	t.Logf("the fleet is up: %s", time.Since(began).Round(time.Millisecond))
	return f
}

// Join starts one more node, and waits until it serves.
func (f *Fleet) Join(t testing.TB, spec NodeSpec) *Node {
	t.Helper()
	n := f.newNode(t, spec)
	if err := n.Process.Start(); err != nil {
		t.Fatal(err)
	}
	f.AwaitServing(t, n.Name)
	return n
}

// startBackends starts what Postern needs, the slow parts beside each other.
func (f *Fleet) startBackends(t testing.TB) {
	t.Helper()
	var mu sync.Mutex
	log := func(s string) { mu.Lock(); defer mu.Unlock(); t.Log(s) }
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Minute) // a first run builds Vault
	defer cancel()
	g := run.New(ctx)
	g.Go("build", func(context.Context) error { return build(f.Dir) })
	g.Go("warehouse", func(ctx context.Context) error { return f.startWarehouse(ctx, t, log) })
	if !f.opts.Sealed {
		g.Go("vault", func(ctx context.Context) error { return f.startVault(ctx, t, log) })
	}
	if !f.opts.Embedded {
		f.Etcd = servers.Etcd(t, 3)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := f.setUpAccounts(ctx); err != nil {
		t.Fatal(err)
	}
	f.startIDP(t)
}

// File writes a file that the ordinary user owns and alone can read.
func (f *Fleet) File(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(f.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Give(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Folder makes a folder that the ordinary user owns and alone can enter.
func (f *Fleet) Folder(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(f.Dir, name)
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Give(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// copyIn makes a file of somebody else's readable.
func (f *Fleet) copyIn(t testing.TB, name, from string) string {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	return f.File(t, name, string(b))
}

// process is one of the binaries with its log in the fleet's folder.
func (f *Fleet) process(t testing.TB, name, binary, dir string, args ...string) *Process {
	p := &Process{Name: name, LogFile: filepath.Join(f.Dir, name+".log"), path: filepath.Join(f.Dir, binary), args: args, dir: dir}
	t.Cleanup(func() {
		if p.cmd != nil {
			p.Resume()
			p.Stop()
		}
		p.showOnFailure(t)
	})
	return p
}

// Binary is the path of one of the binaries.
func (f *Fleet) Binary(name string) string { return filepath.Join(f.Dir, name) }

func (f *Fleet) startIDP(t testing.TB) {
	t.Helper()
	addr, err := ports.Addr()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	f.Issuer = "http://" + addr
	if f.idp, err = idp.New(f.Issuer, filepath.Join(t.TempDir(), "idp.key"), People); err != nil {
		t.Fatal(err)
	}
	serveHTTP(t, ln, f.idp)
}

// People of the sample company; passwords are the names.
var People = []idp.Person{
	{Name: "alice", Email: "alice@sample.example", Groups: []string{"analysts"}},
	{Name: "bob", Email: "bob@sample.example", Groups: []string{"leads"}},
	{Name: "carol", Email: "carol@sample.example", Groups: []string{"contractors"}},
	{Name: "ada", Email: "ada@sample.example", Groups: []string{"admins"}},
	{Name: "nightly", Claims: map[string]any{"environment": "prod"}},
}
