// Package vault lends credentials out of HashiCorp Vault: users that its database engine
// makes, and logins kept in KV version 2. For each lease it makes a child token of its
// own, an orphan that ends by itself a minute after the lease's grant, and records the
// child's accessor before the secret is read: whatever happens, the lease can be ended
// through the accessor, and ends by itself if nobody does.
package vault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/vault/api"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

// Config says how to reach Vault and how to log in. Exactly one of TokenFile, AppRole,
// JWT and Kubernetes is set.
//
// The login needs these capabilities, and no right to read any credential:
//
//	path "auth/token/create/TOKENROLE"  { capabilities = ["create", "update"] }
//	path "auth/token/revoke-accessor"   { capabilities = ["update"] }
//	path "auth/token/lookup-self"       { capabilities = ["read"] }
//	path "auth/token/renew-self"        { capabilities = ["update"] }
//	path "sys/leases/renew"             { capabilities = ["update"] }
//	path "sys/leases/revoke"            { capabilities = ["update"] }
//
// The token role gives orphan service tokens, and its allowed policies are what leases
// may read: "MOUNT/creds/ROLE" and "MOUNT/data/PATH".
type Config struct {
	Address    string // such as https://vault:8200; plain http on loopback alone
	CA         string // PEM file that signs Vault's certificate; the system's where empty
	Namespace  string // of Vault Enterprise
	TokenFile  string // holds a token, and is read again when that has ended
	AppRole    *AppRole
	JWT        *JWT
	Kubernetes *JWT
	TokenRole  string // "postern" where empty
	Logger     *slog.Logger
	Now        func() time.Time // time.Now where nil
}

// AppRole logs in with a role id and a secret id.
type AppRole struct {
	Mount        string // approle where empty
	RoleID       string
	SecretIDFile string // read at each login
}

// JWT logs in with a token that an issuer, or Kubernetes, gave to this process.
type JWT struct {
	Mount     string // jwt or kubernetes where empty
	Role      string
	TokenFile string // read at each login; for Kubernetes the service account's where empty
}

const (
	serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	requestTimeout      = 10 * time.Second
	maxFile             = 64 << 10
)

// check says what is wrong, and fills in defaults.
func (c *Config) check() error {
	if c.Logger == nil {
		return errors.New("vault: a logger is required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.TokenRole == "" {
		c.TokenRole = "postern"
	}
	if err := checkPath(c.TokenRole); err != nil {
		return fmt.Errorf("vault: tokenRole: %w", err)
	}
	ways := 0
	if c.TokenFile != "" {
		ways++
	}
	if c.AppRole != nil {
		ways++
		own := *c.AppRole
		own.Mount = orElse(own.Mount, "approle")
		c.AppRole = &own
	}
	for _, w := range []struct {
		jwt         **JWT
		mount, file string
	}{{&c.JWT, "jwt", ""}, {&c.Kubernetes, "kubernetes", serviceAccountToken}} {
		if *w.jwt != nil {
			ways++
			own := **w.jwt
			own.Mount, own.TokenFile = orElse(own.Mount, w.mount), orElse(own.TokenFile, w.file)
			*w.jwt = &own
		}
	}
	if ways != 1 {
		return errors.New("vault: exactly one of tokenFile, appRole, jwt and kubernetes must be set")
	}
	return nil
}

// client makes a client that takes nothing from the environment.
func (c *Config) client() (*api.Client, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := readFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("vault: ca: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("vault: ca: %s holds no certificate", c.CA)
		}
	}
	if err := checkAddress(c.Address); err != nil {
		return nil, err
	}
	client, err := api.NewClient(&api.Config{
		Address: c.Address, MaxRetries: 1, Timeout: requestTimeout,
		HttpClient: &http.Client{Transport: bare{otelhttp.NewTransport(&http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: requestTimeout,
		})}},
	})
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	client.ClearToken()
	client.ClearNamespace()
	if c.Namespace != "" {
		client.SetNamespace(c.Namespace)
	}
	return client, nil
}

func readFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
