package idp

import (
	"context"
	"crypto/ecdsa"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// storage keeps logins under way in memory.
type storage struct {
	key    *ecdsa.PrivateKey
	keyID  string
	people map[string]Person

	mu       sync.Mutex // guards what follows
	web      string     // where WebClient is sent back to
	requests map[string]*request
	codes    map[string]string // code -> request
	refresh  map[string]*renewal
	devices  map[string]*device // device code -> state
}

type device struct {
	userCode string
	op.DeviceAuthorizationState
}

func newStorage(key *ecdsa.PrivateKey, people []Person) *storage {
	id, _ := keyID(key) // a P-256 key always has one
	s := &storage{key: key, keyID: id, people: map[string]Person{}, requests: map[string]*request{}, codes: map[string]string{}, refresh: map[string]*renewal{}, devices: map[string]*device{}}
	for _, p := range people {
		s.people[p.Name] = p
	}
	return s
}

// check tells whether name and password fit; the password is the name.
func (s *storage) check(name, password string) bool {
	_, ok := s.people[name]
	return ok && name == password
}

// request is one login under way, and what its tokens are made from.
type request struct {
	id      string
	asked   oidc.AuthRequest
	scopes  []string
	client  string
	subject string
	at      time.Time
}

func (r *request) GetID() string                      { return r.id }
func (r *request) GetACR() string                     { return "" }
func (r *request) GetAMR() []string                   { return []string{"pwd"} }
func (r *request) GetAudience() []string              { return []string{r.client} }
func (r *request) GetAuthTime() time.Time             { return r.at }
func (r *request) GetClientID() string                { return r.client }
func (r *request) GetNonce() string                   { return r.asked.Nonce }
func (r *request) GetRedirectURI() string             { return r.asked.RedirectURI }
func (r *request) GetScopes() []string                { return r.scopes }
func (r *request) GetState() string                   { return r.asked.State }
func (r *request) GetSubject() string                 { return r.subject }
func (r *request) Done() bool                         { return r.subject != "" }
func (r *request) GetResponseType() oidc.ResponseType { return r.asked.ResponseType }
func (r *request) GetResponseMode() oidc.ResponseMode { return r.asked.ResponseMode }
func (r *request) GetCodeChallenge() *oidc.CodeChallenge {
	if r.asked.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: r.asked.CodeChallenge, Method: r.asked.CodeChallengeMethod}
}

// renewal is a login that a refresh token stands for. It is a type of its own because
// the library tells the two apart by their methods.
type renewal struct {
	scopes          []string
	client, subject string
	at              time.Time
}

func (r *renewal) GetAMR() []string            { return []string{"pwd"} }
func (r *renewal) GetAudience() []string       { return []string{r.client} }
func (r *renewal) GetAuthTime() time.Time      { return r.at }
func (r *renewal) GetClientID() string         { return r.client }
func (r *renewal) GetScopes() []string         { return r.scopes }
func (r *renewal) GetSubject() string          { return r.subject }
func (r *renewal) SetCurrentScopes(s []string) { r.scopes = s }

func (s *storage) CreateAuthRequest(_ context.Context, asked *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if asked.CodeChallenge == "" {
		return nil, oidc.ErrInvalidRequest().WithDescription("PKCE is required")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &request{id: newID(), asked: *asked, client: asked.ClientID, scopes: slices.Clone(asked.Scopes), at: time.Now()}
	s.requests[r.id] = r
	return r, nil
}

// signIn says who a login under way is.
func (s *storage) signIn(id, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests[id]
	if r == nil {
		return notFound("login")
	}
	r.subject, r.at = name, time.Now()
	return nil
}

func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.requests[id]; r != nil {
		return r, nil
	}
	return nil, notFound("login")
}

func (s *storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.requests[s.codes[code]]; r != nil {
		return r, nil
	}
	return nil, notFound("code")
}

func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[code] = id
	return nil
}

func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	for code, of := range s.codes {
		if of == id {
			delete(s.codes, code)
		}
	}
	return nil
}

func (s *storage) CreateAccessToken(context.Context, op.TokenRequest) (string, time.Time, error) {
	return newID(), time.Now().Add(TokenLifetime), nil
}

func (s *storage) CreateAccessAndRefreshTokens(_ context.Context, t op.TokenRequest, current string) (id, refresh string, exp time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &renewal{subject: t.GetSubject(), scopes: t.GetScopes(), at: time.Now()}
	switch t := t.(type) {
	case *request:
		r.client = t.client
	case *renewal:
		r.client = t.client
	case *op.DeviceAuthorizationState:
		r.client = t.ClientID
	default:
		return "", "", time.Time{}, notFound("kind of login")
	}
	delete(s.refresh, current)
	refresh = newID()
	s.refresh[refresh] = r
	return newID(), refresh, time.Now().Add(TokenLifetime), nil
}

func (s *storage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.refresh[token]; r != nil {
		copied := *r
		return &copied, nil
	}
	return nil, op.ErrInvalidRefreshToken
}

func (s *storage) TerminateSession(context.Context, string, string) error { return nil }

func (s *storage) RevokeToken(_ context.Context, token, _, _ string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refresh, token)
	return nil
}

func (s *storage) GetRefreshTokenInfo(_ context.Context, _, token string) (string, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.refresh[token]; r != nil {
		return r.subject, token, nil
	}
	return "", "", op.ErrInvalidRefreshToken
}

type signingKey struct{ s *storage }

func (k signingKey) ID() string                                  { return k.s.keyID }
func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k signingKey) Key() any                                    { return k.s.key }

type publicKey struct{ signingKey }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return &k.s.key.PublicKey }

func (s *storage) SigningKey(context.Context) (op.SigningKey, error) { return signingKey{s}, nil }

func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

func (s *storage) KeySet(context.Context) ([]op.Key, error) {
	return []op.Key{publicKey{signingKey{s}}}, nil
}

func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id == WebClient {
		s.mu.Lock()
		defer s.mu.Unlock()
		return webClient{client(id), s.web}, nil
	}
	if id != APIClient && id != DataClient && id != SharedClient {
		return nil, notFound("client")
	}
	return client(id), nil
}

// AuthorizeClientIDSecret refuses: the clients are public and have no secret.
func (s *storage) AuthorizeClientIDSecret(context.Context, string, string) error {
	return notFound("client secret")
}

func (s *storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

func (s *storage) SetUserinfoFromRequest(_ context.Context, u *oidc.UserInfo, r op.IDTokenRequest, _ []string) error {
	return s.fill(u, r.GetSubject())
}

func (s *storage) SetUserinfoFromToken(_ context.Context, u *oidc.UserInfo, _, subject, _ string) error {
	return s.fill(u, subject)
}

func (s *storage) fill(u *oidc.UserInfo, name string) error {
	p, ok := s.people[name]
	if !ok {
		return notFound("person")
	}
	u.Subject = p.Name
	u.Email = p.Email
	u.EmailVerified = true
	u.AppendClaims("groups", p.Groups)
	for k, v := range p.Claims {
		u.AppendClaims(k, v)
	}
	return nil
}

func (s *storage) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return notFound("introspection")
}

// GetPrivateClaimsFromScopes has access tokens say what ID tokens do.
func (s *storage) GetPrivateClaimsFromScopes(_ context.Context, subject, _ string, _ []string) (map[string]any, error) {
	u := &oidc.UserInfo{}
	if err := s.fill(u, subject); err != nil {
		return nil, err
	}
	u.AppendClaims("email", u.Email)
	u.AppendClaims("email_verified", true)
	return u.Claims, nil
}

func (s *storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, notFound("client key")
}

func (s *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, notFound("JWT profile")
}

func (s *storage) StoreDeviceAuthorization(_ context.Context, clientID, deviceCode, userCode string, expires time.Time, scopes []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for code, d := range s.devices {
		if time.Now().After(d.Expires) {
			delete(s.devices, code)
		} else if d.userCode == userCode {
			return op.ErrDuplicateUserCode
		}
	}
	s.devices[deviceCode] = &device{userCode: userCode, DeviceAuthorizationState: op.DeviceAuthorizationState{
		ClientID: clientID, Audience: []string{clientID}, Scopes: scopes, Expires: expires}}
	return nil
}

func (s *storage) GetDeviceAuthorizatonState(_ context.Context, clientID, deviceCode string) (*op.DeviceAuthorizationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[deviceCode]
	if d == nil || d.ClientID != clientID {
		return nil, notFound("device")
	}
	st := d.DeviceAuthorizationState
	return &st, nil
}

// answerDevice lets the device with the user code in as somebody, or not.
func (s *storage) answerDevice(userCode, name string, allow bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.devices {
		if d.userCode == userCode && time.Now().Before(d.Expires) {
			d.Done, d.Denied, d.Subject, d.AMR, d.AuthTime = allow, !allow, name, []string{"pwd"}, time.Now()
			return nil
		}
	}
	return notFound("code, or it has expired")
}
