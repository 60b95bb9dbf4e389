// Package config is the reference of postern-control's configuration: one struct,
// whose comments are the manual.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/posterngate/postern/pkg/conf"
	"github.com/posterngate/postern/pkg/telemetry"
)

// Config is everything that a control plane can be told. Unknown keys are refused.
type Config struct {
	// DataDir holds the key file, and whatever is embedded: etcd and recordings.
	DataDir string `json:"dataDir"`

	// API is where people and automation connect.
	API Listener `json:"api"`

	// Nodes is where nodes connect, with mutual TLS.
	Nodes Listener `json:"nodes"`

	// Debug is where /livez, /readyz and /metrics are served; a loopback address, or
	// unix:PATH. Empty serves none.
	Debug string `json:"debug"`

	// URL is the API as people reach it, for links in notices; the default is made of
	// the API's first host and port.
	URL string `json:"url"`

	// KeyFile is the key that seals secrets at rest. It is made on the first start, and
	// must be kept apart from backups of the store. The default is DataDir/keeper.key.
	KeyFile string `json:"keyFile"`

	// AuditDir is the folder of the audit log. Several replicas must share it: one at a
	// time writes. Keep copies of it, and of its checkpoint, where nobody who runs the
	// store can reach. The default is DataDir/audit.
	AuditDir string `json:"auditDir"`

	// AuditKey is the file with the key that signs the audit log's checkpoints; replicas
	// share it. It is made on the first start, and the public half beside it, with the
	// suffix .pub; for a log that there is already it is not. The default is DataDir/audit.key.
	AuditKey string `json:"auditKey"`

	// Etcd is the cluster that keeps policy; left out, one is embedded.
	Etcd Etcd `json:"etcd"`

	// Issuers are the OIDC issuers at which people sign in.
	Issuers []Issuer `json:"issuers"`

	// Admins may do everything from the first start on.
	Admins []Admin `json:"admins"`

	// Vault is where credentials with a vault reference come from.
	Vault *Vault `json:"vault"`

	// Hooks take signed webhooks that say which tickets and jobs are closed: POST to
	// URL/hooks/NAME. Grants that a Binding binds to one of them end with it. Who sends a
	// message again, signed anew, says in its "time" when it came about: of messages that
	// overtake each other the latest holds, and older ones are answered with 409.
	Hooks []Hook `json:"hooks"`

	// Channels are told what waits for people, and what became of it.
	Channels []Channel `json:"channels"`

	// Recordings says where recordings are kept.
	Recordings Recordings `json:"recordings"`

	// LeaseTTL is how long a borrowed credential lives without a renewal, where its task
	// does not let a node go on alone for longer; 5m where empty. Half of it means twice
	// the writes to etcd. What a node has that fell silent is taken back before.
	LeaseTTL conf.Duration `json:"leaseTTL"`

	// Telemetry says where logs, traces and metrics go.
	Telemetry telemetry.Config `json:"telemetry"`
}

// Listener is one TLS socket.
type Listener struct {
	// Addr is host:port; port 0 takes a free one.
	Addr string `json:"addr"`
	// Hosts are the names and addresses that the certificate is for, beside the host of
	// Addr.
	Hosts []string `json:"hosts"`
}

// Etcd says how to reach an external cluster.
type Etcd struct {
	// Endpoints are the members' client URLs.
	Endpoints []string `json:"endpoints"`
	// CA, Cert and Key are PEM files for TLS with the cluster.
	CA   string `json:"ca"`
	Cert string `json:"cert"`
	Key  string `json:"key"`
	// Username and PasswordFile log in where the cluster asks for it.
	Username     string `json:"username"`
	PasswordFile string `json:"passwordFile"`
}

// Issuer is one OIDC issuer.
type Issuer struct {
	// Name stands before the names of subjects and groups where there are several
	// issuers, as in corp/alice and corp/analysts.
	Name string `json:"name"`
	// URL is the issuer, exactly as its tokens say it.
	URL string `json:"url"`
	// CA is a PEM file that signs the issuer's TLS certificate; the system's where empty.
	CA string `json:"ca"`
	// APIAudience and DataAudience are the audiences of tokens for the API and for
	// listeners; "postern-api" and "postern-data" where empty.
	APIAudience  string `json:"apiAudience"`
	DataAudience string `json:"dataAudience"`
	// APIClientID and DataClientID are the public clients that get those tokens; the
	// audiences where empty. Agents that sign in by themselves are given the latter as the
	// id of their client.
	APIClientID  string `json:"apiClientId"`
	DataClientID string `json:"dataClientId"`
	// WebClientID is the client of the web pages, whose redirect URI is URL/web/callback, and
	// the audience of its tokens; "postern-web" where empty.
	WebClientID string `json:"webClientId"`
	// WebClientSecretFile holds that client's secret; left out, it is a public client.
	WebClientSecretFile string `json:"webClientSecretFile"`
	// AllowSharedAudience lets one audience serve both. Only for trying things out.
	AllowSharedAudience bool `json:"allowSharedAudience"`
	// NameClaim, EmailClaim and GroupsClaim say where those stand in a token; sub,
	// email and groups where empty.
	NameClaim   string `json:"nameClaim"`
	EmailClaim  string `json:"emailClaim"`
	GroupsClaim string `json:"groupsClaim"`
	// EmailsVerified lets an e-mail address count where the token does not say whether it is
	// verified (email_verified), as those of Entra ID never do: for an issuer alone that lets
	// nobody choose their own. One that is said not to be verified never counts.
	EmailsVerified bool `json:"emailsVerified"`
	// Algorithms that may sign; RS256, ES256 and EdDSA where empty.
	Algorithms []string `json:"algorithms"`
	// Scopes that the command line asks for; openid, profile, email and groups where empty.
	Scopes []string `json:"scopes"`
	// Leeway for clocks that differ; 60s where empty.
	Leeway conf.Duration `json:"leeway"`
}

// Admin selects subjects; exactly one field is set.
type Admin struct {
	// Subject by name; ISSUER/NAME where there are several issuers.
	Subject string `json:"subject"`
	// Group whose members are meant; ISSUER/GROUP where there are several issuers.
	Group string `json:"group"`
}

// Vault says how to reach and log in to Vault. Exactly one of tokenFile, appRole,
// jwt and kubernetes is set.
type Vault struct {
	// Address such as https://vault:8200.
	Address string `json:"address"`
	// CA is a PEM file that signs Vault's certificate; the system's where empty.
	CA string `json:"ca"`
	// Namespace of Vault Enterprise.
	Namespace string `json:"namespace"`
	// TokenFile holds a token.
	TokenFile string `json:"tokenFile"`
	// AppRole logs in with a role id and a secret id.
	AppRole *VaultAppRole `json:"appRole"`
	// JWT logs in with a token from a file, which is read again at each login.
	JWT *VaultJWT `json:"jwt"`
	// Kubernetes logs in with the service account's token.
	Kubernetes *VaultJWT `json:"kubernetes"`
	// TokenRole is the token role through which a child token is made for each lease;
	// "postern" where empty.
	TokenRole string `json:"tokenRole"`
}

// VaultAppRole is a login by AppRole.
type VaultAppRole struct {
	// Mount of the auth method; approle where empty.
	Mount string `json:"mount"`
	// RoleID of the role.
	RoleID string `json:"roleId"`
	// SecretIDFile holds the secret id.
	SecretIDFile string `json:"secretIdFile"`
}

// VaultJWT is a login by JWT.
type VaultJWT struct {
	// Mount of the auth method; jwt or kubernetes where empty.
	Mount string `json:"mount"`
	// Role to log in as.
	Role string `json:"role"`
	// TokenFile holds the token; the service account's where empty with kubernetes.
	TokenFile string `json:"tokenFile"`
}

// minLeaseTTL leaves a node the time to try a renewal more than once.
const minLeaseTTL = 10 * time.Second

// Load reads and checks a file.
func Load(path string) (c Config, err error) {
	err = conf.Load(path, &c, c.Check)
	return c, err
}

// Check says what is missing or wrong, and fills in defaults.
func (c *Config) Check() error {
	if c.DataDir == "" {
		return errors.New("dataDir is missing")
	}
	for name, l := range map[string]Listener{"api": c.API, "nodes": c.Nodes} {
		if _, _, err := net.SplitHostPort(l.Addr); err != nil {
			return fmt.Errorf("%s.addr: %w", name, err)
		}
	}
	if err := errors.Join(checkURL(c.URL), telemetry.CheckDebug(c.Debug), c.Telemetry.Check(), c.Etcd.check()); err != nil {
		return err
	}
	if len(c.Issuers) == 0 {
		return errors.New("issuers is missing: nobody could sign in")
	}
	for i, is := range c.Issuers {
		if is.Name == "" {
			return fmt.Errorf("issuers[%d].name is missing", i)
		}
		if u, err := url.Parse(is.URL); err != nil || u.Host == "" {
			return fmt.Errorf("issuers[%d].url: %q is not a URL", i, is.URL)
		}
	}
	for i, a := range c.Admins {
		if (a.Subject == "") == (a.Group == "") {
			return fmt.Errorf("admins[%d]: exactly one of subject and group", i)
		}
	}
	if err := errors.Join(checkHooks(c.Hooks), checkChannels(c.Channels)); err != nil {
		return err
	}
	if c.LeaseTTL != 0 && time.Duration(c.LeaseTTL) < minLeaseTTL {
		return fmt.Errorf("leaseTTL: %s is shorter than %s", time.Duration(c.LeaseTTL), minLeaseTTL)
	}
	if err := c.Recordings.check(); err != nil {
		return err
	}
	if c.KeyFile == "" {
		c.KeyFile = c.DataDir + "/keeper.key"
	}
	if c.AuditDir == "" {
		c.AuditDir = c.DataDir + "/audit"
	}
	if c.AuditKey == "" {
		c.AuditKey = c.DataDir + "/audit.key"
	}
	return nil
}

// checkURL refuses what would make no link, or one behind which browsers keep nobody signed in.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	if raw == "" || err == nil && u.Scheme == "https" && u.Host != "" && raw == "https://"+u.Host {
		return nil
	}
	return fmt.Errorf("url: %q is not as https://HOST:PORT, with nothing behind it", raw)
}

// check refuses what would be read of nowhere, first of all where another store than the
// one that is meant would be used.
func (e Etcd) check() error {
	switch {
	case len(e.Endpoints) == 0 && e.CA+e.Cert+e.Key+e.Username+e.PasswordFile != "":
		return errors.New("etcd.endpoints is missing; to embed a store, leave etcd out")
	case (e.Cert == "") != (e.Key == ""):
		return errors.New("etcd: cert and key go together")
	case (e.Username == "") != (e.PasswordFile == ""):
		return errors.New("etcd: username and passwordFile go together")
	}
	return nil
}
