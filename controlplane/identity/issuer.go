package identity

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/time/rate"

	"github.com/posterngate/postern/pkg/run"
)

const (
	// Keys are asked for again after refreshAfter, so that a key that the issuer took
	// back is soon refused here, and are used for offline while it cannot be reached: then
	// one asks every refreshEvery, and who comes meanwhile waits for staleWait at most.
	refreshAfter = 5 * time.Minute
	offline      = 24 * time.Hour
	staleWait    = 2 * time.Second
	// A token whose key is not known makes us ask, at most refreshBurst times at once
	// and then every refreshEvery: strangers must not make us flood an issuer.
	refreshEvery = 10 * time.Second
	refreshBurst = 3

	fetchTimeout  = 10 * time.Second
	maxFetchBytes = 1 << 20
	maxKeys       = 100

	// maxProven bounds what is remembered of tokens whose signature is good.
	maxProven = 40_000
)

// A proof is what is remembered of a token that one of the keys has signed.
type proof struct {
	hash     [sha256.Size]byte // of the token
	audience string            // for which it is all that it must be, but for time; empty says nothing of that
}

// errUnreachable means that the issuer's keys could not be had.
var errUnreachable = errors.New("the issuer's keys cannot be had")

// errTooOften is an errUnreachable of our own making.
var errTooOften = fmt.Errorf("%w: asked too often", errUnreachable)

// issuer holds the keys of one issuer; it is an oidc.KeySet.
type issuer struct {
	url        string
	algorithms []jose.SignatureAlgorithm
	leeway     time.Duration
	client     *http.Client
	now        func() time.Time
	limit      *rate.Limiter

	asking run.Shared[reading]

	mu sync.RWMutex
	reading
	failed time.Time          // when they could not be had last
	proven map[proof]struct{} // of tokens that one of these very keys has signed
}

// A reading is the keys of an issuer.
type reading struct {
	keys   []jose.JSONWebKey
	at     time.Time // when they were read; zero is never
	number int       // of readings, this one included
}

var _ oidc.KeySet = (*issuer)(nil)

func newIssuer(url string, algorithms []string, leeway time.Duration, client *http.Client, now func() time.Time) (*issuer, error) {
	if err := checkURL(url); err != nil {
		return nil, err
	}
	i := &issuer{url: url, leeway: leeway, client: bounded(client), now: now, limit: rate.NewLimiter(rate.Every(refreshEvery), refreshBurst)}
	for _, a := range algorithms {
		i.algorithms = append(i.algorithms, jose.SignatureAlgorithm(a))
	}
	return i, nil
}

// VerifySignature implements oidc.KeySet.
func (i *issuer) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(jwt, i.algorithms)
	if err != nil {
		return nil, err
	}
	kid := jws.Signatures[0].Header.KeyID
	have, err := i.current(ctx)
	if err != nil {
		return nil, err
	}
	signed := proof{hash: sha256.Sum256([]byte(jwt))}
	if i.isProven(signed, have.at) {
		return jws.UnsafePayloadWithoutVerification(), nil
	}
	payload, known := try(jws, kid, have.keys)
	if payload == nil && !known {
		fresh, err := i.refresh(ctx, have.number)
		switch {
		case err == nil:
			have = fresh
			payload, _ = try(jws, kid, fresh.keys)
		case errors.Is(err, errTooOften) && i.now().Sub(have.at) < refreshEvery:
			// These keys are as new as can be: it is the token that is wrong.
		default:
			return nil, err
		}
	}
	if payload == nil {
		return nil, errors.New("not signed by a key of the issuer")
	}
	i.prove(signed, have.at)
	return payload, nil
}

// current is the keys that may be used now, read anew where they are to be.
func (i *issuer) current(ctx context.Context) (reading, error) {
	i.mu.RLock()
	have, failed := i.reading, i.failed
	i.mu.RUnlock()
	switch age := i.now().Sub(have.at); {
	case age > offline:
		return i.refresh(ctx, have.number)
	case age > refreshAfter && i.now().Sub(failed) >= refreshEvery:
		ctx, cancel := context.WithTimeout(ctx, staleWait)
		defer cancel()
		if fresh, err := i.refresh(ctx, have.number); err == nil {
			have = fresh
		}
	}
	return have, nil
}

// isProven reports whether the keys that were read at an instant have verified a token
// already. What the token says is judged each time; its signature stays what it was.
func (i *issuer) isProven(p proof, at time.Time) bool {
	i.mu.RLock()
	defer i.mu.RUnlock()
	_, ok := i.proven[p]
	return ok && i.at.Equal(at)
}

// prove notes that the keys that were read at an instant have verified a token.
func (i *issuer) prove(p proof, at time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.at.Equal(at) {
		return // by keys that are not those of now
	}
	if i.proven == nil || len(i.proven) >= maxProven {
		i.proven = map[proof]struct{}{}
	}
	i.proven[p] = struct{}{}
}

// try verifies with the keys that fit. Known says that there was one with the token's
// key id, so that asking for newer keys is no use.
func try(jws *jose.JSONWebSignature, kid string, keys []jose.JSONWebKey) (payload []byte, known bool) {
	for n := range keys {
		k := &keys[n]
		if kid != "" && k.KeyID != kid || k.Algorithm != "" && k.Algorithm != jws.Signatures[0].Header.Algorithm {
			continue
		}
		known = known || kid != ""
		if payload, err := jws.Verify(k); err == nil {
			return payload, true
		}
	}
	return nil, known
}

func (i *issuer) cached() reading {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.reading
}

// refresh returns a later reading than the one that was seen. All who come at once ask once.
func (i *issuer) refresh(ctx context.Context, seen int) (reading, error) {
	for {
		got, err := i.asking.Do(ctx, func(ctx context.Context) (reading, error) {
			if have := i.cached(); have.number > seen {
				return have, nil
			}
			return i.ask(ctx)
		})
		switch {
		case err != nil && !errors.Is(err, errUnreachable): // time was up before anybody answered
			return reading{}, fmt.Errorf("%w: %w", errUnreachable, err)
		case err != nil || got.number > seen:
			return got, err
		}
	}
}

// ask asks the issuer for its keys.
func (i *issuer) ask(ctx context.Context) (reading, error) {
	if !i.limit.AllowN(i.now(), 1) {
		return reading{}, errTooOften
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	keys, err := i.fetch(ctx)
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil {
		i.failed = i.now()
		return reading{}, fmt.Errorf("%w: %w", errUnreachable, err)
	}
	i.reading, i.proven = reading{keys, i.now(), i.number + 1}, nil
	return i.reading, nil
}

// fetch discovers the issuer anew and reads its keys.
func (i *issuer) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, i.client), i.url)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	var meta struct {
		JWKS string `json:"jwks_uri"`
	}
	if err := provider.Claims(&meta); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	if err := checkURL(meta.JWKS); err != nil {
		return nil, fmt.Errorf("discovery: jwks_uri: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, meta.JWKS, nil)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	resp, err := i.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("keys: %s", resp.Status)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return parseKeys(body)
}

// parseKeys reads a JWK set. Keys that are not understood, or not for verifying, are
// left out, and so are symmetric ones: they would be no secret.
func parseKeys(body []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("keys: more than %d", maxKeys)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if json.Unmarshal(raw, &k) != nil || !k.Valid() || !k.IsPublic() || k.Use == "enc" {
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("keys: none that can verify")
	}
	return keys, nil
}

// bounded is client with a bound on time and on what it reads.
func bounded(client *http.Client) *http.Client {
	c := *client
	if c.Timeout == 0 || c.Timeout > fetchTimeout {
		c.Timeout = fetchTimeout
	}
	base := c.Transport
	if base == nil {
		base = http.DefaultTransport
	}
	c.Transport = boundedTransport{base}
	c.CheckRedirect = func(*http.Request, []*http.Request) error {
		return errors.New("an issuer must answer where it says it is, and redirects")
	}
	return &c
}

type boundedTransport struct{ base http.RoundTripper }

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxFetchBytes)
	return resp, nil
}
