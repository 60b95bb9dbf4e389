package idp

import (
	"net/url"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// client is a public native client: no secret, PKCE, any port of loopback.
type client string

func (c client) GetID() string                     { return string(c) }
func (client) RedirectURIs() []string              { return []string{"http://127.0.0.1/callback"} }
func (client) PostLogoutRedirectURIs() []string    { return nil }
func (client) ApplicationType() op.ApplicationType { return op.ApplicationTypeNative }
func (client) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodNone }
func (client) ResponseTypes() []oidc.ResponseType  { return []oidc.ResponseType{oidc.ResponseTypeCode} }
func (client) LoginURL(id string) string           { return "/login?" + url.Values{"request": {id}}.Encode() }
func (client) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }
func (client) IDTokenLifetime() time.Duration      { return TokenLifetime }
func (client) DevMode() bool                       { return false }
func (client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(s []string) []string { return s }
}
func (client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(s []string) []string { return s }
}
func (client) IsScopeAllowed(scope string) bool     { return scope == "groups" }
func (client) IDTokenUserinfoClaimsAssertion() bool { return true }
func (client) ClockSkew() time.Duration             { return 0 }
func (client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeDeviceCode}
}

// webClient is the client of the control plane's pages: public too, for a provider that
// runs beside it, but sent back to one address alone.
type webClient struct {
	client
	redirect string
}

func (c webClient) RedirectURIs() []string            { return []string{c.redirect} }
func (webClient) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }
func (webClient) GrantTypes() []oidc.GrantType        { return []oidc.GrantType{oidc.GrantTypeCode} }
