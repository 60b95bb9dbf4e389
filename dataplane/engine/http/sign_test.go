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

// TestSignChunks: a body that comes in chunks is said to, or refused: the store would keep what
// frames them as if it were the object.
func TestSignChunks(t *testing.T) {
	for _, c := range []struct{ encoding, hash, want string }{
		{"aws-chunked", unsignedChunks, unsignedChunks}, {"gzip,aws-chunked", "", unsignedChunks}, {"", unsigned, unsigned}, {"gzip", "", unsigned},
		{"aws-chunked", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", ""}, {"", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", ""}, {"", unsignedChunks, ""}, {"AWS-Chunked", unsigned, ""},
	} {
		out := httptest.NewRequest(http.MethodPut, "https://bucket.example/a", strings.NewReader("5\r\nhello\r\n0\r\n\r\n"))
		for name, v := range map[string]string{"Content-Encoding": c.encoding, hashHeader: c.hash, "X-Amz-Decoded-Content-Length": "5"} {
			if v != "" {
				out.Header.Set(name, v)
			}
		}
		x := &exchange{r: out, terms: &engine.Terms{HTTP: engine.HTTPTerms{Auth: "sigv4", Region: "us-east-1", Service: "s3"}}}
		_, err := x.inject(out, &engine.Credential{Account: "ASIA1", Password: secret.FromString("key")})
		if err != nil != (c.want == "") || err == nil && (out.Header.Get(hashHeader) != c.want || out.Header.Get("X-Amz-Decoded-Content-Length") == "5" != (c.want == unsignedChunks)) {
			t.Errorf("%+v: %v %v", c, out.Header, err)
		}
	}
}
