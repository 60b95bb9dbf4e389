package mask

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/postern"
)

func tokenKey(t testing.TB, domain string) []byte {
	t.Helper()
	key, err := TokenKey([]byte("0123456789abcdef"), domain)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestTokens(t *testing.T) {
	m := &postern.MaskRule{Name: "m", Method: postern.MaskToken, Domain: "email"}
	write := func(typ, domain, value string) string {
		w, err := NewTokenWriter(m, typ, tokenKey(t, domain))
		if err != nil {
			t.Fatal(err)
		}
		if w.Null() || w.Constant() {
			t.Error("a token is a value of its own, and NULL stays NULL")
		}
		return string(w.AppendMasked([]byte(">"), []byte(value)))
	}
	alice := write("text", "email", "alice@example.com")
	if len(alice) != 1+tokenLength || !strings.HasPrefix(alice, ">tok_") || strings.Contains(alice, "alice") {
		t.Errorf("a token is %q", alice)
	}
	for _, c := range []struct {
		typ, domain, value string
		same               bool
	}{
		{"text", "email", "alice@example.com", true},
		{"character varying(40)", "email", "alice@example.com", true},
		{"text", "email", "Alice@example.com", false},
		{"text", "email", "", false},
		{"text", "card", "alice@example.com", false},
	} {
		if got := write(c.typ, c.domain, c.value); (got == alice) != c.same {
			t.Errorf("%+v gives %q, and alice %q", c, got, alice)
		}
	}
	if padded := write("character(30)", "email", "alice@example.com             "); padded != alice+"    " {
		t.Errorf("padded %q", padded)
	}
	// A known answer: tokens that people keep must not change with a release.
	if alice != ">tok_mzkj4Q-OrUQ1HtTdxBaxlw" {
		t.Errorf("the token of alice is another one: %q", alice)
	}
}

func TestTokensFit(t *testing.T) {
	m, key := &postern.MaskRule{Name: "m", Method: postern.MaskToken, Domain: "d"}, tokenKey(t, "d")
	for _, typ := range []string{"integer", "text[]", "jsonb", "character varying(25)", "character(3)", "character", "bytea"} {
		if w, err := NewTokenWriter(m, typ, key); !errors.Is(err, ErrUnfit) || !w.Null() {
			t.Errorf("type %s: %v", typ, err)
		}
	}
	for _, short := range [][]byte{nil, key[:31], {}} {
		if _, err := NewTokenWriter(m, "text", short); !errors.Is(err, ErrUnfit) {
			t.Errorf("a key of %d bytes: %v", len(short), err)
		}
	}
	if _, err := NewTokenWriter(&postern.MaskRule{Method: postern.MaskRedact}, "text", key); !errors.Is(err, ErrUnfit) {
		t.Error("a token for another method")
	}
	if _, err := TokenKey(bytes.Repeat([]byte{1}, minTokenKey-1), "d"); err == nil {
		t.Error("a short key is taken")
	}
}
