// Package identity says who a token speaks for. It verifies OIDC tokens of people at
// the issuers that are configured, each for just one of two audiences, the API's or the
// listeners', and tokens of workloads by their trust rules. What the subject may do is
// left to policy; grant tokens are the task package's, certificates authority's.
package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/posterngate/postern/pkg/conf"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	defaultLeeway = time.Minute
	maxLeeway     = 5 * time.Minute
)

var (
	defaultAlgorithms = []string{"RS256", "ES256", "EdDSA"}
	// knownAlgorithms are those of public keys; no other may be configured.
	knownAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	defaultScopes   = []string{"openid", "profile", "email", "groups"}
)

// IssuerConfig is one issuer at which people sign in.
type IssuerConfig struct {
	Name string // stands before the names of subjects and groups where there are several issuers
	URL  string // exactly as tokens say it

	APIAudience, DataAudience string // postern-api and postern-data where empty
	APIClientID, DataClientID string // the audiences where empty
	// WebClientID is the client of the pages, and the audience of its tokens; postern-web
	// where empty. WebClientSecret is its secret, where it has one.
	WebClientID, WebClientSecret string
	AllowSharedAudience          bool // one audience for both; only for trying things out

	NameClaim, GroupsClaim, EmailClaim string // sub, groups and email where empty
	// EmailsVerified lets an address count of which the token does not say whether it is verified.
	EmailsVerified bool
	// MFAContexts are values of the claim acr that mean more than one factor, beside
	// what the claim amr says.
	MFAContexts []string

	Algorithms []string      // RS256, ES256 and EdDSA where empty
	Leeway     time.Duration // for clocks that differ; a minute where 0
	Scopes     []string      // what the command line asks for

	HTTPClient *http.Client // for discovery and keys; made from CA where nil
	CA         []byte       // PEM that signs the issuer's certificate; the system's where empty
}

// Config is what a Verifier needs.
type Config struct {
	Issuers []IssuerConfig
	// Workloads are those that exist now; nil where there are none.
	Workloads func() []*typesv1.Workload
	// HTTPClient reaches issuers that only workloads' trust rules name.
	HTTPClient *http.Client
	Now        func() time.Time // time.Now where nil
	Logger     *slog.Logger
}

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	cfg     Config
	issuers []*people

	read  read
	mu    sync.Mutex
	extra map[string]*issuer // by URL, those of workloads alone
}

// people is an issuer at which people sign in.
type people struct {
	*issuer
	IssuerConfig
	prefix string // of subjects, groups and actors: "NAME/" where there are several issuers
}

// New checks the configuration. It reaches no issuer: that happens at the first token,
// so that an issuer that is down keeps nobody's control plane from starting.
func New(ctx context.Context, cfg Config) (*Verifier, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Workloads == nil {
		cfg.Workloads = func() []*typesv1.Workload { return nil }
	}
	v := &Verifier{cfg: cfg, extra: map[string]*issuer{}}
	for i, c := range cfg.Issuers {
		p, err := v.newPeople(c, len(cfg.Issuers) > 1)
		if err != nil {
			return nil, fmt.Errorf("issuer %d (%s): %w", i+1, c.URL, err)
		}
		for _, other := range v.issuers {
			if other.URL == p.URL || other.Name == p.Name && p.prefix != "" {
				return nil, fmt.Errorf("issuer %d (%s): its name or URL is that of another", i+1, c.URL)
			}
		}
		if p.APIAudience == p.DataAudience {
			cfg.Logger.WarnContext(ctx, "ONE AUDIENCE FOR API AND LISTENERS: every node that sees a user's token can act as that user at the API; never do this in production",
				"issuer", p.URL, "audience", p.APIAudience)
		}
		v.issuers = append(v.issuers, p)
	}
	return v, nil
}

func (v *Verifier) newPeople(c IssuerConfig, several bool) (*people, error) {
	or := func(s *string, d string) {
		if *s == "" {
			*s = d
		}
	}
	or(&c.APIAudience, "postern-api")
	or(&c.DataAudience, "postern-data")
	or(&c.APIClientID, c.APIAudience)
	or(&c.DataClientID, c.DataAudience)
	or(&c.WebClientID, "postern-web")
	or(&c.NameClaim, "sub")
	or(&c.GroupsClaim, "groups")
	or(&c.EmailClaim, "email")
	if len(c.Algorithms) == 0 {
		c.Algorithms = defaultAlgorithms
	}
	if len(c.Scopes) == 0 {
		c.Scopes = defaultScopes
	}
	if c.Leeway == 0 {
		c.Leeway = defaultLeeway
	}
	p := &people{IssuerConfig: c}
	switch {
	case c.APIAudience == c.DataAudience && !c.AllowSharedAudience:
		return nil, fmt.Errorf("the audience %q serves both the API and listeners, so that a node could act as its users; give each its own, or set allowSharedAudience to try things out", c.APIAudience)
	case c.WebClientID == c.DataAudience:
		return nil, fmt.Errorf("the audience %q serves both the pages and listeners, so that a node could sign in as its users; give each its own", c.WebClientID)
	case c.Leeway < 0 || c.Leeway > maxLeeway:
		return nil, fmt.Errorf("leeway %s is not between 0 and %s", c.Leeway, maxLeeway)
	}
	for _, alg := range c.Algorithms {
		if !slices.Contains(knownAlgorithms, alg) {
			return nil, fmt.Errorf("algorithm %q is not one of %s", alg, strings.Join(knownAlgorithms, ", "))
		}
	}
	if several {
		if err := object.CheckName(c.Name); err != nil {
			return nil, fmt.Errorf("name: %w", err)
		}
		p.prefix = c.Name + "/"
	}
	client := c.HTTPClient
	if client == nil {
		var err error
		if client, err = clientFor(c.CA); err != nil {
			return nil, err
		}
	}
	var err error
	p.issuer, err = newIssuer(c.URL, c.Algorithms, c.Leeway, client, v.cfg.Now)
	return p, err
}

func clientFor(ca []byte) (*http.Client, error) {
	if len(ca) == 0 {
		return &http.Client{}, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("ca: no PEM certificate")
	}
	return &http.Client{Transport: &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
	}}, nil
}

// checkURL lets https through, and plain http on loopback.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return err
	}
	switch {
	case u.Host == "" || u.User != nil || u.Fragment != "":
		return fmt.Errorf("%q is not the URL of an issuer", raw)
	case u.Scheme == "https" || u.Scheme == "http" && conf.Loopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("%q is not https", raw)
}

// Authenticate verifies a person's token for the API, and says when it ends. Errors are
// *fault.Error: Unauthenticated with the kind "bad-token", or Unavailable where the
// issuer's keys cannot be had.
func (v *Verifier) Authenticate(ctx context.Context, bearer string) (postern.Subject, time.Time, error) {
	if strings.HasPrefix(bearer, "pst_") {
		return postern.Subject{}, time.Time{}, bad("this is a grant token, which works at listeners only; the API wants an OIDC token: run postern login")
	}
	t, err := v.read.token(bearer)
	if err != nil {
		return postern.Subject{}, time.Time{}, err
	}
	return v.person(ctx, t, surfaceAPI)
}

// Data verifies a token for listeners: a person's with the data audience, or a
// workload's own. Clients that know OAuth alone show a person's access token, which is as good
// as an ID token there. Errors are as of Authenticate.
func (v *Verifier) Data(ctx context.Context, token string) (postern.Subject, time.Time, error) {
	t, err := v.read.token(token)
	if err != nil {
		return postern.Subject{}, time.Time{}, err
	}
	if t.access { // which is a person's here, or nobody's
		return v.person(ctx, t, surfaceData)
	}
	sub, end, known, err := v.workload(ctx, t)
	if known || err != nil {
		return sub, end, err
	}
	return v.person(ctx, t, surfaceData)
}

// Workload verifies a workload's own token, and no person's. Errors are as of
// Authenticate.
func (v *Verifier) Workload(ctx context.Context, token string) (postern.Subject, time.Time, error) {
	t, err := peek(token)
	if err == nil && t.access {
		err = errAccess
	}
	if err != nil {
		return postern.Subject{}, time.Time{}, err
	}
	sub, end, known, err := v.workload(ctx, t)
	if err == nil && !known {
		err = errNoWorkload(t)
	}
	return sub, end, err
}

func (v *Verifier) person(ctx context.Context, t *token, s surface) (postern.Subject, time.Time, error) {
	i := slices.IndexFunc(v.issuers, func(p *people) bool { return p.URL == t.issuer() })
	if i < 0 {
		return postern.Subject{}, time.Time{}, bad("the token's issuer %q is not one that is trusted here", t.issuer())
	}
	p := v.issuers[i]
	claims, end, err := p.verify(ctx, t, p.audience(s))
	if err != nil {
		return postern.Subject{}, time.Time{}, err
	}
	if err := p.checkType(t, s); err != nil {
		return postern.Subject{}, time.Time{}, err
	}
	sub, err := p.subject(claims)
	if err == nil {
		v.read.keep(t)
	}
	return sub, end, err
}

// Options tells how to sign in.
func (v *Verifier) Options() []*apiv1.LoginIssuer {
	var out []*apiv1.LoginIssuer
	for _, p := range v.issuers {
		out = append(out, &apiv1.LoginIssuer{
			Name: p.Name, Issuer: p.URL, ApiClientId: p.APIClientID, DataClientId: p.DataClientID, Scopes: slices.Clone(p.Scopes),
		})
	}
	return out
}
