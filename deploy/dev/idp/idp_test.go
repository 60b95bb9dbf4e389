package idp

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

func start(t *testing.T) string {
	t.Helper()
	var p *Provider
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.ServeHTTP(w, r) }))
	t.Cleanup(srv.Close)
	var err error
	p, err = New(srv.URL, filepath.Join(t.TempDir(), "key.pem"), []Person{{Name: "alice", Email: "alice@sample.example", Groups: []string{"analysts"}, Claims: map[string]any{"environment": "prod"}}})
	if err != nil {
		t.Fatal(err)
	}
	return srv.URL
}

func verify(t *testing.T, issuer, clientID, token string) {
	t.Helper()
	prov, err := oidc.NewProvider(t.Context(), issuer)
	if err != nil {
		t.Fatal(err)
	}
	id, err := prov.Verifier(&oidc.Config{ClientID: clientID, SupportedSigningAlgs: []string{"ES256"}}).Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Email       string
		Groups      []string
		Environment string
	}
	if err := id.Claims(&c); err != nil {
		t.Fatal(err)
	}
	if id.Subject != "alice" || c.Email != "alice@sample.example" || len(c.Groups) != 1 || c.Groups[0] != "analysts" || c.Environment != "prod" {
		t.Errorf("subject %q, claims %+v", id.Subject, c)
	}
}

func TestSignIn(t *testing.T) {
	issuer := start(t)
	token, err := SignIn(t.Context(), issuer, DataClient, "alice")
	if err != nil {
		t.Fatal(err)
	}
	verify(t, issuer, DataClient, token)
	if _, err := SignIn(t.Context(), issuer, DataClient, "mallory"); err == nil {
		t.Error("somebody unknown signed in")
	}
}

func TestDeviceFlow(t *testing.T) {
	issuer := start(t)
	cfg := oauth2.Config{ClientID: APIClient, Scopes: []string{"openid", "groups", "offline_access"}, Endpoint: oauth2.Endpoint{
		DeviceAuthURL: issuer + "/device_authorization", TokenURL: issuer + "/oauth/token", AuthStyle: oauth2.AuthStyleInParams}}
	da, err := cfg.DeviceAuth(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.PostForm(da.VerificationURI, url.Values{"user_code": {da.UserCode}, "name": {"alice"}, "password": {"alice"}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	tok, err := cfg.DeviceAccessToken(t.Context(), da)
	if err != nil {
		t.Fatal(err)
	}
	verify(t, issuer, APIClient, tok.Extra("id_token").(string))

	again, err := cfg.TokenSource(t.Context(), &oauth2.Token{RefreshToken: tok.RefreshToken}).Token()
	if err != nil {
		t.Fatal(err)
	}
	verify(t, issuer, APIClient, again.Extra("id_token").(string))
	if _, err := cfg.TokenSource(t.Context(), &oauth2.Token{RefreshToken: tok.RefreshToken}).Token(); err == nil {
		t.Error("a refresh token worked twice")
	}
}

func TestPKCEIsRequired(t *testing.T) {
	issuer := start(t)
	hc := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := hc.Get(issuer + "/authorize?" + url.Values{"client_id": {APIClient}, "response_type": {"code"}, "scope": {"openid"}, "redirect_uri": {"http://127.0.0.1:1/callback"}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if loc := resp.Header.Get("Location"); strings.Contains(loc, "/login") {
		t.Errorf("a login without PKCE began: %s", loc)
	}
}
