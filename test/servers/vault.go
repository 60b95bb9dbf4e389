package servers

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/posterngate/postern/test/ports"
)

const (
	vaultPackage   = "github.com/hashicorp/vault"
	postgresPlugin = "postgresql-database-plugin"
)

// vaultHelper is the Vault server without its cloud plugins, and the database plugin.
var vaultHelper = helper{
	name:     "vault",
	packages: []string{vaultPackage, vaultPackage + "/plugins/database/postgresql/" + postgresPlugin},
	flags:    []string{"-trimpath", "-tags", "minimal", "-ldflags", "-s -w"},
	about:    "about five minutes on two cores",
}

// VaultServer is a running Vault in development mode: unsealed, in memory, with TLS.
type VaultServer struct {
	Addr   string // https://127.0.0.1:port
	Token  string // the root token
	CAFile string

	client *http.Client
	proc   *process
}

// Vault starts a Vault for one test; it is gone at the test's end.
func Vault(t testing.TB) *VaultServer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Minute)
	defer cancel()
	v, stop, err := StartVault(ctx, folder(t, "vault"), 0, logTo(t))
	if err != nil {
		t.Fatalf("start Vault: %v", err)
	}
	t.Cleanup(stop)
	return v
}

// StartVault starts a Vault with the PostgreSQL plugin on the port, or on a free one
// for 0. It keeps nothing but its certificate: secrets are gone when it stops.
func StartVault(ctx context.Context, dir string, port int, log func(string)) (v *VaultServer, stop func(), err error) {
	bin, err := build(ctx, vaultHelper, log)
	if err != nil {
		return nil, nil, err
	}
	plugins := filepath.Join(dir, "plugins") // Vault runs whatever lies in there
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return nil, nil, err
	}
	link := filepath.Join(plugins, postgresPlugin)
	_ = os.Remove(link)
	if err := os.Link(filepath.Join(bin, postgresPlugin), link); err != nil {
		_ = os.Remove(link)
		if err := copyExecutable(filepath.Join(bin, postgresPlugin), link); err != nil {
			return nil, nil, err
		}
	}
	for try := 1; ; try++ {
		at := port
		if at == 0 {
			var err error
			if at, err = ports.Take(); err != nil {
				return nil, nil, err
			}
		}
		v, err := startVault(ctx, filepath.Join(bin, "vault"), dir, plugins, at)
		if err == nil {
			return v, func() { v.proc.stop(syscall.SIGTERM) }, nil
		}
		if !portClash(err) || port != 0 || try == portTries {
			return nil, nil, err
		}
	}
}

func copyExecutable(from, to string) error {
	if err := copyFile(from, to); err != nil {
		return err
	}
	return os.Chmod(to, 0o755)
}

func startVault(ctx context.Context, bin, dir, plugins string, port int) (*VaultServer, error) {
	certs := filepath.Join(dir, "tls")
	if err := os.MkdirAll(certs, 0o755); err != nil {
		return nil, err
	}
	v := &VaultServer{
		Addr: fmt.Sprintf("https://127.0.0.1:%d", port), Token: "root-" + randomHex(),
		CAFile: filepath.Join(certs, "vault-ca.pem"),
	}
	logFile := filepath.Join(dir, "vault.log")
	_ = os.Remove(logFile)
	cmd := exec.Command(bin, "server", "-dev", "-dev-tls", "-dev-tls-cert-dir="+certs,
		"-dev-root-token-id="+v.Token, fmt.Sprintf("-dev-listen-address=127.0.0.1:%d", port),
		"-dev-plugin-dir="+plugins, "-dev-no-store-token", "-log-level=warn")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + os.TempDir()}
	var err error
	if v.proc, err = start("Vault", cmd, logFile); err != nil {
		return nil, err
	}
	err = waitReady(ctx, v.proc, func(ctx context.Context) error {
		if v.client == nil {
			ca, err := os.ReadFile(v.CAFile)
			if err != nil {
				return err
			}
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM(ca) {
				return errors.New("the CA is not written yet")
			}
			v.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
		}
		_, err := v.Do(ctx, http.MethodGet, "sys/plugins/catalog/database/"+postgresPlugin, nil)
		return err
	})
	if err != nil {
		v.proc.kill()
		return nil, err
	}
	return v, nil
}

// Do calls Vault's API as root, and returns the answer's body; path has no "/v1/".
func (v *VaultServer) Do(ctx context.Context, method, path string, body any) (map[string]any, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, v.Addr+"/v1/"+path, in)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Vault-Token", v.Token)
	resp, err := v.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("vault %s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(b))
	}
	var out map[string]any
	if len(b) > 0 {
		err = json.Unmarshal(b, &out)
	}
	return out, err
}

// Must is Do; an error ends the test.
func (v *VaultServer) Must(t testing.TB, method, path string, body any) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := v.Do(ctx, method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
