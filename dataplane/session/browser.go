package session

import (
	"bytes"
	"context"
	"crypto/sha256"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

var _ engine.Entrance = (*Keeper)(nil)

// BeginSignIn says where a browser signs in.
func (k *Keeper) BeginSignIn(ctx context.Context, permission, host, verifier string) (string, error) {
	task, resource, err := parsePermission(permission)
	if err != nil {
		return "", err
	}
	challenge := sha256.Sum256([]byte(verifier))
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	resp, err := k.cfg.Control.BeginBrowser(ctx, &nodev1.BeginBrowserRequest{Task: string(task), Resource: string(resource), Host: host, Challenge: challenge[:]})
	if err != nil {
		return "", err
	}
	return resp.GetUrl(), nil
}

// FinishSignIn trades the code for the browser's token.
func (k *Keeper) FinishSignIn(ctx context.Context, host, code, verifier string) (string, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	resp, err := k.cfg.Control.FinishBrowser(ctx, &nodev1.FinishBrowserRequest{Host: host, Code: code, Verifier: verifier})
	if err != nil {
		return "", time.Time{}, err
	}
	return resp.GetToken(), resp.GetExpireTime().AsTime(), nil
}

// SignOut ends what the token opens.
func (k *Keeper) SignOut(ctx context.Context, token string) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	return k.cfg.Control.EndBrowser(ctx, &nodev1.EndBrowserRequest{Token: token})
}

// SignedOut ends the sessions that were opened with a token, by its hash: the browser that
// had it has signed out, here or at another node.
func (k *Keeper) SignedOut(hash []byte) {
	for _, s := range k.live() {
		if bytes.Equal(s.shown[:], hash) {
			s.Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "signed out", Hint: "sign in again"})
		}
	}
}
