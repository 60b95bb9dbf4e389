package http

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/secret"
)

// TestSignTemporary: a temporary access key shows its session's token, signed over and never
// to come back; nobody else's goes with a standing one.
func TestSignTemporary(t *testing.T) {
	for _, token := range []string{"", "FwoGZX+IvYXdz/EA=="} {
		out := httptest.NewRequest(http.MethodGet, "https://bucket.example/a", nil)
		out.Header.Set("X-Amz-Security-Token", "the client's own")
		x := &exchange{r: out, terms: &engine.Terms{HTTP: engine.HTTPTerms{Auth: "sigv4", Region: "us-east-1", Service: "s3"}}}
		secrets, err := x.inject(out, &engine.Credential{Account: "ASIA1", Password: secret.FromString("key"), SessionToken: secret.FromString(token)})
		if err != nil {
			t.Fatal(err)
		}
		if got := out.Header.Get("X-Amz-Security-Token"); got != token {
			t.Errorf("token %q, want %q", got, token)
		}
		if signed := strings.Contains(out.Header.Get("Authorization"), "x-amz-security-token"); signed != (token != "") {
			t.Errorf("signed over: %s", out.Header.Get("Authorization"))
		}
		if caught := leaks(http.Header{"X": {"got " + token}}, secrets); caught != (token != "") {
			t.Error("it would come back")
		}
	}
}
