// Package oauth lends access tokens that an authorization server gives to a client of its
// own, by client credentials (RFC 6749, section 4.4). The client's secret stays here; a
// token is asked for each lease, and the next one is leased when it ends. What is over
// before its token is revoked where the server takes that (RFC 7009).
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

// Issue asks the server for a token, and records at once how it is revoked: by the time that
// it comes its lease may be over. What cannot be recorded is revoked.
func (s *Source) Issue(ctx context.Context, r credential.Request) (credential.Issued, error) {
	ref := r.Ref.GetOauth()
	id, key, err := s.client(ctx, ref.GetSecret())
	if err != nil {
		return credential.Issued{}, err
	}
	defer key.Wipe()
	client, err := clientOf(ref.GetCa())
	if err != nil {
		return credential.Issued{}, err
	}
	cfg := clientcredentials.Config{ClientID: id, ClientSecret: string(key.Reveal()), TokenURL: ref.GetTokenUrl(), Scopes: ref.GetScopes()}
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
	h := handle{End: end}
	if u := ref.GetRevocationUrl(); u != "" {
		h.URL, h.CA, h.Secret, h.Token = u, ref.GetCa(), ref.GetSecret(), []byte(t.AccessToken)
	}
	text, err := h.bytes()
	if err == nil && h.URL != "" {
		err = r.Record(ctx, text)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		return credential.Issued{}, errors.Join(err, s.Revoke(ctx, text))
	}
	return credential.Issued{Credential: &nodev1.Credential{Account: id, Password: []byte(t.AccessToken)}, Handle: text, Expires: end}, nil
}

// client is who asks, by a Secret; the caller wipes the key.
func (s *Source) client(ctx context.Context, name string) (id string, key secret.Bytes, err error) {
	values, err := s.secret(ctx, name)
	if err != nil {
		return "", secret.Bytes{}, err
	}
	key = values["password"]
	delete(values, "password")
	id = string(values["username"].Reveal())
	for _, v := range values {
		v.Wipe()
	}
	if id == "" || key.Len() == 0 {
		key.Wipe()
		return "", secret.Bytes{}, fmt.Errorf("secret %q is no client of an authorization server: it needs username and password", name)
	}
	return id, key, nil
}

// clientOf makes the client that speaks to the server. It follows nothing: the secret is
// for the server that is named. It is used once, and so keeps no connection: nobody could
// close that behind the transport that traces.
func clientOf(ca string) (*http.Client, error) {
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("the CA of the authorization server cannot be read")
		}
	}
	return &http.Client{
		Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: otelhttp.NewTransport(&http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: secure, ForceAttemptHTTP2: true, TLSHandshakeTimeout: timeout, DisableKeepAlives: true}),
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
