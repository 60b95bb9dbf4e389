package authority_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/grantcert"
	pname "github.com/posterngate/postern/pkg/postern"
)

var sales = grantcert.Name{Grant: "g-abcdefghijklmnop", Task: "sales-report", Subject: "corp/alice"}

func TestGrantCertificate(t *testing.T) {
	s := storetest.NewMemory()
	a := open(t, s)
	key := ecKey(t, elliptic.P256())
	end := time.Now().Add(15*time.Minute + 700*time.Millisecond)
	c, err := a.IssueGrant(csr(t, key), sales, end)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case !key.PublicKey.Equal(c.PublicKey):
		t.Error("it is for another key")
	case c.NotAfter.After(end) || end.Sub(c.NotAfter) > time.Second:
		t.Errorf("it ends at %s, and the grant at %s", c.NotAfter, end)
	case !c.NotBefore.Before(time.Now().Add(-4 * time.Minute)):
		t.Errorf("it begins at %s: a clock that lags refuses it", c.NotBefore)
	case !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || c.IsCA || len(c.DNSNames) > 0:
		t.Errorf("uses %v, CA %v, names %v", c.ExtKeyUsage, c.IsCA, c.DNSNames)
	}
	for what, a := range map[string]*authority.Authority{"its authority": a, "another replica": open(t, s)} {
		if n, err := a.GrantFromCert(c.Raw); err != nil || n != sales {
			t.Errorf("%s reads %+v, %v", what, n, err)
		}
	}
	// The one sort never passes for the other.
	if n, err := a.NodeFromCert(c); err == nil {
		t.Errorf("it is node %q", n)
	}
	node, err := a.IssueNode(csr(t, key), "n1")
	if err != nil {
		t.Fatal(err)
	}
	server, err := a.IssueListener(csr(t, key), "n1", []string{"n1.example"})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := open(t, storetest.NewMemory()).IssueGrant(csr(t, key), sales, end)
	if err != nil {
		t.Fatal(err)
	}
	for says, der := range map[string][]byte{
		"certificate of a node": node.Raw, "node, which": server.Raw, "not issued here": foreign.Raw, "cannot be read": {1, 2, 3},
	} {
		if n, err := a.GrantFromCert(der); err == nil || pname.AsRefusal(err).Code != pname.CodeBadToken || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v", says, n, err)
		}
	}
	if _, err := a.GrantFromCert(make([]byte, grantcert.MaxBytes+1)); err == nil {
		t.Error("a certificate of any length is read")
	}
	if n, err := a.GrantFromCert(a.ClientCAs()[0]); err == nil {
		t.Errorf("the CA itself is %+v", n)
	}
}

func TestGrantCertificateRefused(t *testing.T) {
	a := open(t, storetest.NewMemory())
	good := csr(t, ecKey(t, elliptic.P256()))
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		csr  []byte
		name grantcert.Name
	}{
		"no request": {nil, sales}, "RSA": {csr(t, weak), sales}, "P-384": {csr(t, ecKey(t, elliptic.P384())), sales},
		"no grant": {good, grantcert.Name{Task: "t", Subject: "s"}}, "no subject": {good, grantcert.Name{Grant: "g", Task: "t"}},
	} {
		if _, err := a.IssueGrant(c.csr, c.name, time.Now().Add(time.Hour)); err == nil {
			t.Errorf("%s: issued", what)
		}
	}
}
