package idp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"
)

// SignIn does what a browser and the command line do together: the authorization code
// flow with PKCE, for a person of the sample company. It returns an ID token.
func SignIn(ctx context.Context, issuer, clientID, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cfg := oauth2.Config{
		ClientID: clientID, RedirectURL: "http://127.0.0.1:1/callback", Scopes: []string{"openid", "email", "profile", "groups"},
		Endpoint: oauth2.Endpoint{AuthURL: issuer + "/authorize", TokenURL: issuer + "/oauth/token", AuthStyle: oauth2.AuthStyleInParams},
	}
	verifier := oauth2.GenerateVerifier()
	state := newID()
	// Redirects are followed by hand: the last one is to an address where nobody listens.
	hc := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	next := func(resp *http.Response, err error) (*url.URL, error) {
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode/100 != 3 {
			return nil, fmt.Errorf("idp: sign in %s: %s", name, resp.Status)
		}
		return resp.Location()
	}
	get := func(u string) (*url.URL, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
		if err != nil {
			return nil, err
		}
		return next(hc.Do(req))
	}
	login, err := get(cfg.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier)))
	if err != nil {
		return "", err
	}
	callback, err := next(hc.PostForm(login.String(), url.Values{"request": {login.Query().Get("request")}, "name": {name}, "password": {name}}))
	if err != nil {
		return "", err
	}
	back, err := get(callback.String())
	if err != nil {
		return "", err
	}
	if back.Query().Get("state") != state || back.Query().Get("code") == "" {
		return "", errors.New("idp: the provider did not answer with a code: " + back.Query().Get("error_description"))
	}
	tok, err := cfg.Exchange(ctx, back.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		return "", fmt.Errorf("idp: exchange the code: %w", err)
	}
	id, _ := tok.Extra("id_token").(string)
	if id == "" {
		return "", errors.New("idp: no ID token")
	}
	return id, nil
}
