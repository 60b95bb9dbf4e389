// Package grantcert says what a grant certificate is: a client certificate in the place
// of a grant token. It names one grant by its one URI,
// postern://grant/GRANT/TASK/SUBJECT, is for client authentication alone, and is signed
// by a CA that signs nothing else; the form for SSH has a CA of its own. Both planes read
// them by this package; that one is on file with its grant is the control plane's to
// check.
package grantcert

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

// MaxBytes bounds the DER of a certificate.
const MaxBytes = 8 << 10

const (
	scheme = "postern"
	host   = "grant"
	// nodeHost stands in a node's certificates, so that one can be told what it is.
	nodeHost = "node"
)

// A Name is what a certificate says.
type Name struct {
	Grant   postern.GrantID
	Task    postern.TaskName
	Subject string
}

// URI is the name as it stands in a certificate.
func (n Name) URI() *url.URL {
	parts := []string{string(n.Grant), string(n.Task), n.Subject}
	u := &url.URL{Scheme: scheme, Host: host}
	for _, p := range parts {
		u.Path += "/" + p
		u.RawPath += "/" + url.PathEscape(p)
	}
	return u
}

var errForm = errors.New("not the form of a grant certificate")

// Read is the name in a certificate of just the right form. It verifies nothing.
func Read(c *x509.Certificate) (Name, error) {
	if len(c.Raw) > MaxBytes || c.IsCA || len(c.URIs) != 1 || len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses) != 0 ||
		len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || len(c.UnknownExtKeyUsage) != 0 {
		return Name{}, errForm
	}
	parts := strings.Split(c.URIs[0].EscapedPath(), "/")
	if len(parts) != 4 {
		return Name{}, errForm
	}
	for i, p := range parts {
		var err error
		if parts[i], err = url.PathUnescape(p); err != nil || i > 0 && parts[i] == "" {
			return Name{}, errForm
		}
	}
	n := Name{postern.GrantID(parts[1]), postern.TaskName(parts[2]), parts[3]}
	if n.URI().String() != c.URIs[0].String() {
		return Name{}, errForm
	}
	return n, nil
}

// Verify is the name in a certificate that one of the CAs has issued and that is valid
// at now. That the client holds its key is for TLS to have shown. An error is a
// *postern.Refusal for the client.
func Verify(c *x509.Certificate, cas *x509.CertPool, now time.Time) (Name, error) {
	if cas == nil {
		return Name{}, refuse(errForm, "client certificates cannot be verified here yet")
	}
	n, formErr := Read(c)
	_, err := c.Verify(x509.VerifyOptions{Roots: cas, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	var invalid x509.CertificateInvalidError
	switch {
	case formErr != nil && len(c.URIs) == 1 && c.URIs[0].Scheme == scheme && c.URIs[0].Host == nodeHost:
		return Name{}, refuse(formErr, "this is the certificate of a node, which opens nothing here")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.After(c.NotAfter):
		return Name{}, refuse(err, fmt.Sprintf("the client certificate ended at %s", c.NotAfter.UTC().Format(time.RFC3339)))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return Name{}, refuse(err, fmt.Sprintf("the client certificate begins at %s: a clock is wrong", c.NotBefore.UTC().Format(time.RFC3339)))
	case err != nil:
		return Name{}, refuse(err, "the client certificate was not issued here")
	case formErr != nil:
		return Name{}, refuse(formErr, "the client certificate names no grant")
	}
	return n, nil
}

// Hint says how to come in with another certificate, and how without one.
const Hint = "get one by: postern grant TASK --cert DIR; or show none (sslcertmode=disable; before libpq 16, sslcert=none) and give a token as the password"

func refuse(cause error, reason string) *postern.Refusal {
	return &postern.Refusal{Code: postern.CodeBadToken, Reason: reason, Hint: Hint, Cause: cause}
}
