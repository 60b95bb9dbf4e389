package authority

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/posterngate/postern/pkg/grantcert"
	"github.com/posterngate/postern/pkg/postern"
)

// ClientCAs are the DER of the CAs that sign grant certificates and nothing else, the one
// that signs first; they must not be changed.
func (a *Authority) ClientCAs() (der [][]byte) {
	for _, c := range a.trusted(UseCertificates) {
		der = append(der, c.cert.Raw)
	}
	return der
}

// IssueGrant makes the certificate of a grant for the key of its request. It ends at
// end, to the second before.
func (a *Authority) IssueGrant(csr []byte, name grantcert.Name, end time.Time) (*x509.Certificate, error) {
	key, err := ParseCSR(csr)
	if err != nil {
		return nil, err
	}
	if name.Grant == "" || name.Task == "" || name.Subject == "" {
		return nil, errors.New("a grant certificate names a grant, its task and its subject")
	}
	return a.current(UseCertificates).sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: string(name.Grant)}, // for people; what counts is the URI
		URIs:        []*url.URL{name.URI()},
		NotAfter:    end,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, key, a.cfg.Now())
}

// GrantFromCert is what the DER of a grant certificate says, which this authority has
// issued and which is valid now. Errors are *postern.Refusal.
func (a *Authority) GrantFromCert(der []byte) (grantcert.Name, error) {
	if len(der) > grantcert.MaxBytes {
		return grantcert.Name{}, unreadable(fmt.Errorf("longer than %d bytes", grantcert.MaxBytes))
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return grantcert.Name{}, unreadable(err)
	}
	return grantcert.Verify(c, a.pool(UseCertificates), a.cfg.Now())
}

func unreadable(cause error) error {
	return &postern.Refusal{Code: postern.CodeBadToken, Reason: "the client certificate cannot be read", Hint: grantcert.Hint, Cause: cause}
}
