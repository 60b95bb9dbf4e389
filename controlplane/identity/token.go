package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	maxTokenBytes = 16 << 10
	// maxTime is the last second that a time in a token may name: the year 9999.
	maxTime = 253402300799
)

func bad(format string, args ...any) *fault.Error {
	return fault.New(codes.Unauthenticated, format, args...).WithKind(postern.CodeBadToken.String())
}

// token is a JWT of which nothing is believed yet. It is shared, and never changed.
type token struct {
	raw     string
	hash    [sha256.Size]byte // of raw
	payload []byte            // the claims, as they were written
	claims  map[string]any    // what payload says
	access  bool              // it says that it is an access token (RFC 9068)
}

func (t *token) issuer() string { s, _ := t.claims["iss"].(string); return s }

// peek reads a token without believing it, to find out who should verify it. Only the
// compact form of a plain JWT is let through.
func peek(raw string) (*token, error) {
	if len(raw) > maxTokenBytes {
		return nil, bad("the token is longer than %d bytes", maxTokenBytes)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, bad("this is not an OIDC token")
	}
	_, header, err := decodePart(parts[0])
	if err != nil {
		return nil, bad("the token's header cannot be read")
	}
	payload, claims, err := decodePart(parts[1])
	if err != nil {
		return nil, bad("the token's claims cannot be read: %s", err)
	}
	access := false
	if typ, ok := header["typ"]; ok {
		s, _ := typ.(string)
		switch strings.TrimPrefix(strings.ToLower(s), "application/") {
		case "jwt":
		case "at+jwt":
			access = true
		default:
			return nil, bad("this is not an ID token: its typ is %.40q", s)
		}
	}
	if _, ok := header["crit"]; ok {
		return nil, bad("the token's header has the field crit, which is not understood here")
	}
	return &token{raw: raw, hash: sha256.Sum256([]byte(raw)), payload: payload, claims: claims, access: access}, nil
}

func decodePart(part string) ([]byte, map[string]any, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, nil, errors.New("not base64url")
	}
	o, err := decodeObject(b)
	return b, o, err
}

// decodeObject reads a JSON object, and refuses one that has a name twice, in whatever
// case: readers would not agree on which of them counts.
func decodeObject(b []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	out := map[string]any{}
	seen := map[string]bool{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, errors.New("not a JSON object")
		}
		s, _ := name.(string)
		if seen[strings.ToLower(s)] {
			return nil, fmt.Errorf("%.40q is there twice", s)
		}
		seen[strings.ToLower(s)] = true
		var v any
		if err := d.Decode(&v); err != nil {
			return nil, errors.New("not a JSON object")
		}
		out[s] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, errors.New("not a JSON object")
	}
	if d.More() {
		return nil, errors.New("text after the JSON object")
	}
	return out, nil
}

// witness is a KeySet that remembers what became of the signature.
type witness struct {
	set     oidc.KeySet
	payload []byte
	err     error
}

func (w *witness) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	w.payload, w.err = w.set.VerifySignature(ctx, jwt)
	return w.payload, w.err
}

// verify believes a token of this issuer for this audience, and returns its claims and
// end. Two judges must agree: go-oidc, and check, which knows how to say what is wrong.
// Once they have agreed, time alone can change it, which check asks each time.
func (i *issuer) verify(ctx context.Context, t *token, audience want) (map[string]any, time.Time, error) {
	now := i.now()
	at := i.cached().at
	known := now.Sub(at) <= refreshAfter && i.isProven(proof{t.hash, audience.is}, at)
	var err error
	if !known {
		if err = i.believe(ctx, t, audience, now); err != nil && !errors.Is(err, errJudged) {
			return nil, time.Time{}, err
		}
	}
	end, cerr := i.check(t.claims, audience, now)
	if cerr != nil {
		return nil, time.Time{}, cerr
	}
	if err != nil {
		return nil, time.Time{}, fault.Wrap(err, codes.Unauthenticated, "the token is not a valid ID token of issuer %s", i.url).WithKind(postern.CodeBadToken.String())
	}
	if !known {
		i.prove(proof{t.hash, audience.is}, at) // where the keys are still those
	}
	if !now.Before(end) {
		end = end.Add(i.leeway) // let pass for clocks that differ: it must not seem over to others
	}
	return t.claims, end, nil
}

// errJudged is go-oidc's no to a token whose signature is good.
var errJudged = errors.New("refused by its claims")

// believe asks go-oidc.
func (i *issuer) believe(ctx context.Context, t *token, audience want, now time.Time) error {
	w := &witness{set: i}
	algorithms := make([]string, len(i.algorithms))
	for n, a := range i.algorithms {
		algorithms[n] = string(a)
	}
	_, err := oidc.NewVerifier(i.url, w, &oidc.Config{
		ClientID: audience.is, SupportedSigningAlgs: algorithms,
		Now: func() time.Time { return now.Add(-i.leeway) },
	}).Verify(ctx, t.raw)
	switch {
	case errors.Is(w.err, errUnreachable):
		return fault.Wrap(w.err, codes.Unavailable, "the token cannot be verified now: the keys of issuer %s cannot be had; try again", i.url).WithKind(postern.CodeUnavailable.String())
	case w.payload == nil:
		wrong := bad("the token was not signed by issuer %s with an algorithm that is allowed here", i.url)
		return fault.Wrap(errors.Join(err, w.err), wrong.Code, "%s", wrong.Reason).WithKind(wrong.Kind)
	}
	if !bytes.Equal(w.payload, t.payload) { // never so: what was signed is what was read
		return bad("the token's claims cannot be read: they are not those that were signed")
	}
	if err != nil {
		return errors.Join(errJudged, err)
	}
	return nil
}

// check judges the claims of a token whose signature is good.
func (i *issuer) check(claims map[string]any, audience want, now time.Time) (time.Time, error) {
	if iss, _ := claims["iss"].(string); iss != i.url {
		return time.Time{}, bad("the token says that its issuer is %q, not %q", iss, i.url)
	}
	if sub, _ := claims["sub"].(string); sub == "" {
		return time.Time{}, bad("the token says no subject (claim sub)")
	}
	if _, ok := claims["events"]; ok {
		return time.Time{}, bad("this is a security event or logout token, not an ID token")
	}
	if err := audience.check(claims); err != nil {
		return time.Time{}, err
	}
	end, ok, err := timeClaim(claims, "exp")
	switch {
	case err != nil:
		return time.Time{}, err
	case !ok:
		return time.Time{}, bad("the token has no end (claim exp)")
	case !now.Before(end.Add(i.leeway)):
		return time.Time{}, bad("the token expired at %s, %s ago; sign in again: postern login", end.UTC().Format(time.RFC3339), now.Sub(end).Round(time.Second))
	}
	for _, claim := range []string{"nbf", "iat"} {
		at, ok, err := timeClaim(claims, claim)
		if err != nil {
			return time.Time{}, err
		}
		if ok && at.After(now.Add(i.leeway)) {
			return time.Time{}, bad("the token begins at %s (claim %s), %s ahead of the clock here; at most %s is let pass", at.UTC().Format(time.RFC3339), claim, at.Sub(now).Round(time.Second), i.leeway)
		}
	}
	return end, nil
}

func timeClaim(claims map[string]any, name string) (time.Time, bool, error) {
	v, ok := claims[name]
	if !ok {
		return time.Time{}, false, nil
	}
	f, ok := v.(float64)
	if !ok || f < 0 || f > maxTime {
		return time.Time{}, false, bad("the token's claim %s is not a time", name)
	}
	return time.Unix(int64(f), 0), true, nil
}

// audiences reads the claim aud.
func audiences(claims map[string]any) []string {
	switch v := claims["aud"].(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, a := range v {
			s, ok := a.(string)
			if !ok {
				return nil
			}
			out = append(out, s)
		}
		return out
	}
	return nil
}

// want is the audience that a token must have.
type want struct {
	is     string
	client string // the client that may stand as authorised party, and must where there are several audiences; empty allows one audience alone
	never  string // an audience that must not be there too
	hint   func(have []string) string
}

func (w want) check(claims map[string]any) error {
	have := audiences(claims)
	switch {
	case !slices.Contains(have, w.is):
		return bad("wrong audience: %s", w.hint(have))
	case w.never != "" && slices.Contains(have, w.never):
		return bad("wrong audience: the token is for both the API and listeners; ask the issuer for one that is for %q alone", w.is)
	}
	if w.client == "" {
		if len(have) != 1 {
			return bad("wrong audience: the token is for %q and others; it must be for one alone", w.is)
		}
		return nil
	}
	azp, ok := claims["azp"]
	if !ok && len(have) == 1 {
		return nil
	}
	if s, _ := azp.(string); s != w.client && s != w.is {
		return bad("the token was issued to the client %.80q (claim azp), not to %q", s, w.client)
	}
	return nil
}
