// Package oauth lends access tokens that an authorization server gives to a client of its
// own, by client credentials (RFC 6749, section 4.4). The client's secret stays here; a
// token is asked for each lease, and the next one is leased when it ends.
package oauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/posterngate/postern/controlplane/credential"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/secret"
)

const (
	timeout  = 10 * time.Second
	maxToken = 16 << 10 // bytes
	// unsaid is how long a token is used whose server does not say when it ends.
	unsaid = 5 * time.Minute
	// early is how much sooner than it ends a token is used no more, but for a tenth of its
	// life at the most.
	early = 30 * time.Second
	least = time.Second
)

// Source lends access tokens.
type Source struct {
	secret func(ctx context.Context, name string) (map[string]secret.Bytes, error)
}

var _ credential.Source = (*Source)(nil)

// New makes a Source; secret opens a Secret, whose values the Source wipes.
func New(secret func(ctx context.Context, name string) (map[string]secret.Bytes, error)) *Source {
	return &Source{secret}
}

// Issue asks the server for a token.
func (s *Source) Issue(ctx context.Context, r credential.Request) (credential.Issued, error) {
	ref := r.Ref.GetOauth()
	values, err := s.secret(ctx, ref.GetSecret())
	if err != nil {
		return credential.Issued{}, err
	}
	defer func() {
		for _, v := range values {
			v.Wipe()
		}
	}()
	id, key := values["username"].Reveal(), values["password"].Reveal()
	if len(id) == 0 || len(key) == 0 {
		return credential.Issued{}, fmt.Errorf("secret %q is no client of an authorization server: it needs username and password", ref.GetSecret())
	}
	client, err := clientOf(ref)
	if err != nil {
		return credential.Issued{}, err
	}
	defer client.CloseIdleConnections()
	cfg := clientcredentials.Config{ClientID: string(id), ClientSecret: string(key), TokenURL: ref.GetTokenUrl(), Scopes: ref.GetScopes()}
	if a := ref.GetAudience(); a != "" {
		cfg.EndpointParams = url.Values{"audience": {a}}
	}
	began := time.Now()
	t, err := cfg.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if err != nil {
		return credential.Issued{}, fmt.Errorf("ask %s for a token: %w", ref.GetTokenUrl(), plain(err))
	}
	if !strings.EqualFold(t.Type(), "bearer") || t.AccessToken == "" || len(t.AccessToken) > maxToken {
		return credential.Issued{}, fmt.Errorf("%s gave no bearer token that can be used", ref.GetTokenUrl())
	}
	life := unsaid
	if !t.Expiry.IsZero() {
		life = t.Expiry.Sub(began)
	}
	if life < least {
		return credential.Issued{}, fmt.Errorf("%s gave a token that ends in %s; are the clocks set?", ref.GetTokenUrl(), life)
	}
	end := began.Add(life - min(early, life/10))
	return credential.Issued{Credential: &nodev1.Credential{Account: string(id), Password: []byte(t.AccessToken)}, Handle: handleOf(end), Expires: end}, nil
}

// clientOf makes the client that speaks to the server. It follows nothing: the secret is
// for the server that is named.
func clientOf(ref *typesv1.OAuthRef) (*http.Client, error) {
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if ref.GetCa() != "" {
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM([]byte(ref.GetCa())) {
			return nil, errors.New("the CA of the authorization server cannot be read")
		}
	}
	return &http.Client{
		Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: otelhttp.NewTransport(&http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: secure, ForceAttemptHTTP2: true, TLSHandshakeTimeout: timeout}),
	}, nil
}

// plain is an error without what the server said beside its code: that may quote a secret.
func plain(err error) error {
	var said *oauth2.RetrieveError
	if !errors.As(err, &said) {
		return err
	}
	status := "no answer"
	if said.Response != nil {
		status = said.Response.Status
	}
	return fmt.Errorf("%s %.64q", status, said.ErrorCode)
}

func handleOf(end time.Time) []byte { return []byte(end.UTC().Format(time.RFC3339Nano)) }

// Renew says when the token ends: nothing makes it live longer.
func (s *Source) Renew(_ context.Context, handle []byte, _ time.Time) (time.Time, error) {
	return time.Parse(time.RFC3339Nano, string(handle))
}

// Revoke has nothing to do: the token ends by itself, and with it what it opens.
func (s *Source) Revoke(context.Context, []byte) error { return nil }
