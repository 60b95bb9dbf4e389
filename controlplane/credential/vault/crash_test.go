package vault_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/controlplane/credential/sealed"
	"github.com/posterngate/postern/controlplane/credential/vault"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/etcd"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/servers"
	"github.com/posterngate/postern/test/wait"
)

// victim is what a control plane that is going to be killed must know.
type victim struct {
	Vault, VaultCA, TokenFile string
	Etcd                      []string
	EtcdCA, EtcdCert, EtcdKey string
	KeyFile, NodeKey, Session string
	Commit                    int  // kill at this commit
	After                     bool // once it is made; else before
	GrantEnd                  time.Time
}

const victimEnv = "POSTERN_TEST_VICTIM"

func TestMain(m *testing.M) {
	if text := os.Getenv(victimEnv); text != "" {
		fmt.Println("not killed:", lendAndDie(text))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// lendAndDie is the control plane in the child process.
func lendAndDie(text string) error {
	var v victim
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return err
	}
	ctx := context.Background()
	s, err := openEtcd(ctx, v)
	if err != nil {
		return err
	}
	h := &house{log: &buffer{}, policy: world{end: v.GrantEnd}}
	if h.keeper, err = sealed.OpenKeyFile(v.KeyFile); err != nil {
		return err
	}
	src, err := vault.New(vault.Config{Address: v.Vault, CA: v.VaultCA, TokenFile: v.TokenFile, Logger: h.logger()})
	if err != nil {
		return err
	}
	b, err := credential.New(credential.Config{
		Store: &deadly{Store: s, at: v.Commit, after: v.After}, Policy: h.policy, Keeper: h.keeper, Vault: src, Logger: h.logger(),
	})
	if err != nil {
		return err
	}
	key, err := hex.DecodeString(v.NodeKey)
	if err != nil {
		return err
	}
	_, err = b.Lease(ctx, credential.NodeIdentity{Name: "node-1", HPKEKey: key}, ask(v.Session, "reader"))
	return fmt.Errorf("lent: %w %s", err, h.log)
}

// deadly kills its own process at one commit, as kill -9 does.
type deadly struct {
	store.Store
	at    int
	after bool
}

func (d *deadly) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	d.at--
	if d.at == 0 && !d.after {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	rev, err := d.Store.Commit(ctx, ops...)
	if d.at == 0 && d.after {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return rev, err
}

func openEtcd(ctx context.Context, v victim) (*etcd.Store, error) {
	pair, err := tls.LoadX509KeyPair(v.EtcdCert, v.EtcdKey)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(v.EtcdCA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return etcd.Open(ctx, etcd.Config{Endpoints: v.Etcd, TLS: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}})
}

// A control plane is killed at every step of lending. Nothing of it may outlive the
// grant by more than a minute, and what is on file goes as soon as another one looks.
func TestKilledAtEveryStep(t *testing.T) {
	cluster := servers.Etcd(t, 1)
	v := victim{Etcd: cluster.Endpoints, EtcdCA: cluster.CAFile, EtcdCert: cluster.CertFile, EtcdKey: cluster.KeyFile}
	s, err := openEtcd(t.Context(), v)
	check(t, err)
	t.Cleanup(func() { _ = s.Close() })
	h := newHouse(t, s)
	v.Vault, v.VaultCA, v.TokenFile = h.vault.Addr, h.vault.CAFile, h.token
	v.NodeKey, v.GrantEnd = hex.EncodeToString(h.key.PublicKey()), h.policy.end
	v.KeyFile = t.TempDir() + "/keeper.key"
	h.keeper, err = sealed.OpenKeyFile(v.KeyFile)
	check(t, err)

	// Two that nothing can be known about: killed before the accessor is on file.
	unknown := 0
	before := h.accessors()
	for commit := 1; commit <= 3; commit++ { // INTENT, TOKEN, ACTIVE
		for _, after := range []bool{false, true} {
			v.Commit, v.After, v.Session = commit, after, fmt.Sprintf("s-%d-%v", commit, after)
			text, err := json.Marshal(v)
			check(t, err)
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), victimEnv+"="+string(text))
			out, _ := cmd.CombinedOutput()
			if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || st.Signal() != syscall.SIGKILL {
				t.Fatalf("commit %d, after %v: %s", commit, after, out)
			}
			if commit == 2 && !after {
				unknown++
			}
		}
	}
	if h.users() == "0" {
		t.Error("no crash left a user: the test shows nothing")
	}

	// Another control plane, for which the time that makes leases stale has passed.
	later := func() time.Time { return time.Now().Add(10 * time.Minute) }
	g := run.New(t.Context())
	g.Go("sweep", h.broker(h.source(h.config()), later).Run)
	defer func() {
		g.Stop()
		_ = g.Wait()
	}()
	wait.For(t, "no user is left", func() bool { return h.users() == "0" })
	wait.For(t, "no token that is on file is left", func() bool { return len(h.accessors()) == len(before)+unknown })
	for _, a := range h.accessors() {
		if slices.Contains(before, a) {
			continue
		}
		data := h.vault.Must(t, http.MethodPost, "auth/token/lookup-accessor", map[string]any{"accessor": a})["data"].(map[string]any)
		if ttl, _ := data["ttl"].(float64); ttl <= 0 || time.Now().Add(time.Duration(ttl)*time.Second).After(h.policy.end.Add(62*time.Second)) {
			t.Errorf("a token that nobody knows lives for %v s more", data["ttl"])
		}
	}
}
