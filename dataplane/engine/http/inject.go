package http

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
)

// inject shows the lent credential to the resource, and says what must never come back.
func inject(out *http.Request, t *engine.Terms, c *engine.Credential) (secrets [][]byte, err error) {
	if c == nil {
		return nil, nil
	}
	secret := c.Password.Reveal()
	if len(secret) == 0 {
		return nil, errors.New("the credential has no secret to show")
	}
	switch t.HTTP.Auth {
	case "bearer":
		out.Header.Set("Authorization", "Bearer "+string(secret))
	case "header":
		out.Header.Set(t.HTTP.Header, string(secret))
	case "basic":
		out.SetBasicAuth(c.Account, string(secret))
		secrets = append(secrets, []byte(base64.StdEncoding.EncodeToString([]byte(c.Account+":"+string(secret)))))
	default:
		return nil, errors.New("the resource's way to show credentials is not known")
	}
	return append(secrets, secret), nil
}

// errLeak is the refusal of an answer that would tell the client what only the resource may
// know.
var errLeak = &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the answer would have handed the resource's credential to the client", Hint: "tell the operators of the resource"}

// leaks reports whether headers carry a secret.
func leaks(h http.Header, secrets [][]byte) bool {
	for _, values := range h {
		for _, v := range values {
			for _, s := range secrets {
				if bytes.Contains([]byte(v), s) {
					return true
				}
			}
		}
	}
	return false
}

// A catcher takes secrets out of a stream, wherever it is cut.
type catcher struct {
	from    io.Reader
	secrets [][]byte
	buf     []byte // read, and not given on
	ready   int    // how much of buf is free of secrets
	err     error
}

func (c *catcher) Read(p []byte) (int, error) {
	for c.ready == 0 {
		if c.err != nil {
			if len(c.buf) > 0 {
				c.ready = len(c.buf)
				break
			}
			return 0, c.err
		}
		at := len(c.buf)
		c.buf = append(c.buf, make([]byte, 16<<10)...)
		var n int
		n, c.err = c.from.Read(c.buf[at:])
		c.buf = c.buf[:at+n]
		for _, s := range c.secrets {
			cover(c.buf, s)
		}
		c.ready = len(c.buf) - c.held()
	}
	n := copy(p, c.buf[:c.ready])
	c.buf = append(c.buf[:0], c.buf[n:]...)
	c.ready -= n
	return n, nil
}

// cover masks what stands in b, by as many characters, so that lengths stay true.
func cover(b, secret []byte) {
	for {
		i := bytes.Index(b, secret)
		if i < 0 {
			return
		}
		for j := range secret {
			b[i+j] = '*'
		}
		b = b[i+len(secret):]
	}
}

// held is how many bytes at the end may be the beginning of a secret.
func (c *catcher) held() int {
	most := 0
	for _, s := range c.secrets {
		for n := min(len(s)-1, len(c.buf)); n > most; n-- {
			if bytes.HasPrefix(s, c.buf[len(c.buf)-n:]) {
				most = n
				break
			}
		}
	}
	return most
}
