package identity

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/postern"
)

// A WebLogin is one sign-in by the browser that is under way. It is the browser's own, and
// must come back from the one in which it began.
type WebLogin struct {
	Issuer   string `json:"issuer"` // its name
	State    string `json:"state"`
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"` // of PKCE
}

// WebIssuers are the names of the issuers at which people sign in on the web pages.
func (v *Verifier) WebIssuers() []string {
	var out []string
	for _, p := range v.issuers {
		out = append(out, p.Name)
	}
	return out
}

func (v *Verifier) byName(name string) (*people, error) {
	i := slices.IndexFunc(v.issuers, func(p *people) bool { return p.Name == name })
	if i < 0 {
		return nil, fault.New(codes.NotFound, "there is no issuer %.40q", name)
	}
	return v.issuers[i], nil
}

// BeginWeb begins a sign-in at an issuer by its name, by authorization code with PKCE, and
// returns where the browser goes. The issuer sends it back to redirect.
func (v *Verifier) BeginWeb(ctx context.Context, issuer, redirect string) (*WebLogin, string, error) {
	p, err := v.byName(issuer)
	if err != nil {
		return nil, "", err
	}
	client, _, err := p.web(ctx, redirect)
	if err != nil {
		return nil, "", err
	}
	l := &WebLogin{Issuer: issuer, State: oauth2.GenerateVerifier(), Nonce: oauth2.GenerateVerifier(), Verifier: oauth2.GenerateVerifier()}
	return l, client.AuthCodeURL(l.State, oidc.Nonce(l.Nonce), oauth2.S256ChallengeOption(l.Verifier)), nil
}

// FinishWeb takes the issuer's answer, as the browser brought it, and says who has signed
// in, and until when their token is good. Errors are as of Authenticate.
func (v *Verifier) FinishWeb(ctx context.Context, l *WebLogin, redirect string, answer url.Values) (postern.Subject, time.Time, error) {
	no := func(err error) (postern.Subject, time.Time, error) { return postern.Subject{}, time.Time{}, err }
	p, err := v.byName(l.Issuer)
	if err != nil {
		return no(err)
	}
	switch {
	case l.State == "" || subtle.ConstantTimeCompare([]byte(answer.Get("state")), []byte(l.State)) != 1:
		return no(bad("this sign-in did not begin here; begin again"))
	case answer.Has("iss") && answer.Get("iss") != p.URL: // RFC 9207
		return no(bad("the answer came from another issuer"))
	case answer.Get("code") == "":
		return no(bad("the issuer let nobody in: %.200q", answer.Get("error")))
	}
	client, named, err := p.web(ctx, redirect)
	if err != nil {
		return no(err)
	}
	if named && !answer.Has("iss") {
		return no(bad("the answer does not say which issuer it came from, as those of %s do", p.URL))
	}
	tokens, err := client.Exchange(oidc.ClientContext(ctx, p.client), answer.Get("code"), oauth2.VerifierOption(l.Verifier))
	if err != nil {
		return no(fault.Wrap(err, codes.Unauthenticated, "issuer %s gave no token for this sign-in; begin again", p.URL).WithKind(postern.CodeBadToken.String()))
	}
	raw, _ := tokens.Extra("id_token").(string)
	t, err := peek(raw)
	if err != nil {
		return no(err)
	}
	claims, end, err := p.verify(ctx, t, p.audience(surfaceWeb))
	if err != nil {
		return no(err)
	}
	if nonce, _ := claims["nonce"].(string); subtle.ConstantTimeCompare([]byte(nonce), []byte(l.Nonce)) != 1 {
		return no(bad("the token is not of this sign-in; begin again"))
	}
	if err := p.checkType(t, surfaceWeb); err != nil {
		return no(err)
	}
	sub, err := p.subject(claims)
	return sub, end, err
}

// web is the client of the pages at this issuer; named says that the issuer's answers name it
// (RFC 9207).
func (p *people) web(ctx context.Context, redirect string) (client *oauth2.Config, named bool, err error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, p.client), p.URL)
	if err != nil {
		return nil, false, fault.Wrap(err, codes.Unavailable, "issuer %s cannot be reached now; try again", p.URL).WithKind(postern.CodeUnavailable.String())
	}
	endpoint := provider.Endpoint()
	for _, u := range []string{endpoint.AuthURL, endpoint.TokenURL} {
		if err := checkURL(u); err != nil {
			return nil, false, fmt.Errorf("issuer %s: discovery: %w", p.URL, err)
		}
	}
	var says struct {
		Named bool `json:"authorization_response_iss_parameter_supported"`
	}
	if err := provider.Claims(&says); err != nil {
		return nil, false, fmt.Errorf("issuer %s: discovery: %w", p.URL, err)
	}
	scopes := slices.DeleteFunc(slices.Clone(p.Scopes), func(s string) bool { return s == oidc.ScopeOfflineAccess })
	return &oauth2.Config{ClientID: p.WebClientID, ClientSecret: p.WebClientSecret, Endpoint: endpoint, RedirectURL: redirect, Scopes: scopes}, says.Named, nil
}
