package identity_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/identity"
	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/postern"
)

func verifier(t *testing.T, cfg identity.Config) *identity.Verifier {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	v, err := identity.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func one(i *fakeIssuer) identity.Config {
	return identity.Config{Issuers: []identity.IssuerConfig{{URL: i.url, MFAContexts: []string{"phr"}}}}
}

// refused wants a bad-token error that says text and nothing of the token.
func refused(t *testing.T, name, token string, err error, text string) {
	t.Helper()
	switch {
	case fault.CodeOf(err) != codes.Unauthenticated || !fault.Is(err, "bad-token"):
		t.Errorf("%s: error %v (%s), want bad-token", name, err, fault.CodeOf(err))
	case !strings.Contains(fault.From(err).Reason, text):
		t.Errorf("%s: says %q, want %q", name, fault.From(err).Reason, text)
	case len(token) > 60 && strings.Contains(err.Error(), token[len(token)-40:]):
		t.Errorf("%s: the error repeats the token", name)
	}
}

func TestGoodToken(t *testing.T) {
	i := newIssuer(t)
	v := verifier(t, one(i))
	sub, end, err := v.Authenticate(t.Context(), i.token(map[string]any{"amr": []string{"pwd", "otp"}, "country": "DE"}))
	if err != nil {
		t.Fatal(err)
	}
	if sub.Name != "alice" || sub.Email != "alice@example.com" || !slices.Equal(sub.Groups, []string{"analysts"}) || !sub.MFA || sub.Claims["country"] != "DE" || sub.Workload != "" {
		t.Errorf("subject %+v", sub)
	}
	if d := time.Until(end); d < 59*time.Minute || d > time.Hour {
		t.Errorf("ends in %s", d)
	}
	for name, change := range map[string]map[string]any{
		"one audience in a list": {"aud": []string{"postern-api"}},
		"with its azp":           {"azp": "postern-api"},
		"several with azp":       {"aud": []string{"postern-api", "other"}, "azp": "postern-api"},
		"RFC 3339 is not asked":  {"auth_time": "yesterday"},
		"just expired":           {"exp": time.Now().Add(-50 * time.Second).Unix()},
		"just ahead":             {"iat": time.Now().Add(50 * time.Second).Unix(), "nbf": time.Now().Add(50 * time.Second).Unix()},
	} {
		if _, end, err := v.Authenticate(t.Context(), i.token(change)); err != nil || !end.After(time.Now()) {
			t.Errorf("%s: %v, until %s", name, err, end)
		}
	}
}

// TestSurfaces is the matrix: only the diagonal passes.
func TestSurfaces(t *testing.T) {
	i := newIssuer(t)
	v := verifier(t, one(i))
	surfaces := map[string]func(context.Context, string) (postern.Subject, time.Time, error){"api": v.Authenticate, "data": v.Data, "workload": v.Workload}
	tokens := map[string]string{
		"api":    i.token(nil),
		"data":   i.token(map[string]any{"aud": "postern-data"}),
		"both":   i.token(map[string]any{"aud": []string{"postern-api", "postern-data"}, "azp": "postern-api"}),
		"both/2": i.token(map[string]any{"aud": []string{"postern-data", "postern-api"}, "azp": "postern-data"}),
		"none":   i.token(map[string]any{"aud": nil}),
		"grant":  "pst_" + strings.Repeat("a", 49),
		"join":   "pst_join_" + strings.Repeat("0", 16) + "." + strings.Repeat("0", 32) + "." + strings.Repeat("0", 64),
	}
	for kind, token := range tokens {
		for name, surface := range surfaces {
			_, _, err := surface(t.Context(), token)
			if kind == name {
				if err != nil {
					t.Errorf("%s at %s: %v", kind, name, err)
				}
				continue
			}
			refused(t, kind+" at "+name, token, err, "")
		}
	}
	_, _, err := v.Authenticate(t.Context(), tokens["data"])
	refused(t, "data at api", tokens["data"], err, `wrong audience: this is a token for listeners ("postern-data"); the API wants "postern-api"`)
	_, _, err = v.Data(t.Context(), tokens["api"])
	refused(t, "api at data", tokens["api"], err, `this is a token for the API`)
}

// TestAccessToken: listeners take the access token of a person from the client that is
// configured, and nobody takes any other.
func TestAccessToken(t *testing.T) {
	i := newIssuer(t)
	v := verifier(t, one(i))
	access := func(change map[string]any) string {
		claims := i.claims(map[string]any{"aud": "postern-data", "client_id": "postern-data"})
		maps.Copy(claims, change)
		payload, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		k := i.signer()
		return sign(t, "ES256", k.Key, k.KeyID, map[jose.HeaderKey]any{"typ": "at+jwt"}, payload)
	}
	if sub, _, err := v.Data(t.Context(), access(nil)); err != nil || sub.Name != "alice" {
		t.Errorf("%+v, %v", sub, err)
	}
	for name, c := range map[string]struct {
		change map[string]any
		text   string
	}{
		"another client":         {map[string]any{"client_id": "crawler"}, `to the client "crawler"`},
		"no client":              {map[string]any{"client_id": nil}, "to the client"},
		"the client itself":      {map[string]any{"sub": "postern-data"}, "the client's own"},
		"for the API":            {map[string]any{"aud": "postern-api"}, "for the API"},
		"for both":               {map[string]any{"aud": []string{"postern-data", "postern-api"}, "azp": "postern-data"}, "for both"},
		"for a service":          {map[string]any{"aud": "https://mail.example"}, `"postern-data" is wanted`},
		"said to be a refresher": {map[string]any{"typ": "Refresh"}, "refresh token"},
	} {
		token := access(c.change)
		_, _, err := v.Data(t.Context(), token)
		refused(t, name, token, err, c.text)
	}
	token := access(map[string]any{"aud": "postern-api", "client_id": "postern-api"})
	_, _, err := v.Authenticate(t.Context(), token)
	refused(t, "at the API", token, err, "an ID token is wanted")
	token = access(nil)
	_, _, err = v.Workload(t.Context(), token)
	refused(t, "as a workload", token, err, "an ID token is wanted")
}

func TestBadClaims(t *testing.T) {
	i := newIssuer(t)
	v := verifier(t, one(i))
	now := time.Now()
	for name, c := range map[string]struct {
		change map[string]any
		text   string
	}{
		"expired":            {map[string]any{"exp": now.Add(-5 * time.Minute).Unix()}, "expired at"},
		"expired, 70 s":      {map[string]any{"exp": now.Add(-70 * time.Second).Unix()}, "expired at"},
		"no exp":             {map[string]any{"exp": nil}, "no end"},
		"exp is text":        {map[string]any{"exp": "tomorrow"}, "not a time"},
		"exp is huge":        {map[string]any{"exp": 1e300}, ""},
		"nbf ahead":          {map[string]any{"nbf": now.Add(2 * time.Minute).Unix()}, "ahead of the clock"},
		"iat ahead":          {map[string]any{"iat": now.Add(5 * time.Minute).Unix()}, "ahead of the clock"},
		"no sub":             {map[string]any{"sub": nil}, "no subject"},
		"no aud":             {map[string]any{"aud": nil}, "wrong audience"},
		"other aud":          {map[string]any{"aud": "grafana"}, "wrong audience"},
		"aud is a prefix":    {map[string]any{"aud": "postern-ap"}, "wrong audience"},
		"several, no azp":    {map[string]any{"aud": []string{"postern-api", "x"}}, "azp"},
		"several, other":     {map[string]any{"aud": []string{"postern-api", "x"}, "azp": "x"}, "azp"},
		"azp of another":     {map[string]any{"azp": "grafana"}, "azp"},
		"logout token":       {map[string]any{"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}, "logout"},
		"refresh token":      {map[string]any{"typ": "Refresh"}, "refresh token"},
		"entra overage":      {map[string]any{"groups": nil, "_claim_names": map[string]any{"groups": "src1"}, "_claim_sources": map[string]any{"src1": map[string]any{"endpoint": "https://graph"}}}, "too many for a token"},
		"hasgroups":          {map[string]any{"groups": nil, "hasgroups": true}, "too many for a token"},
		"groups are no list": {map[string]any{"groups": map[string]any{"a": 1}}, "list of names"},
		"groups of numbers":  {map[string]any{"groups": []any{"a", 1}}, "list of names"},
		"name with newline":  {map[string]any{"sub": "ali\nce"}, "characters"},
		"name with space":    {map[string]any{"sub": " alice"}, "characters"},
		"long name":          {map[string]any{"sub": strings.Repeat("a", 300)}, "longer"},
		"act is text":        {map[string]any{"act": "bot"}, "act.sub"},
		"aud in capitals":    {map[string]any{"AUD": "postern-api", "aud": "x"}, "twice"},
		"long":               {map[string]any{"x": strings.Repeat("a", 20<<10)}, "longer than"},
	} {
		token := i.token(c.change)
		_, _, err := v.Authenticate(t.Context(), token)
		refused(t, name, token, err, c.text)
	}
}

// TestConfusion shows tokens that were not signed as they say: the classes of JOSE libraries.
func TestConfusion(t *testing.T) {
	i, other := newIssuer(t), newIssuer(t)
	v := verifier(t, one(i))
	k := i.signer()
	payload, err := json.Marshal(i.claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	good := i.token(nil)
	public := pkix(t, k.Public().Key)
	parts := strings.Split(good, ".")
	rs := rsaKey(t)
	for name, token := range map[string]string{
		"alg none":                  forge(t, map[string]any{"alg": "none"}, payload, func(string) []byte { return nil }),
		"alg None":                  forge(t, map[string]any{"alg": "None", "kid": "k1"}, payload, func(string) []byte { return nil }),
		"no alg":                    forge(t, map[string]any{"kid": "k1"}, payload, es256(t, k.Key)),
		"HS256 with the public key": forge(t, map[string]any{"alg": "HS256", "kid": "k1"}, payload, hs256(public)),
		"HS256 with the PEM":        forge(t, map[string]any{"alg": "HS256", "kid": "k1"}, payload, hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))),
		"RS256 of a stranger":       sign(t, "RS256", rs, "k1", nil, payload),
		"RS512, not allowed":        sign(t, "RS512", rs, "k1", nil, payload),
		"another issuer's key":      sign(t, "ES256", other.signer().Key, "k1", nil, payload),
		"another issuer's token":    other.token(nil),
		"key in the header":         signEmbedded(t, other.signer().Key, payload),
		"key by address":            sign(t, "ES256", other.signer().Key, "k1", map[jose.HeaderKey]any{"jku": other.url + "/keys"}, payload),
		"logout+jwt":                sign(t, "ES256", k.Key, k.KeyID, map[jose.HeaderKey]any{"typ": "logout+jwt"}, payload),
		"secevent+jwt":              sign(t, "ES256", k.Key, k.KeyID, map[jose.HeaderKey]any{"typ": "application/secevent+jwt"}, payload),
		"at+jwt":                    sign(t, "ES256", k.Key, k.KeyID, map[jose.HeaderKey]any{"typ": "at+jwt"}, payload),
		"crit":                      forge(t, map[string]any{"alg": "ES256", "kid": "k1", "crit": []string{"x"}, "x": 1}, payload, es256(t, k.Key)),
		"header twice":              base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","alg":"none"}`)) + "." + parts[1] + "." + parts[2],
		"signature cut":             good[:len(good)-4],
		"no signature":              parts[0] + "." + parts[1] + ".",
		"other claims":              parts[0] + "." + base64.RawURLEncoding.EncodeToString(bytes.Replace(payload, []byte("alice"), []byte("admin"), 1)) + "." + parts[2],
		"JSON form":                 fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2]),
		"five parts":                good + ".a.b",
		"spaces":                    " " + good,
		"empty":                     "",
		"claims twice":              forge(t, map[string]any{"alg": "ES256", "kid": "k1"}, append([]byte(`{"sub":"admin",`), payload[1:]...), es256(t, k.Key)),
		"claims are a list":         forge(t, map[string]any{"alg": "ES256", "kid": "k1"}, []byte(`[]`), es256(t, k.Key)),
		"text after the claims":     forge(t, map[string]any{"alg": "ES256", "kid": "k1"}, append(slices.Clone(payload), []byte(`{}`)...), es256(t, k.Key)),
	} {
		_, _, err := v.Authenticate(t.Context(), token)
		refused(t, name, token, err, "")
	}
	if _, _, err := v.Authenticate(t.Context(), good); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func signEmbedded(t *testing.T, key any, payload []byte) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, &jose.SignerOptions{EmbedJWK: true})
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

func TestKeyRotation(t *testing.T) {
	i := newIssuer(t)
	now := time.Now()
	cfg := one(i)
	cfg.Now = func() time.Time { return now }
	v := verifier(t, cfg)
	old := i.token(map[string]any{"exp": now.Add(48 * time.Hour).Unix()})
	check := func(name, token string, good bool) {
		t.Helper()
		if _, _, err := v.Authenticate(t.Context(), token); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	check("first", old, true)
	i.rotate("k2")
	fresh := i.token(map[string]any{"exp": now.Add(48 * time.Hour).Unix()})
	check("new key at once", fresh, true)
	check("old key still", old, true)
	i.retire()
	now = now.Add(6 * time.Minute)
	check("new key later", fresh, true)
	check("old key once it was taken back", old, false)
	i.down.Store(true)
	now = now.Add(20 * time.Hour)
	check("issuer down for 20 hours", fresh, true)
	now = now.Add(5 * time.Hour)
	_, _, err := v.Authenticate(t.Context(), fresh)
	if fault.CodeOf(err) != codes.Unavailable {
		t.Errorf("issuer down for 25 hours: %v", err)
	}
}

// TestAKnownSignatureIsNoMore shows that of a token which was good before, nothing but its
// signature is remembered.
func TestAKnownSignatureIsNoMore(t *testing.T) {
	i := newIssuer(t)
	now := time.Now()
	cfg := one(i)
	cfg.Now = func() time.Time { return now }
	v := verifier(t, cfg)
	token := i.token(map[string]any{"exp": now.Add(2 * time.Minute).Unix()})
	for range 3 {
		if sub, _, err := v.Authenticate(t.Context(), token); err != nil || sub.Name != "alice" {
			t.Fatalf("%+v, %v", sub, err)
		}
	}
	_, _, err := v.Data(t.Context(), token)
	refused(t, "at a listener", token, err, "this is a token for the API")
	head, signature := token[:strings.LastIndex(token, ".")+1], []byte(token[strings.LastIndex(token, ".")+1:])
	signature[0] ^= 1
	_, _, err = v.Authenticate(t.Context(), head+string(signature))
	refused(t, "with another signature", token, err, "not signed by issuer")
	other := i.token(map[string]any{"sub": "mallory", "exp": now.Add(2 * time.Minute).Unix()})
	parts, stolen := strings.Split(other, "."), strings.Split(token, ".")
	_, _, err = v.Authenticate(t.Context(), parts[0]+"."+parts[1]+"."+stolen[2])
	refused(t, "other claims with its signature", token, err, "not signed by issuer")
	now = now.Add(4 * time.Minute)
	_, _, err = v.Authenticate(t.Context(), token)
	refused(t, "once it has ended", token, err, "expired")
}

// BenchmarkAuthenticate is a token that was seen before.
func BenchmarkAuthenticate(b *testing.B) {
	i := newIssuer(b)
	v, err := identity.New(b.Context(), one(i))
	if err != nil {
		b.Fatal(err)
	}
	token := i.token(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := v.Authenticate(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}

// TestStrangersDoNotFloodAnIssuer shows many tokens with unknown keys.
func TestStrangersDoNotFloodAnIssuer(t *testing.T) {
	i, other := newIssuer(t), newIssuer(t)
	v := verifier(t, one(i))
	payload, err := json.Marshal(i.claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	for n := range 50 {
		token := sign(t, "ES256", other.signer().Key, fmt.Sprintf("unknown-%d", n), nil, payload)
		if _, _, err := v.Authenticate(t.Context(), token); err == nil {
			t.Fatal("a stranger's token passed")
		}
	}
	if n := i.fetches.Load(); n > 4 {
		t.Errorf("the issuer was asked %d times", n)
	}
	if _, _, err := v.Authenticate(t.Context(), i.token(nil)); err != nil {
		t.Errorf("a known key during the flood: %v", err)
	}
}

func TestIssuerDownAtStart(t *testing.T) {
	i := newIssuer(t)
	i.down.Store(true)
	v := verifier(t, one(i))
	token := i.token(nil)
	if _, _, err := v.Authenticate(t.Context(), token); fault.CodeOf(err) != codes.Unavailable || !fault.Is(err, "unavailable") {
		t.Errorf("while it is down: %v", err)
	}
	i.down.Store(false)
	if _, _, err := v.Authenticate(t.Context(), token); err != nil {
		t.Errorf("once it is up: %v", err)
	}
}

func TestNames(t *testing.T) {
	a, b := newIssuer(t), newIssuer(t)
	v := verifier(t, identity.Config{Issuers: []identity.IssuerConfig{
		{Name: "corp", URL: a.url, NameClaim: "email"}, {Name: "partner", URL: b.url, GroupsClaim: "roles"},
	}})
	sub, _, err := v.Authenticate(t.Context(), a.token(nil))
	if err != nil || sub.Name != "corp/alice@example.com" || !slices.Equal(sub.Groups, []string{"corp/analysts"}) {
		t.Errorf("subject %q in %q, %v", sub.Name, sub.Groups, err)
	}
	sub, _, err = v.Authenticate(t.Context(), b.token(map[string]any{"roles": "guests", "email_verified": false, "act": map[string]any{"sub": "bot"}}))
	if nested, _, err := v.Authenticate(t.Context(), b.token(map[string]any{"act": map[string]any{"sub": "bot", "act": map[string]any{"sub": "scheduler"}}})); err != nil || !slices.Equal(nested.Actors(), []string{"partner/bot", "partner/scheduler"}) {
		t.Errorf("actors %q, %v", nested.Actors(), err)
	}
	for what, act := range map[string]any{"a text": "bot", "no name": map[string]any{}, "no name within": map[string]any{"sub": "bot", "act": map[string]any{"iss": "x"}}, "null": nil} {
		_, _, err := v.Authenticate(t.Context(), b.token(map[string]any{"act": act}))
		if act != nil {
			refused(t, "the actor is "+what, "", err, "act.sub")
		}
	}
	if err != nil || sub.Name != "partner/alice" || sub.Email != "" || !slices.Equal(sub.Groups, []string{"partner/guests"}) || sub.Actor != "partner/bot" || sub.MFA {
		t.Errorf("subject %+v, %v", sub, err)
	}
	// Whatever one issuer calls a group, it is never one of another's.
	sub, _, err = v.Authenticate(t.Context(), b.token(map[string]any{"roles": []string{"analysts", "corp/analysts", "/corp/analysts", "../corp/analysts"}}))
	if err != nil || slices.ContainsFunc(sub.Groups, func(g string) bool { return !strings.HasPrefix(g, "partner/") }) || len(sub.Groups) != 4 {
		t.Errorf("groups %q, %v", sub.Groups, err)
	}
	// Some issuers write it as a text, and one that says neither yes nor no says no.
	for _, verified := range []any{false, "false", "False", "no", "", 0, 1, []any{true}} {
		_, _, err = v.Authenticate(t.Context(), a.token(map[string]any{"email_verified": verified}))
		refused(t, fmt.Sprintf("unverified name (%#v)", verified), "", err, "not verified")
	}
	for _, verified := range []any{true, "true", "True"} {
		if sub, _, err := v.Authenticate(t.Context(), a.token(map[string]any{"email_verified": verified})); err != nil || sub.Name != "corp/alice@example.com" {
			t.Errorf("a name that is verified (%#v): %+v, %v", verified, sub, err)
		}
	}
	// One that says nothing, as Entra ID, says no either, save where the configuration speaks for it.
	silent := map[string]any{"email_verified": nil}
	_, _, err = v.Authenticate(t.Context(), a.token(silent))
	refused(t, "a name of which nothing is said", "", err, "emailsVerified")
	if sub, _, err := v.Authenticate(t.Context(), b.token(silent)); err != nil || sub.Email != "" || sub.Claims["email"] != nil {
		t.Errorf("an address of which nothing is said: %+v, %v", sub, err)
	}
	lenient := verifier(t, identity.Config{Issuers: []identity.IssuerConfig{{Name: "corp", URL: a.url, NameClaim: "email", EmailsVerified: true}}})
	if sub, _, err := lenient.Authenticate(t.Context(), a.token(silent)); err != nil || sub.Name != "alice@example.com" {
		t.Errorf("where its addresses are verified: %+v, %v", sub, err)
	}
	_, _, err = lenient.Authenticate(t.Context(), a.token(map[string]any{"email_verified": false}))
	refused(t, "and one that is said not to be", "", err, "not verified")
	_, _, err = v.Authenticate(t.Context(), a.token(map[string]any{"email": nil}))
	refused(t, "no name", "", err, "missing")
	// What could be taken for an address of another domain is none (GHSA-c5c4-8r6x-56w3).
	for _, email := range []string{"m@evil.example@example.com", "@example.com", "m@", "m", `"m@evil.example"@example.com`, "m@evil.example,@example.com", "m@evil.example\n@example.com", "m@evil.example <m@example.com>"} {
		_, _, err := v.Authenticate(t.Context(), a.token(map[string]any{"email": email}))
		if err == nil || fault.CodeOf(err) != codes.Unauthenticated {
			t.Errorf("somebody is named %q: %v", email, err)
		}
		sub, _, err := v.Authenticate(t.Context(), b.token(map[string]any{"email": email}))
		if _, claimed := sub.Claims["email"]; err != nil || sub.Email != "" || claimed {
			t.Errorf("%q is an address: %+v, %v", email, sub, err)
		}
	}
	if o := v.Options(); len(o) != 2 || o[1].GetName() != "partner" || o[1].GetDataClientId() != "postern-data" {
		t.Errorf("options %v", o)
	}
}

func TestMFA(t *testing.T) {
	i := newIssuer(t)
	v := verifier(t, one(i))
	for name, c := range map[string]struct {
		change map[string]any
		want   bool
	}{
		"nothing":        {nil, false},
		"mfa":            {map[string]any{"amr": []string{"mfa"}}, true},
		"password only":  {map[string]any{"amr": []string{"pwd"}}, false},
		"token only":     {map[string]any{"amr": []string{"otp"}}, false},
		"both":           {map[string]any{"amr": []string{"pwd", "hwk"}}, true},
		"amr is text":    {map[string]any{"amr": "mfa"}, false},
		"configured acr": {map[string]any{"acr": "phr"}, true},
		"other acr":      {map[string]any{"acr": "1"}, false},
	} {
		sub, _, err := v.Authenticate(t.Context(), i.token(c.change))
		if err != nil || sub.MFA != c.want {
			t.Errorf("%s: %v, %v", name, sub.MFA, err)
		}
	}
}

func TestConfiguration(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	for name, c := range map[string]struct {
		issuers []identity.IssuerConfig
		ok      bool
	}{
		"https":           {[]identity.IssuerConfig{{URL: "https://login.example"}}, true},
		"http":            {[]identity.IssuerConfig{{URL: "http://login.example"}}, false},
		"no URL":          {[]identity.IssuerConfig{{}}, false},
		"shared audience": {[]identity.IssuerConfig{{URL: "https://login.example", APIAudience: "x", DataAudience: "x"}}, false},
		"HS256":           {[]identity.IssuerConfig{{URL: "https://login.example", Algorithms: []string{"HS256"}}}, false},
		"none":            {[]identity.IssuerConfig{{URL: "https://login.example", Algorithms: []string{"none"}}}, false},
		"leeway":          {[]identity.IssuerConfig{{URL: "https://login.example", Leeway: time.Hour}}, false},
		"two, no names":   {[]identity.IssuerConfig{{URL: "https://a.example"}, {URL: "https://b.example"}}, false},
		"two, one name":   {[]identity.IssuerConfig{{Name: "a", URL: "https://a.example"}, {Name: "a", URL: "https://b.example"}}, false},
		"two, one URL":    {[]identity.IssuerConfig{{Name: "a", URL: "https://a.example"}, {Name: "b", URL: "https://a.example"}}, false},
		"bad CA":          {[]identity.IssuerConfig{{URL: "https://a.example", CA: []byte("x")}}, false},
		"let share":       {[]identity.IssuerConfig{{URL: "https://login.example", APIAudience: "x", DataAudience: "x", AllowSharedAudience: true}}, true},
	} {
		log.Reset()
		_, err := identity.New(t.Context(), identity.Config{Issuers: c.issuers, Logger: logger})
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if loud := strings.Contains(log.String(), "ONE AUDIENCE"); loud != (name == "let share") {
			t.Errorf("%s: log %q", name, log.String())
		}
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
