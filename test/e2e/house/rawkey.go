package house

import (
	"encoding/base64"
	"os"
	"testing"

	"github.com/posterngate/postern/pkg/secret"
)

// RawKey makes a key to what masks hide, keeps it in a file as postern sessions raw-key
// does, and returns its public half as the control plane's configuration has it.
func RawKey(t testing.TB, file string) string {
	t.Helper()
	key := Must(secret.GenerateKey())(t)
	raw := Must(key.Marshal())(t)
	if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(raw.Reveal())+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(key.PublicKey())
}
