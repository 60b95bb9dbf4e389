package session

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/grantcert"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// issue makes a certificate that a CA of the test's own has signed.
func issue(t *testing.T, uri *url.URL, end time.Time) (der []byte, cas *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(tmpl, parent *x509.Certificate) *x509.Certificate {
		tmpl.SerialNumber, tmpl.NotBefore, tmpl.BasicConstraintsValid = big.NewInt(1), time.Now().Add(-2*time.Hour), true
		tmpl.RawSubject = []byte{0x30, 0}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ca := &x509.Certificate{NotAfter: time.Now().Add(time.Hour), IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	ca = sign(ca, ca)
	cas = x509.NewCertPool()
	cas.AddCert(ca)
	return sign(&x509.Certificate{NotAfter: end, URIs: []*url.URL{uri}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca).Raw, cas
}

// TestOpenByCertificate: the node looks at a certificate itself before it asks, and at
// the answer after.
func TestOpenByCertificate(t *testing.T) {
	good := grantcert.Name{Grant: "g-1", Task: "report", Subject: "alice"}
	hour := time.Now().Add(time.Hour)
	show := func(der []byte) engine.Claim {
		c := claim()
		c.Token, c.Certificate = secret.Bytes{}, der
		return c
	}
	t.Run("good", func(t *testing.T) {
		h := newHouse(t)
		der, cas := issue(t, good.URI(), hour)
		h.cas = cas
		s, err := h.Open(t.Context(), show(der))
		if err != nil {
			t.Fatal(err)
		}
		s.Close(nil)
		h.refused(func() engine.Claim { c := show(der); c.Token = secret.FromString("token"); return c }(), postern.CodeBadToken, "at once")
		h.refused(func() engine.Claim { c := show(der); c.Permission = "other.warehouse"; return c }(), postern.CodeNoGrant, `for task "report", not for "other"`)
		h.cas = nil
		h.refused(show(der), postern.CodeBadToken, "cannot be verified here yet")
		_, h.cas = issue(t, good.URI(), hour)
		h.refused(show(der), postern.CodeBadToken, "not issued here")
		h.refused(show([]byte{1}), postern.CodeBadToken, "cannot be read")
		h.refused(show([]byte{}), postern.CodeBadToken, "cannot be read")
	})
	for what, c := range map[string]struct {
		name grantcert.Name
		end  time.Time
		code postern.Code
		says string
	}{
		"ended":           {good, time.Now().Add(-time.Minute), postern.CodeBadToken, "ended at"},
		"another grant":   {grantcert.Name{Grant: "g-2", Task: "report", Subject: "alice"}, hour, postern.CodeUnavailable, "another grant"},
		"another subject": {grantcert.Name{Grant: "g-1", Task: "report", Subject: "bob"}, hour, postern.CodeUnavailable, "another grant"},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHouse(t)
			der, cas := issue(t, c.name.URI(), c.end)
			h.cas = cas
			h.refused(show(der), c.code, c.says)
		})
	}
}

// TestOpenBySSH: what an SSH client has proved to hold is verified by the node and asked
// about as that, and at no other protocol.
func TestOpenBySSH(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t)
	h.sshCAs = []ssh.PublicKey{ca.PublicKey()}
	show := func(grant, task string) engine.Claim {
		cert := &ssh.Certificate{
			Key: ca.PublicKey(), CertType: ssh.UserCert, KeyId: grant, ValidPrincipals: []string{task},
			ValidAfter: uint64(time.Now().Add(-time.Hour).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
		}
		if err := cert.SignCert(rand.Reader, ca); err != nil {
			t.Fatal(err)
		}
		c := claim()
		c.Protocol, c.Token, c.Certificate = postern.SSH, secret.Bytes{}, cert.Marshal()
		return c
	}
	// The house of this test has a database alone, which is found out once the grant stands.
	h.refused(show("g-1", "report"), postern.CodeNoGrant, "speaks postgres")
	h.refused(show("g-2", "report"), postern.CodeUnavailable, "another grant")
	h.refused(show("g-1", "other"), postern.CodeNoGrant, `for task "other", not for "report"`)
	elsewhere := show("g-1", "report")
	elsewhere.Protocol = postern.Postgres
	h.refused(elsewhere, postern.CodeBadToken, "cannot be read")
	h.sshCAs = nil
	h.refused(show("g-1", "report"), postern.CodeBadToken, "not issued here")
}

// TestSignIn: somebody who has nothing to show is told where to sign in, and then has
// what their grant says and no more.
func TestSignIn(t *testing.T) {
	h := newHouse(t)
	var told []engine.SignIn
	c := claim()
	c.Token = secret.Bytes{}
	c.SignIn = func(w engine.SignIn) { told = append(told, w) }
	s, err := h.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.Close(nil)
	if len(told) != 1 || told[0].URL != "https://postern.example/sign-in/report" || told[0].Code != c.ClientAddress {
		t.Errorf("told %+v", told)
	}
	for what, change := range map[string]func(*engine.Claim){
		"a token beside it":       func(c *engine.Claim) { c.Token = secret.FromString("token") },
		"a certificate beside it": func(c *engine.Claim) { c.Certificate = []byte("x") },
	} {
		both := c
		change(&both)
		if _, err := h.Open(t.Context(), both); postern.AsRefusal(err).Code != postern.CodeBadToken {
			t.Errorf("%s: %v", what, err)
		}
	}
	h.grant.Task = "other"
	h.refused(c, postern.CodeNoGrant, "other")
	h.grant.Task = "report"
	h.refuse = &postern.Refusal{Code: postern.CodeBadToken, Reason: "nobody has signed in"}
	h.refused(c, postern.CodeBadToken, "nobody has signed in")
}

// TestWhyAGrantWasAskedFor: a task's conditions read what its grant says of that.
func TestWhyAGrantWasAskedFor(t *testing.T) {
	h := newHouse(t)
	h.load(strings.ReplaceAll(world, "PORT", "5432") + `  when: request.ticket == "OPS-7" && request.reason.endsWith("month end")` + "\n")
	h.refused(claim(), postern.CodeDenied, "does not allow this here and now")
	h.grant.Reason = "OPS-7: month end"
	if s := h.open(); s.request().Ticket != "OPS-7" {
		t.Errorf("its statements are judged for %q", s.request().Ticket)
	}
}
