package enrol

import (
	"strings"
	"testing"
)

func FuzzTokenID(f *testing.F) {
	_, token := newToken(strings.Repeat("0a", 32))
	f.Add(token)
	f.Add("pst_join_")
	f.Add(strings.Replace(token, ".", "..", 1))
	f.Fuzz(func(t *testing.T, token string) {
		id, err := tokenID(token)
		if err == nil && (len(id) != idHex || !strings.HasPrefix(token, tokenPrefix+id+".")) {
			t.Errorf("%q has the id %q", token, id)
		}
	})
}
