package identity

import (
	"encoding/base64"
	"strings"
	"testing"
)

func FuzzPeek(f *testing.F) {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	f.Add(part(`{"alg":"ES256","typ":"JWT"}`) + "." + part(`{"iss":"https://a","aud":["x"],"exp":1}`) + ".c2ln")
	f.Add(part(`{"alg":"none"}`) + "." + part(`{"iss":"a","ISS":"b"}`) + ".")
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, raw string) {
		tok, err := peek(raw)
		if err != nil {
			if tok != nil {
				t.Error("a token and an error")
			}
			return
		}
		if tok.claims == nil || strings.Count(raw, ".") != 2 || len(raw) > maxTokenBytes {
			t.Errorf("let through: %q", raw)
		}
		_ = audiences(tok.claims)
		_, _, _ = timeClaim(tok.claims, "exp")
	})
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"1","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseKeys(b)
		if err == nil && len(keys) == 0 {
			t.Error("no keys and no error")
		}
		for _, k := range keys {
			if !k.IsPublic() {
				t.Errorf("let through %T", k.Key)
			}
		}
	})
}
