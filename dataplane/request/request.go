// Package request is what protocols made of HTTP requests share: a server for one
// connection in HTTP/1.1 or HTTP/2, who a request says it is and under which task,
// sessions that many requests join, what is stripped on the way through, the way to the
// resource, and refusals in the form that a client reads. What a request means and whether
// it may pass is for its engine and that one's session.
package request

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
)

// TaskHeader says under which task a request is, where its host does not.
const TaskHeader = "Postern-Task"

// A Claim is what a request says of itself, and what tells it from another's. Its Token is
// there while a session is opened.
type Claim struct {
	engine.Claim
	token string
	// Browser is true where a cookie of ours stands for a token.
	Browser bool
	key     [sha256.Size]byte
}

// claimOf reads who a request says it is. An error is a *postern.Refusal.
func claimOf(p postern.Protocol, r *http.Request) (Claim, error) {
	permission, err := permissionOf(r)
	if err != nil {
		return Claim{}, err
	}
	c := Claim{Claim: engine.Claim{Protocol: p, Permission: permission, ClientAddress: r.RemoteAddr, ClientProgram: clip(r.UserAgent())}}
	token, err := bearer(r)
	if err != nil {
		return Claim{}, err
	}
	if r.TLS != nil {
		c.Certificate = engine.Shown(*r.TLS)
	}
	if token == "" && c.Certificate == nil {
		if token = CookieOf(r, SessionCookie); token != "" {
			c.Browser = true
			if no := foreign(r); no != nil {
				return c, no
			}
		}
	}
	if token == "" && c.Certificate == nil {
		return Claim{}, &postern.Refusal{Code: postern.CodeBadToken, Reason: "the request carries no token", Hint: "send the header Authorization: Bearer TOKEN; `postern token` prints one"}
	}
	c.token = token
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	c.key = keyOf(permission, token, host, c.Certificate)
	return c, nil
}

// keyOf tells what it is made of from everything else: the hash of the parts, each behind
// its length. It is made for each request.
func keyOf(permission, token, host string, certificate []byte) [sha256.Size]byte {
	var room [2 << 10]byte
	b := room[:0]
	for _, part := range [...]string{permission, token, host} {
		b = append(binary.BigEndian.AppendUint64(b, uint64(len(part))), part...)
	}
	key := sha256.Sum256(append(b, certificate...))
	clear(room[:])
	return key
}

// maxProgram is how much of what a client calls itself is kept, in bytes.
const maxProgram = 200

func clip(s string) string { return s[:min(len(s), maxProgram)] }

// permissionOf says under which task a request is: by its header, or by the first label of
// its host, TASK--RESOURCE. Names have no "--" of their own.
func permissionOf(r *http.Request) (string, error) {
	byHost, named := HostPermission(r)
	task, _, _ := strings.Cut(byHost, ".")
	switch given := r.Header.Values(TaskHeader); {
	case len(given) > 1:
		return "", Bad("the header " + TaskHeader + " stands twice")
	case len(given) == 1 && named && given[0] != byHost && given[0] != task:
		return "", Bad("the header " + TaskHeader + " and the host name different tasks")
	case named:
		return byHost, nil
	case len(given) == 1:
		return given[0], nil
	}
	return "", &postern.Refusal{
		Code: postern.CodeNoGrant, Reason: "the request does not say under which task it is",
		Hint: "ask TASK--RESOURCE.HOST, or send the header " + TaskHeader + ": TASK.RESOURCE; `postern tasks` lists yours",
	}
}

// HostPermission is the task and resource that the first label of a host names.
func HostPermission(r *http.Request) (permission string, named bool) {
	host := strings.ToLower(r.Host)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	label, _, _ := strings.Cut(host, ".")
	task, resource, named := strings.Cut(label, "--")
	return task + "." + resource, named
}

// basicUser is who programs say they are that know only of a name and a password, which is the
// token then: pip, git and helm do.
const basicUser = "postern"

// bearer is the token of a request, or nothing.
func bearer(r *http.Request) (string, error) {
	given := r.Header.Values("Authorization")
	if len(given) == 0 {
		return "", nil
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	token = strings.TrimSpace(token)
	if user, password, basic := r.BasicAuth(); basic && user == basicUser && !browses(r) {
		scheme, token = "Bearer", password
	}
	if len(given) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" || strings.ContainsAny(token, " ,") || strings.HasPrefix(token, browserToken) {
		return "", &postern.Refusal{
			Code: postern.CodeBadToken, Reason: "the header Authorization is not just Bearer and one token",
			Hint: "`postern token` prints one; a program that takes only a name and a password has the name " + basicUser + " and the token",
		}
	}
	return token, nil
}

// Bad is the refusal of a request that breaks the protocol, or that servers are known to
// read in different ways.
func Bad(reason string) *postern.Refusal {
	return &postern.Refusal{Code: postern.CodeProtocol, Reason: reason, Hint: "send the request in its plain form"}
}

// String is for logs: it says nothing of the token.
func (c Claim) String() string { return c.Permission + " " + hex.EncodeToString(c.key[:4]) }

// localProtocols are what a listener offers in TLS.
var localProtocols = []string{"h2", "http/1.1"}

// errPlaintext means that a client did not speak TLS where it must.
var errPlaintext = errors.New("request: the client does not speak TLS")

// Secure makes the listener's configuration for requests.
func Secure(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	c.NextProtos = localProtocols
	return c
}
