package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// fakeIssuer is a real OIDC issuer as far as verifying goes: discovery, keys, and
// tokens that it signs.
type fakeIssuer struct {
	t       testing.TB
	url     string
	fetches atomic.Int32 // of keys
	down    atomic.Bool
	// hang, where set, keeps whoever asks waiting until it is closed, and then is down.
	hang    atomic.Pointer[chan struct{}]
	hanging atomic.Int32 // how often it was asked meanwhile
	named   atomic.Bool  // its answers to browsers name it

	mu   sync.Mutex
	keys []jose.JSONWebKey // private; the last signs
}

func newIssuer(t testing.TB) *fakeIssuer {
	t.Helper()
	i := &fakeIssuer{t: t}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": i.url, "jwks_uri": i.url + "/keys", "authorization_endpoint": i.url + "/auth", "token_endpoint": i.url + "/token",
			"id_token_signing_alg_values_supported": []string{"RS256", "ES256", "HS256", "none"}, "authorization_response_iss_parameter_supported": i.named.Load(),
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		i.fetches.Add(1)
		i.mu.Lock()
		defer i.mu.Unlock()
		var set jose.JSONWebKeySet
		for _, k := range i.keys {
			set.Keys = append(set.Keys, k.Public())
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(set)
	})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hang := i.hang.Load(); hang != nil {
			i.hanging.Add(1)
			<-*hang
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		if i.down.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	i.url = srv.URL
	i.rotate("k1")
	return i
}

// rotate makes the issuer sign with a new key; the old ones stay published.
func (i *fakeIssuer) rotate(kid string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, jose.JSONWebKey{Key: key, KeyID: kid, Algorithm: "ES256", Use: "sig"})
}

// retire takes all but the newest key back.
func (i *fakeIssuer) retire() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = i.keys[len(i.keys)-1:]
}

func (i *fakeIssuer) signer() jose.JSONWebKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[len(i.keys)-1]
}

// claims are those of a good token for the API, with changes; nil takes one away.
func (i *fakeIssuer) claims(change map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": i.url, "sub": "alice", "aud": "postern-api", "exp": now.Add(time.Hour).Unix(), "iat": now.Unix(),
		"email": "alice@example.com", "email_verified": true, "groups": []string{"analysts"},
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func (i *fakeIssuer) token(change map[string]any) string {
	i.t.Helper()
	payload, err := json.Marshal(i.claims(change))
	if err != nil {
		i.t.Fatal(err)
	}
	k := i.signer()
	return sign(i.t, "ES256", k.Key, k.KeyID, nil, payload)
}

func sign(t testing.TB, alg string, key any, kid string, header map[jose.HeaderKey]any, payload []byte) string {
	t.Helper()
	opts := (&jose.SignerOptions{}).WithType("JWT")
	for k, v := range header {
		opts.WithHeader(k, v)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: jose.JSONWebKey{Key: key, KeyID: kid}}, opts)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// forge makes a token by hand, as no library would.
func forge(t *testing.T, header map[string]any, payload []byte, mac func(signed string) []byte) string {
	t.Helper()
	h, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	signed := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(payload)
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac(signed))
}

func hs256(key []byte) func(string) []byte {
	return func(signed string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(signed))
		return m.Sum(nil)
	}
}

func es256(t *testing.T, key any) func(string) []byte {
	return func(signed string) []byte {
		digest := sha256.Sum256([]byte(signed))
		r, s, err := ecdsa.Sign(rand.Reader, key.(*ecdsa.PrivateKey), digest[:])
		if err != nil {
			t.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
}

func pkix(t *testing.T, key crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
