package grantcert_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/grantcert"
	"github.com/posterngate/postern/pkg/postern"
)

// ca signs what tests want signed.
type ca struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t testing.TB) *ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &ca{t: t, key: key}
	c.cert = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	c.cert = c.sign(func(*x509.Certificate) {})
	return c
}

func (c *ca) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

// sign makes a certificate from a good template that change has spoiled; the CA's own
// where there is none yet.
func (c *ca) sign(change func(*x509.Certificate)) *x509.Certificate {
	c.t.Helper()
	tmpl := c.cert
	if c.cert.Raw != nil {
		tmpl = &x509.Certificate{
			SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-5 * time.Minute), NotAfter: time.Now().Add(time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{alice.URI()}, BasicConstraintsValid: true,
		}
		change(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.cert, c.key.Public(), c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

var alice = grantcert.Name{Grant: "g-abcdefgh", Task: "sales-report", Subject: "alice"}

func uri(text string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		u, _ := url.Parse(text)
		c.URIs = []*url.URL{u}
	}
}

// TestNames: whatever a subject is called comes back as it was.
func TestNames(t *testing.T) {
	c := newCA(t)
	for _, subject := range []string{"alice", "corp/alice", "a b", "Jörg Müller", "a%2Fb", "../..", "a?b#c", "x@y.example", strings.Repeat("é", 100)} {
		n := grantcert.Name{Grant: "g-1", Task: "t", Subject: subject}
		got, err := grantcert.Verify(c.sign(func(c *x509.Certificate) { c.URIs = []*url.URL{n.URI()} }), c.pool(), time.Now())
		if err != nil || got != n {
			t.Errorf("%q: %+v, %v", subject, got, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	ours, theirs := newCA(t), newCA(t)
	for name, c := range map[string]struct {
		by     *ca
		change func(*x509.Certificate)
		says   string
	}{
		"good":         {ours, func(*x509.Certificate) {}, ""},
		"another CA":   {theirs, func(*x509.Certificate) {}, "not issued here"},
		"ended":        {ours, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "ended at"},
		"not yet":      {ours, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, "a clock is wrong"},
		"server":       {ours, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "not issued here"},
		"any use":      {ours, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }, "names no grant"},
		"no use":       {ours, func(c *x509.Certificate) { c.ExtKeyUsage = nil }, "names no grant"},
		"a CA":         {ours, func(c *x509.Certificate) { c.IsCA = true }, "names no grant"},
		"no URI":       {ours, func(c *x509.Certificate) { c.URIs = nil }, "names no grant"},
		"two URIs":     {ours, func(c *x509.Certificate) { c.URIs = append(c.URIs, alice.URI()) }, "names no grant"},
		"a host too":   {ours, func(c *x509.Certificate) { c.DNSNames = []string{"x.example"} }, "names no grant"},
		"an IP too":    {ours, func(c *x509.Certificate) { c.IPAddresses = []net.IP{{127, 0, 0, 1}} }, "names no grant"},
		"mail too":     {ours, func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.example"} }, "names no grant"},
		"node":         {ours, uri("postern://node/n1"), "certificate of a node"},
		"node's grant": {theirs, uri("postern://node/n1"), "certificate of a node"},
		"scheme":       {ours, uri("spiffe://grant/g-1/t/alice"), "names no grant"},
		"another host": {ours, uri("postern://control/g-1/t/alice"), "names no grant"},
		"port":         {ours, uri("postern://grant:1/g-1/t/alice"), "names no grant"},
		"few parts":    {ours, uri("postern://grant/g-1/t"), "names no grant"},
		"many parts":   {ours, uri("postern://grant/g-1/t/a/b"), "names no grant"},
		"empty part":   {ours, uri("postern://grant/g-1//alice"), "names no grant"},
		"query":        {ours, uri("postern://grant/g-1/t/alice?x"), "names no grant"},
		"fragment":     {ours, uri("postern://grant/g-1/t/alice#x"), "names no grant"},
		"needless %":   {ours, uri("postern://grant/g-1/t/%61lice"), "names no grant"},
	} {
		n, err := grantcert.Verify(c.by.sign(c.change), ours.pool(), time.Now())
		switch {
		case c.says == "" && (err != nil || n != alice):
			t.Errorf("%s: %+v, %v", name, n, err)
		case c.says != "" && (err == nil || n != grantcert.Name{} || postern.AsRefusal(err).Code != postern.CodeBadToken || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %+v, %v; want %q", name, n, err, c.says)
		}
	}
	if _, err := grantcert.Verify(ours.sign(func(*x509.Certificate) {}), nil, time.Now()); err == nil {
		t.Error("without a CA anything passes")
	}
}

// FuzzRead: what is read is written again as it was, and a CA that is not known vouches
// for nothing.
func FuzzRead(f *testing.F) {
	c := newCA(f)
	f.Add(c.sign(func(*x509.Certificate) {}).Raw)
	f.Add(c.sign(uri("postern://node/n1")).Raw)
	f.Add(c.sign(uri("postern://grant/g-1/t/a%2Fb")).Raw)
	f.Add([]byte{0x30, 0x80})
	none := x509.NewCertPool()
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if n, err := grantcert.Read(cert); err == nil && (n.Grant == "" || n.Task == "" || n.Subject == "" || n.URI().String() != cert.URIs[0].String()) {
			t.Errorf("read %+v", n)
		}
		if _, err := grantcert.Verify(cert, none, time.Now()); err == nil {
			t.Error("verified by nobody")
		}
	})
}
