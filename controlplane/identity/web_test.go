package identity_test

import (
	"net/url"
	"testing"
)

// TestAnswersOfOtherIssuers: a code goes to the issuer that the sign-in began at, and not where
// the answer may have come from another.
func TestAnswersOfOtherIssuers(t *testing.T) {
	const asked = "gave no token for this sign-in" // what the issuer here says to every code
	i := newIssuer(t)
	v := verifier(t, one(i))
	for _, c := range []struct {
		name  string
		named bool
		iss   []string
		says  string
	}{
		{"none of who never says it", false, nil, asked},
		{"its own", false, []string{i.url}, asked},
		{"another's", false, []string{"https://other.example"}, "came from another issuer"},
		{"an empty one", false, []string{""}, "came from another issuer"},
		{"none of who says it", true, nil, "does not say which issuer"},
		{"its own, of who says it", true, []string{i.url}, asked},
	} {
		i.named.Store(c.named)
		l, _, err := v.BeginWeb(t.Context(), v.WebIssuers()[0], "https://postern.example/callback")
		if err != nil {
			t.Fatal(err)
		}
		answer := url.Values{"state": {l.State}, "code": {"c"}}
		if c.iss != nil {
			answer["iss"] = c.iss
		}
		_, _, err = v.FinishWeb(t.Context(), l, "https://postern.example/callback", answer)
		refused(t, c.name, "", err, c.says)
	}
}
