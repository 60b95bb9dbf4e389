package vault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/controlplane/credential/vault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/servers"
)

// recordTo keeps the accessor that a Source records.
func recordTo(accessor *string) func(context.Context, []byte) error {
	return func(_ context.Context, h []byte) error {
		var handle struct{ Accessor string }
		err := json.Unmarshal(h, &handle)
		*accessor = handle.Accessor
		return err
	}
}

// revokeLater has the test give back what a failed Issue left on record.
func revokeLater(t *testing.T, src *vault.Source) func(context.Context, []byte) error {
	return func(_ context.Context, h []byte) error {
		t.Cleanup(func() { check(t, src.Revoke(context.Background(), h)) })
		return nil
	}
}

// allow lets the control plane's own login use one more path.
func allow(h *house, path string) error {
	old := h.vault.Must(h.t, http.MethodGet, "sys/policies/acl/"+servers.VaultPolicy, nil)["data"].(map[string]any)["policy"].(string)
	_, err := h.vault.Do(h.t.Context(), http.MethodPost, "sys/policies/acl/"+servers.VaultPolicy,
		map[string]any{"policy": old + "\npath \"" + path + "\" { capabilities = [\"create\", \"update\"] }\n"})
	return err
}

// lends reports whether a credential can be had, and gives it back.
func lends(t *testing.T, src *vault.Source) error {
	t.Helper()
	issued, err := src.Issue(t.Context(), credential.Request{
		Ref:   &typesv1.CredentialRef{Vault: &typesv1.VaultRef{Mount: "db", Role: "reader"}},
		Until: time.Now().Add(time.Hour), Record: recordTo(new(string)),
	})
	if err != nil {
		return err
	}
	return src.Revoke(t.Context(), issued.Handle)
}

func mount(t *testing.T, h *house, kind string) {
	t.Helper()
	if _, err := h.vault.Do(t.Context(), http.MethodGet, "sys/auth/"+kind, nil); err != nil {
		h.vault.Must(t, http.MethodPost, "sys/auth/"+kind, map[string]any{"type": kind})
	}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	check(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// appRoleConfig makes a role whose tokens live as said.
func appRoleConfig(t *testing.T, h *house, ttl, most string) vault.Config {
	t.Helper()
	mount(t, h, "approle")
	h.vault.Must(t, http.MethodPost, "auth/approle/role/cp", map[string]any{
		"token_policies": servers.VaultPolicy, "token_no_default_policy": true, "token_ttl": ttl, "token_max_ttl": most,
	})
	id := h.vault.Must(t, http.MethodGet, "auth/approle/role/cp/role-id", nil)["data"].(map[string]any)["role_id"].(string)
	sec := h.vault.Must(t, http.MethodPost, "auth/approle/role/cp/secret-id", nil)["data"].(map[string]any)["secret_id"].(string)
	cfg := h.config()
	cfg.TokenFile = ""
	cfg.AppRole = &vault.AppRole{RoleID: id, SecretIDFile: writeFile(t, sec)}
	return cfg
}

func appRole(t *testing.T, h *house) {
	cfg := appRoleConfig(t, h, "1h", "1h")
	check(t, lends(t, h.source(cfg)))
	cfg.AppRole = &vault.AppRole{RoleID: cfg.AppRole.RoleID, SecretIDFile: writeFile(t, "wrong-secret-id")}
	if err := lends(t, h.source(cfg)); err == nil || strings.Contains(err.Error(), "wrong-secret-id") {
		t.Errorf("with a wrong secret id: %v", err)
	}
}

func jwtLogin(t *testing.T, h *house) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	check(t, err)
	mount(t, h, "jwt")
	h.vault.Must(t, http.MethodPost, "auth/jwt/config", map[string]any{
		"jwt_validation_pubkeys": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), "jwt_supported_algs": "ES256",
	})
	h.vault.Must(t, http.MethodPost, "auth/jwt/role/cp", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": servers.VaultPolicy,
	})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	check(t, err)
	claims, err := json.Marshal(map[string]any{"sub": "postern-control", "aud": "vault", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()})
	check(t, err)
	signed, err := signer.Sign(claims)
	check(t, err)
	token, err := signed.CompactSerialize()
	check(t, err)
	cfg := h.config()
	cfg.TokenFile = ""
	cfg.JWT = &vault.JWT{Role: "cp", TokenFile: writeFile(t, token)}
	check(t, lends(t, h.source(cfg)))
}

// A token that Vault no longer takes is replaced, but not over and over.
func loginAgain(t *testing.T, h *house) {
	cfg := appRoleConfig(t, h, "1h", "1h")
	ahead := time.Duration(0)
	cfg.Now = func() time.Time { return time.Now().Add(ahead) }
	src := h.source(cfg)
	known := h.accessors()
	check(t, lends(t, src))
	for _, a := range h.accessors() {
		if !contains(known, a) {
			h.vault.Must(t, http.MethodPost, "auth/token/revoke-accessor", map[string]any{"accessor": a})
		}
	}
	if err := lends(t, src); err == nil {
		t.Error("logged in again at once: a refusal by policy would make a storm of logins")
	}
	ahead = time.Minute
	check(t, lends(t, src))
}

// A token of two seconds and a maximum of four must be renewed, and then replaced.
func keepsToken(t *testing.T, h *house) {
	src := h.source(appRoleConfig(t, h, "2s", "4s"))
	g := run.New(t.Context())
	g.Go("vault", src.Run)
	defer func() {
		g.Stop()
		check(t, g.Wait())
	}()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for range 14 {
		<-tick.C
		check(t, lends(t, src))
	}
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}

func TestConfigRefused(t *testing.T) {
	good := func() vault.Config {
		return vault.Config{Address: "https://vault.example:8200", TokenFile: "/x", Logger: (&house{log: &buffer{}}).logger()}
	}
	for name, change := range map[string]func(*vault.Config){
		"no login":        func(c *vault.Config) { c.TokenFile = "" },
		"two logins":      func(c *vault.Config) { c.JWT = &vault.JWT{} },
		"no address":      func(c *vault.Config) { c.Address = "" },
		"plain http":      func(c *vault.Config) { c.Address = "http://vault.example:8200" },
		"user in address": func(c *vault.Config) { c.Address = "https://a:b@vault.example" },
		"no such CA":      func(c *vault.Config) { c.CA = "/none/ca.pem" },
		"strange role":    func(c *vault.Config) { c.TokenRole = "../x" },
		"no logger":       func(c *vault.Config) { c.Logger = nil },
	} {
		cfg := good()
		change(&cfg)
		if _, err := vault.New(cfg); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := vault.New(good()); err != nil {
		t.Error(err)
	}
}
