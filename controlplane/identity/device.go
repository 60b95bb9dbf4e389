package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/postern"
)

// A Device is one sign-in that was begun elsewhere (RFC 8628), for listeners.
type Device struct {
	// URL is the issuer's page, with the code where the issuer puts it in; Code is what it
	// shows, or asks for.
	URL, Code string
	// Expires is when nobody can sign in by it any more.
	Expires time.Time

	config *oauth2.Config
	client oauth2ctx
	answer *oauth2.DeviceAuthResponse
}

// oauth2ctx puts the issuer's client where the library looks for it.
type oauth2ctx func(context.Context) context.Context

// maxDevice is how long a sign-in may take, whatever an issuer allows.
const maxDevice = 10 * time.Minute

// Device begins a sign-in at the first issuer that offers the device flow. The error is a
// *fault.Error: FailedPrecondition where no issuer does, Unavailable where one cannot be
// reached.
func (v *Verifier) Device(ctx context.Context) (*Device, error) {
	var lost error
	for _, p := range v.issuers {
		d, err := p.device(ctx)
		switch {
		case err != nil:
			lost = errors.Join(lost, fmt.Errorf("%s: %w", p.URL, err))
		case d != nil:
			d.Expires = v.cfg.Now().Add(min(maxDevice, time.Until(d.answer.Expiry)))
			return d, nil
		}
	}
	if lost != nil {
		return nil, fault.Wrap(lost, codes.Unavailable, "no issuer answers; try again").WithKind(postern.CodeUnavailable.String())
	}
	return nil, fault.New(codes.FailedPrecondition, "no issuer lets people sign in on another device").WithKind(postern.CodeBadToken.String())
}

// device begins a sign-in at one issuer; nil where that offers none.
func (p *people) device(ctx context.Context) (*Device, error) {
	client := func(ctx context.Context) context.Context { return oidc.ClientContext(ctx, p.client) }
	provider, err := oidc.NewProvider(client(ctx), p.URL)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	endpoint := provider.Endpoint()
	if endpoint.DeviceAuthURL == "" {
		return nil, nil
	}
	endpoint.AuthStyle = oauth2.AuthStyleInParams // we are a public client
	for _, u := range []string{endpoint.DeviceAuthURL, endpoint.TokenURL} {
		if err := checkURL(u); err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
	}
	d := &Device{client: client, config: &oauth2.Config{ClientID: p.DataClientID, Scopes: slices.Clone(p.Scopes), Endpoint: endpoint}}
	if d.answer, err = d.config.DeviceAuth(client(ctx)); err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	d.Code = d.answer.UserCode
	if d.URL = d.answer.VerificationURIComplete; d.URL == "" {
		d.URL = d.answer.VerificationURI
	}
	if err := checkURL(d.URL); err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	return d, nil
}

// Token waits until somebody has signed in, and is their token for listeners. The error
// is a *fault.Error, Unauthenticated where nobody has.
func (d *Device) Token(ctx context.Context) (string, error) {
	ctx, cancel := context.WithDeadline(ctx, d.Expires)
	defer cancel()
	t, err := d.config.DeviceAccessToken(d.client(ctx), d.answer)
	if err != nil {
		return "", fault.Wrap(err, codes.Unauthenticated, "nobody has signed in: it was refused, or took too long").WithKind(postern.CodeBadToken.String())
	}
	id, _ := t.Extra("id_token").(string)
	if id == "" {
		return "", fault.New(codes.Unauthenticated, "the issuer answered without an ID token").WithKind(postern.CodeBadToken.String())
	}
	return id, nil
}
