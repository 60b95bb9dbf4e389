package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/oauth2"
)

// tokens are what a login left behind, kept in a file that only the user can read.
type tokens struct {
	Addr   string `json:"addr"`
	Issuer string `json:"issuer"`
	API    token  `json:"api"`
	Data   token  `json:"data"`
}

// token is an ID token of one client, and what renews it.
type token struct {
	ClientID string    `json:"clientId"`
	TokenURL string    `json:"tokenUrl"`
	ID       string    `json:"idToken"`
	Refresh  string    `json:"refreshToken,omitempty"`
	Expires  time.Time `json:"expires"`
}

// slack is how long before its end a token is renewed.
const slack = time.Minute

func (a *app) tokenFile() string { return filepath.Join(a.home, "tokens.json") }

func (a *app) loadTokens() (*tokens, error) {
	b, err := os.ReadFile(a.tokenFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("not signed in: postern login")
	}
	if err != nil {
		return nil, err
	}
	var t tokens
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, fmt.Errorf("%s: %w; sign in again: postern login", a.tokenFile(), err)
	}
	if t.Addr != a.addr {
		return nil, fmt.Errorf("signed in to %s, not to %s: postern login", t.Addr, a.addr)
	}
	return &t, nil
}

func (a *app) saveTokens(t *tokens) error {
	if err := os.MkdirAll(a.home, 0o700); err != nil {
		return err
	}
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	return replace(a.tokenFile(), b)
}

// apiToken is the token for the API: POSTERN_TOKEN, or that of the login.
func (a *app) apiToken(ctx context.Context) (string, error) {
	return a.token(ctx, func(t *tokens) *token { return &t.API })
}

// dataToken is the token for listeners.
func (a *app) dataToken(ctx context.Context) (string, error) {
	return a.token(ctx, func(t *tokens) *token { return &t.Data })
}

func (a *app) token(ctx context.Context, which func(*tokens) *token) (string, error) {
	if t := a.env.Getenv("POSTERN_TOKEN"); t != "" {
		return t, nil
	}
	all, err := a.loadTokens()
	if err != nil {
		return "", err
	}
	t := which(all)
	if time.Until(t.Expires) > slack {
		return t.ID, nil
	}
	if t.Refresh == "" {
		return "", errors.New("the login has ended: postern login")
	}
	cfg := oauth2.Config{ClientID: t.ClientID, Endpoint: oauth2.Endpoint{TokenURL: t.TokenURL, AuthStyle: oauth2.AuthStyleInParams}}
	hc, err := a.issuerClient()
	if err != nil {
		return "", err
	}
	fresh, err := cfg.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, hc), &oauth2.Token{RefreshToken: t.Refresh}).Token()
	if err != nil {
		// Another command may have been faster: a refresh token works once.
		if again, lerr := a.loadTokens(); lerr == nil && time.Until(which(again).Expires) > slack {
			return which(again).ID, nil
		}
		return "", fmt.Errorf("the login could not be renewed: %w; sign in again: postern login", err)
	}
	if err := t.take(fresh); err != nil {
		return "", err
	}
	return t.ID, a.saveTokens(all)
}

// take keeps what a token endpoint answered.
func (t *token) take(from *oauth2.Token) error {
	id, _ := from.Extra("id_token").(string)
	if id == "" {
		return errors.New("the issuer answered without an ID token")
	}
	exp, err := expiry(id)
	if err != nil {
		return err
	}
	t.ID, t.Expires = id, exp
	if from.RefreshToken != "" {
		t.Refresh = from.RefreshToken
	}
	return nil
}

// issuerClient trusts the system's CAs and that of POSTERN_CA.
func (a *app) issuerClient() (*http.Client, error) {
	return a.httpClient(true)
}
