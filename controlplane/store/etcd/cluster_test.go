package etcd_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/etcd"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/wait"
)

// certificate is a self-signed one for 127.0.0.1, in files and as what to trust.
func certificate(t *testing.T) (cert, key string, trust *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "etcd"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	trust = x509.NewCertPool()
	trust.AddCert(parsed)
	return cert, key, trust
}

func freeURL(t *testing.T, scheme string) url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return url.URL{Scheme: scheme, Host: l.Addr().String()}
}

// TestClusterWithTLSAndUsers opens a cluster as operators run one: TLS, and a user who
// may touch our keys alone.
func TestClusterWithTLSAndUsers(t *testing.T) {
	cert, key, trust := certificate(t)
	c := embed.NewConfig()
	c.Dir = t.TempDir()
	c.ListenClientUrls = []url.URL{freeURL(t, "https")}
	c.AdvertiseClientUrls = c.ListenClientUrls
	c.ListenPeerUrls = nil
	c.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.BcryptCost = 4 // the passwords are not worth more
	c.TickMs, c.ElectionMs = 25, 250
	c.ClientTLSInfo = transport.TLSInfo{CertFile: cert, KeyFile: key}
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	<-server.Server.ReadyNotify()

	endpoint := c.ListenClientUrls[0].String()
	secure := &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12}
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, TLS: secure, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	ctx := t.Context()
	steps := []func() error{
		func() error { _, err := root.UserAdd(ctx, "root", "r"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := root.RoleAdd(ctx, "postern"); return err },
		func() error {
			_, err := root.RoleGrantPermission(ctx, "postern", "/postern/v1/", clientv3.GetPrefixRangeEnd("/postern/v1/"), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := root.UserAdd(ctx, "postern", "p"); return err },
		func() error { _, err := root.UserGrantRole(ctx, "postern", "postern"); return err },
		func() error { _, err := root.AuthEnable(ctx); return err },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}

	cfg := etcd.Config{Endpoints: []string{endpoint}, TLS: secure, Username: "postern", Password: "p"}
	s, err := etcd.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	w, err := s.Watch(ctx, 0, "task")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := s.Commit(ctx, store.Op{Key: store.Key{Kind: "task", Name: "a"}, Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	if b, err := w.Next(ctx); err != nil || len(b.Events) != 1 {
		t.Errorf("watch: %v, %v", b, err)
	}
	led := errors.New("led")
	lead, cancel := context.WithCancelCause(ctx)
	if err := s.Lead(lead, "x", func(context.Context, store.Op) error { cancel(led); return nil }); !errors.Is(err, led) {
		t.Errorf("lead: %v", err)
	}
	for name, change := range map[string]func(*etcd.Config){
		"no password":    func(c *etcd.Config) { c.Username, c.Password = "", "" },
		"wrong password": func(c *etcd.Config) { c.Password = "q" },
		"unknown CA":     func(c *etcd.Config) { c.TLS = &tls.Config{MinVersion: tls.VersionTLS12} },
	} {
		wrong := cfg
		change(&wrong)
		soon, cancel := context.WithTimeout(ctx, time.Second)
		if s, err := etcd.Open(soon, wrong); err == nil {
			_ = s.Close()
			t.Errorf("%s: opened", name)
		}
		cancel()
	}
}

// TestCompaction compacts a real history under a watch, and under a replica.
func TestCompaction(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	t.Cleanup(func() { _ = s.Close() })
	raw, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + filepath.Join(dir, "etcd.sock")}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	c := store.NewCache(s, nil, "task")
	ctx, cancel := context.WithCancel(t.Context())
	g := run.New(ctx)
	g.Go("cache", c.Run)
	defer func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}()
	<-c.Ready()
	var first, last int64
	for range 20 {
		last, err = s.Commit(ctx, store.Op{Key: store.Key{Kind: "task", Name: "a"}, Value: []byte("x"), If: store.AnyRevision})
		if err != nil {
			t.Fatal(err)
		}
		if first == 0 {
			first = last
		}
	}
	if _, err := raw.Compact(ctx, last); err != nil {
		t.Fatal(err)
	}
	w, err := s.Watch(ctx, first, "task")
	if err == nil {
		_, err = w.Next(ctx)
		w.Close()
	}
	if !errors.Is(err, store.ErrCompacted) {
		t.Errorf("watch from before the compaction: %v", err)
	}
	last, err = s.Commit(ctx, store.Op{Key: store.Key{Kind: "task", Name: "b"}, Value: []byte("y"), If: store.AnyRevision})
	if err != nil {
		t.Fatal(err)
	}
	soon, done := context.WithTimeout(ctx, wait.Patience)
	defer done()
	if err := c.WaitFor(soon, last); err != nil {
		t.Errorf("the replica stands still: %v", err)
	}
	if len(c.List("task")) != 2 {
		t.Errorf("the replica has %v", c.List("task"))
	}
}
