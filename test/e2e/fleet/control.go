package fleet

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/test/ports"
	"github.com/posterngate/postern/test/servers"
)

// A Replica is one process of the control plane and what belongs to it.
type Replica struct {
	*Process
	Addr   string // URL of its API
	Nodes  string // host:port where it takes nodes
	Debug  string // host:port of its debug listener
	Config string // file
	Data   string // its data folder

	people *people
}

// ControlConfig is the path of the control plane's configuration.
func (f *Fleet) ControlConfig() string { return f.Replicas[0].Config }

// ControlData is the control plane's data folder.
func (f *Fleet) ControlData() string { return f.Replicas[0].Data }

// NodesAddr is where the control plane takes nodes, host:port.
func (f *Fleet) NodesAddr() string { return f.Replicas[0].Nodes }

// nodesAddrs are all replicas' addresses for nodes, the preferred one first.
func (f *Fleet) nodesAddrs(first int) (addrs []string) {
	for i := range f.Replicas {
		addrs = append(addrs, f.Replicas[(first+i)%len(f.Replicas)].Nodes)
	}
	return addrs
}

// At is the fleet as somebody sees it who asks this replica, and signs in there.
func (f *Fleet) At(r *Replica) *Fleet {
	at := *f
	at.Addr, at.Debug, at.Control, at.people = r.Addr, r.Debug, r.Process, r.people
	return &at
}

// AwaitControl waits until the control plane is ready.
func (f *Fleet) AwaitControl(t testing.TB) time.Duration {
	t.Helper()
	return awaitReady(t, f.Control, f.Debug)
}

// startControl starts the replicas, one after the other.
func (f *Fleet) startControl(t testing.TB) {
	t.Helper()
	common := f.controlCommon(t)
	for i := range max(1, f.opts.Replicas) {
		r := f.newReplica(t, i, common)
		f.Replicas = append(f.Replicas, r)
		if i == 0 {
			f.Addr, f.Debug, f.Control, f.people = r.Addr, r.Debug, r.Process, r.people
			f.idp.Web(r.Addr)
		}
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
		awaitReady(t, r.Process, r.Debug)
	}
	ca, err := os.ReadFile(filepath.Join(f.ControlData(), "ca.pem"))
	if err != nil {
		t.Fatalf("the control plane left no CA for clients: %v", err)
	}
	f.CA = f.File(t, "ca.pem", string(ca))
}

// newReplica writes the configuration of one.
func (f *Fleet) newReplica(t testing.TB, i int, common string) *Replica {
	t.Helper()
	var addrs [3]string
	for i := range addrs {
		var err error
		if addrs[i], err = ports.Addr(); err != nil {
			t.Fatal(err)
		}
	}
	name, suffix := "control", ""
	if i > 0 {
		suffix = fmt.Sprintf("-%d", i+1)
		name += suffix
	}
	r := &Replica{people: &people{at: suffix, homes: map[string]*person{}}, Addr: "https://" + addrs[0], Nodes: addrs[1], Debug: addrs[2], Data: f.Folder(t, name)}
	r.Config = f.File(t, name+".yaml", fmt.Sprintf(`dataDir: %s
api: {addr: "%s", hosts: [localhost]}
nodes: {addr: "%s"}
debug: "%s"
%s`, r.Data, addrs[0], addrs[1], addrs[2], common))
	r.Process = f.process(t, name, "postern-control", r.Data, "--config", r.Config)
	return r
}

// controlCommon is what the configurations of all replicas say.
func (f *Fleet) controlCommon(t testing.TB) string {
	t.Helper()
	var y strings.Builder
	fmt.Fprintf(&y, `issuers:
  - name: sample
    url: %s
    apiAudience: postern-api
    dataAudience: postern-data
    scopes: [openid, profile, email, groups, offline_access]
admins: [{group: admins}]
telemetry: {logLevel: %s, logFormat: json, profiling: %t}
`, f.Issuer, f.logLevel(), f.opts.Profiling)
	if f.Etcd != nil {
		endpoints := slices.Clone(f.Etcd.Endpoints)
		for i, e := range endpoints {
			if f.opts.EtcdProxied {
				p := NewProxy(t, strings.TrimPrefix(e, "https://"))
				f.EtcdProxies = append(f.EtcdProxies, p)
				endpoints[i] = "https://" + p.Addr
			}
		}
		fmt.Fprintf(&y, "etcd:\n  endpoints: [%s]\n  ca: %s\n  cert: %s\n  key: %s\n", strings.Join(endpoints, ", "),
			f.copyIn(t, "etcd/ca.pem", f.Etcd.CAFile), f.copyIn(t, "etcd/client.pem", f.Etcd.CertFile), f.copyIn(t, "etcd/client.key", f.Etcd.KeyFile))
	}
	if f.Vault != nil {
		fmt.Fprintf(&y, "vault: {address: \"%s\", ca: %s, tokenFile: %s, tokenRole: %s}\n", f.Vault.Addr,
			f.copyIn(t, "vault-ca.pem", f.Vault.CAFile), f.File(t, "vault-token", f.vaultToken), servers.VaultTokenRole)
	}
	if f.opts.LeaseTTL != "" {
		fmt.Fprintf(&y, "leaseTTL: %s\n", f.opts.LeaseTTL)
	}
	if f.opts.Replicas > 1 {
		y.WriteString(f.shared(t))
	}
	y.WriteString(f.opts.Control)
	return y.String()
}

// shared is what several replicas have in common: keys, the audit log's folder, a bucket
// for recordings and a database for their index.
func (f *Fleet) shared(t testing.TB) string {
	t.Helper()
	dir := f.Folder(t, "shared")
	bucket := servers.ObjectStore(t, servers.S3Options{})
	password := rand.Text()
	for _, text := range []string{"CREATE ROLE recordings LOGIN PASSWORD '" + password + "'", "CREATE DATABASE recordings OWNER recordings"} {
		if _, err := f.PG.Exec(context.Background(), "postgres", text); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf(`keyFile: %[1]s/keeper.key
auditDir: %[1]s/audit
auditKey: %[1]s/audit.key
recordings:
  s3: {bucket: %[2]s, region: %[3]s, endpoint: "%[4]s", ca: %[5]s, credentialsFile: %[6]s}
  postgres: {url: "postgres://recordings@%[7]s/recordings?sslmode=verify-full&sslrootcert=%[8]s", passwordFile: %[9]s}
`, dir, bucket.Bucket, bucket.Region, bucket.Endpoint, f.copyIn(t, "shared/s3-ca.pem", bucket.CAFile), f.copyIn(t, "shared/s3-credentials", bucket.CredentialsFile),
		f.PG.Addr(), f.copyIn(t, "shared/pg-ca.pem", f.PG.CAFile), f.File(t, "shared/pg-password", password))
}
