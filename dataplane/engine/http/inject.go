package http

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go/encoding/httpbinding"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/request"
	pkghttp "github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
)

// inject shows the lent credential to the resource, and says what must never come back.
func (x *exchange) inject(out *http.Request, c *engine.Credential) (secrets [][]byte, err error) {
	if c == nil {
		return nil, nil
	}
	secret := c.Password.Reveal()
	if len(secret) == 0 {
		return nil, errors.New("the credential has no secret to show")
	}
	switch t := x.terms.HTTP; t.Auth {
	case "bearer":
		out.Header.Set("Authorization", "Bearer "+string(secret))
	case "header":
		out.Header.Set(t.Header, string(secret))
	case "basic":
		out.SetBasicAuth(c.Account, string(secret))
		secrets = append(secrets, []byte(base64.StdEncoding.EncodeToString([]byte(c.Account+":"+string(secret)))))
	case "sigv4":
		return x.sign(out, c)
	default:
		return nil, errors.New("the resource's way to show credentials is not known")
	}
	return append(secrets, spellings(string(secret))...), nil
}

// leastRun is how many characters of a secret have to stand together to be taken for it.
const leastRun = 16

// spellings are a secret as it stands, as it stands in a URL or in JSON, and its runs of characters
// that nothing escapes: they are the same in HTML, and whatever else there is.
func spellings(secret string) [][]byte {
	out := [][]byte{[]byte(secret)}
	for _, other := range []string{url.QueryEscape(secret), url.PathEscape(secret), strings.ReplaceAll(secret, "/", `\/`)} {
		if other != secret {
			out = append(out, []byte(other))
		}
	}
	for run := range strings.FieldsFuncSeq(secret, escaped) {
		if len(run) >= leastRun && run != secret {
			out = append(out, []byte(run))
		}
	}
	return out
}

// escaped reports whether a character is written otherwise somewhere.
func escaped(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._~", r)
}

const (
	// hashHeader says what was signed of the body.
	hashHeader = "X-Amz-Content-Sha256"
	unsigned   = "UNSIGNED-PAYLOAD"
	awsChunked = "aws-chunked"
	// unsignedChunks says so of a body in chunks, which the store takes apart.
	unsignedChunks = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// streams reports whether the body may go unsigned, and so need not be read before: the
// object store takes that where TLS keeps it whole.
func streams(t *engine.Terms) bool { return t.HTTP.Service == "s3" && t.TLS.Mode != "disable" }

// sign shows an AWS access key, by a signature over the request alone. The key's secret
// does not leave the node; the signature must not come back either, for it is good for
// minutes.
func (x *exchange) sign(out *http.Request, c *engine.Credential) ([][]byte, error) {
	if strings.Contains(x.target.Path, pkghttp.Slash) {
		return nil, request.Bad("the path has an encoded slash, which a signature is over as a plain one") // of names of objects they are the same
	}
	sum := sha256.Sum256(x.body)
	hash := hex.EncodeToString(sum[:])
	if !x.buffered && x.r.ContentLength != 0 {
		hash = unsigned
	}
	given, inChunks := out.Header.Get(hashHeader), strings.Contains(strings.ToLower(out.Header.Get("Content-Encoding")), awsChunked)
	switch {
	case inChunks && (given == "" || given == unsignedChunks): // as SDKs send a checksum behind the body
		hash = unsignedChunks
	case inChunks || strings.HasPrefix(given, "STREAMING-"): // what frames it would be stored with it
		return nil, &postern.Refusal{
			Code: postern.CodeProtocol, Reason: "each chunk of the body is signed with a key of the client's own", Hint: "have the client sign no payload, or ask without credentials of its own",
		}
	default:
		out.Header.Del("X-Amz-Decoded-Content-Length")
	}
	for _, name := range []string{hashHeader, "X-Amz-Date", "X-Amz-Security-Token"} {
		out.Header.Del(name) // of a signature of the client's own
	}
	out.Header.Set(hashHeader, hash)
	out.URL.RawPath = httpbinding.EscapePath(out.URL.Path, false) // as it is signed, with + as %2B
	key := aws.Credentials{AccessKeyID: c.Account, SecretAccessKey: string(c.Password.Reveal()), SessionToken: string(c.SessionToken.Reveal())}
	t := x.terms.HTTP
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = t.Service == "s3" })
	if err := signer.SignHTTP(out.Context(), key, out, hash, t.Service, t.Region, time.Now()); err != nil {
		return nil, err
	}
	_, signature, ok := strings.Cut(out.Header.Get("Authorization"), "Signature=")
	if !ok {
		return nil, errors.New("the request was not signed")
	}
	secrets := append(spellings(key.SecretAccessKey), []byte(signature))
	if key.SessionToken != "" {
		secrets = append(secrets, spellings(key.SessionToken)...)
	}
	return secrets, nil
}

// errLeak is the refusal of an answer that would tell the client what only the resource may
// know.
var errLeak = &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the answer would have handed the resource's credential to the client", Hint: "tell the operators of the resource"}

// leaks reports whether headers carry a secret.
func leaks(h http.Header, secrets [][]byte) bool {
	for _, secret := range secrets {
		s := string(secret)
		for _, values := range h {
			for _, v := range values {
				if strings.Contains(v, s) {
					return true
				}
			}
		}
	}
	return false
}
