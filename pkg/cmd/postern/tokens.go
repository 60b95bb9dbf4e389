package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/oauth2"
)

// tokens are what a login left behind.
type tokens struct {
	Addr   string `json:"addr"`
	Issuer string `json:"issuer"`
	API    token  `json:"api"`
	Data   token  `json:"data"`
}

// kept is the file of a login, which only the user can read: tokens as they are or,
// where there is a keyring, sealed with a key that is there.
type kept struct {
	tokens
	Sealed []byte `json:"sealed,omitempty"`
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

func (a *app) readLogin() (*kept, error) {
	if _, err := a.settings(); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(a.tokenFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, signedOut("not signed in")
	}
	if err != nil {
		return nil, err
	}
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, signedOut("%s is damaged: %w", a.tokenFile(), err)
	}
	return &k, nil
}

func (a *app) loadTokens(ctx context.Context) (*tokens, error) {
	k, err := a.readLogin()
	if err != nil {
		return nil, err
	}
	t := &k.tokens
	if len(k.Sealed) > 0 {
		if t, err = a.unseal(ctx, k.Sealed); err != nil {
			return nil, fail(exitDenied, "unlock the keyring, or sign in again: postern login", "the login is sealed with a key in the keyring: %w", err)
		}
	}
	if t.Addr != a.addr {
		return nil, signedOut("signed in to %s, not to %s", t.Addr, a.addr)
	}
	return t, nil
}

func (a *app) unseal(ctx context.Context, sealed []byte) (*tokens, error) {
	aead, err := a.ringKey(ctx, false)
	if err != nil {
		return nil, err
	}
	b, err := aead.Open(nil, nil, sealed, []byte(a.ringName()))
	if err != nil {
		return nil, err
	}
	var t tokens
	return &t, json.Unmarshal(b, &t)
}

// saveTokens seals what a login left behind where there is a keyring, and else keeps it
// as it is.
func (a *app) saveTokens(ctx context.Context, t *tokens) error {
	if err := os.MkdirAll(a.home, 0o700); err != nil {
		return err
	}
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	if aead, err := a.ringKey(ctx, true); err == nil {
		if b, err = json.Marshal(map[string][]byte{"sealed": aead.Seal(nil, nil, b, []byte(a.ringName()))}); err != nil {
			return err
		}
	} else if ctx.Err() != nil {
		return err
	} else {
		a.unsealed = err
	}
	return replace(a.tokenFile(), b)
}

// forgetTokens removes the login, and its key where there is one.
func (a *app) forgetTokens(ctx context.Context) error {
	if _, err := a.settings(); err != nil {
		return err
	}
	if k, err := a.readLogin(); err == nil && len(k.Sealed) > 0 {
		if _, err := a.ring(ctx, func(k Keyring) (string, error) { return "", k.Delete(a.ringName()) }); err != nil {
			a.say("the key of the login stays in the keyring, and opens nothing any more: %s", err)
		}
	}
	if err := os.Remove(a.tokenFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// where says where the token is kept that the command uses.
func (a *app) where() string {
	if a.env.Getenv("POSTERN_TOKEN") != "" {
		return "POSTERN_TOKEN"
	}
	if k, err := a.readLogin(); err == nil && len(k.Sealed) > 0 {
		return a.tokenFile() + ", sealed with a key in the keyring"
	}
	if a.unsealed != nil {
		return fmt.Sprintf("%s, which only you can read (%s)", a.tokenFile(), a.unsealed)
	}
	return a.tokenFile() + ", which only you can read"
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
	all, err := a.loadTokens(ctx)
	if err != nil {
		return "", err
	}
	t := which(all)
	if time.Until(t.Expires) > slack {
		return t.ID, nil
	}
	if t.Refresh == "" {
		return "", signedOut("the login has ended")
	}
	cfg := oauth2.Config{ClientID: t.ClientID, Endpoint: oauth2.Endpoint{TokenURL: t.TokenURL, AuthStyle: oauth2.AuthStyleInParams}}
	hc, err := a.issuerClient()
	if err != nil {
		return "", err
	}
	fresh, err := cfg.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, hc), &oauth2.Token{RefreshToken: t.Refresh}).Token()
	if err != nil {
		// Another command may have been faster: a refresh token works once.
		if again, lerr := a.loadTokens(ctx); lerr == nil && time.Until(which(again).Expires) > slack {
			return which(again).ID, nil
		}
		err = unanswered(fmt.Errorf("the login could not be renewed: %w", err))
		if unreachable(err) {
			return "", err
		}
		return "", signedOut("%w", err)
	}
	if err := t.take(fresh); err != nil {
		return "", err
	}
	return t.ID, a.saveTokens(ctx, all)
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
