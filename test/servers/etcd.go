package servers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/ports"
)

var etcdHelper = helper{
	name:     "etcd",
	packages: []string{"go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/etcdutl/v3"},
	flags:    []string{"-trimpath", "-ldflags", "-s -w"},
	about:    "a minute or two",
}

// EtcdCluster is a running cluster of real etcd processes, with TLS and client
// certificates between all.
type EtcdCluster struct {
	Endpoints []string // client URLs, in the order of the members
	CAFile    string
	CertFile  string // a client's certificate
	KeyFile   string

	bin     string // folder of the programs
	tls     *tls.Config
	peers   string // name=URL of all members, as --initial-cluster has it
	members []*etcdMember
}

type etcdMember struct {
	name string
	args []string
	dir  string
	url  string // for clients
	peer string
	proc *process
}

// TLS is a client configuration with a certificate that the cluster takes.
func (c *EtcdCluster) TLS() *tls.Config { return c.tls.Clone() }

// Kill ends one member at once, as a crash would.
func (c *EtcdCluster) Kill(member int) { c.members[member].proc.kill() }

// Restart starts a member that was killed, with the data that it had, and waits until
// it answers.
func (c *EtcdCluster) Restart(ctx context.Context, member int) error {
	m := c.members[member]
	if err := c.launch(m); err != nil {
		return err
	}
	return c.await(ctx, m)
}

// Restore replaces all that the cluster has by a snapshot, as its manual says: every
// member ends, is given the snapshot by etcdutl, and they start as a new cluster at the
// same addresses.
func (c *EtcdCluster) Restore(ctx context.Context, snapshot string) error {
	c.stop()
	for _, m := range c.members {
		if err := os.RemoveAll(m.dir); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "etcdutl"), "snapshot", "restore", snapshot, "--name", m.name, "--data-dir", m.dir,
			"--initial-cluster", c.peers, "--initial-advertise-peer-urls", m.peer, "--initial-cluster-token", "restored")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("etcdutl snapshot restore: %w\n%s", err, out)
		}
	}
	return c.start(ctx)
}

// start starts all members and waits until each answers.
func (c *EtcdCluster) start(ctx context.Context) error {
	g := run.New(ctx)
	for _, m := range c.members {
		if err := c.launch(m); err != nil {
			g.Stop()
			return errors.Join(err, g.Wait())
		}
		g.Go(m.url, func(ctx context.Context) error { return c.await(ctx, m) })
	}
	return g.Wait()
}

func (c *EtcdCluster) stop() {
	for _, m := range c.members {
		if m.proc != nil {
			m.proc.stop(syscall.SIGTERM)
		}
	}
}

// Etcd starts a cluster of one or three members; it is gone at the test's end.
func Etcd(t testing.TB, members int) *EtcdCluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	bin, err := build(ctx, etcdHelper, logTo(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := folder(t, "etcd")
	for try := 1; ; try++ {
		c, err := startEtcd(ctx, bin, filepath.Join(dir, fmt.Sprint(try)), members)
		if err == nil {
			t.Cleanup(c.stop)
			return c
		}
		if c != nil {
			c.stop()
		}
		if !portClash(err) || try == portTries {
			t.Fatalf("start etcd: %v", err)
		}
	}
}

func startEtcd(ctx context.Context, bin, dir string, members int) (*EtcdCluster, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, ca, err := identity(dir, "etcd")
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	c := &EtcdCluster{
		CAFile: f.ca, CertFile: f.cert, KeyFile: f.key, bin: bin,
		tls: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	}
	var peers []string
	for i := range members {
		name := fmt.Sprintf("m%d", i)
		m := &etcdMember{name: name, dir: filepath.Join(dir, name)}
		for _, url := range []*string{&m.url, &m.peer} {
			addr, err := ports.Addr()
			if err != nil {
				return nil, err
			}
			*url = "https://" + addr
		}
		c.members, c.Endpoints = append(c.members, m), append(c.Endpoints, m.url)
		peers = append(peers, name+"="+m.peer)
	}
	c.peers = strings.Join(peers, ",")
	for _, m := range c.members {
		m.args = []string{
			"--name", m.name, "--data-dir", m.dir, "--log-level", "warn",
			"--listen-client-urls", m.url, "--advertise-client-urls", m.url,
			"--listen-peer-urls", m.peer, "--initial-advertise-peer-urls", m.peer,
			"--initial-cluster", c.peers,
			"--cert-file", f.cert, "--key-file", f.key, "--trusted-ca-file", f.ca, "--client-cert-auth",
			"--peer-cert-file", f.cert, "--peer-key-file", f.key, "--peer-trusted-ca-file", f.ca, "--peer-client-cert-auth",
			"--heartbeat-interval", "50", "--election-timeout", "500", "--unsafe-no-fsync",
		}
	}
	return c, c.start(ctx)
}

func (c *EtcdCluster) launch(m *etcdMember) (err error) {
	m.proc, err = start("etcd", exec.Command(filepath.Join(c.bin, "server"), m.args...), m.dir+".log")
	return err
}

// await waits until the member takes part in a quorum.
func (c *EtcdCluster) await(ctx context.Context, m *etcdMember) error {
	transport := &http.Transport{TLSClientConfig: c.TLS()}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	return waitReady(ctx, m.proc, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+"/health", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}
