package ssh

import (
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// authority is a CA of grants, and a person with a key.
type authority struct{ ca, user ssh.Signer }

func (a *authority) house(t *testing.T) *house {
	t.Helper()
	a.ca, a.user = newSigner(t), newSigner(t)
	return newHouse(t, func(c *Config) { c.UserCAs = func() []ssh.PublicKey { return []ssh.PublicKey{a.ca.PublicKey()} } })
}

// certificate is a good one but for what change makes of it, signed by somebody.
func (a *authority) certificate(t *testing.T, by ssh.Signer, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{Key: a.user.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{"t.target"}, ValidBefore: ssh.CertTimeInfinity, KeyId: "g-1"}
	change(cert)
	// As SignCert does it, which signs for no certificate.
	cert.Nonce, cert.SignatureKey, cert.Signature = make([]byte, 32), by.PublicKey(), nil
	text := cert.Marshal()
	var err error
	if cert.Signature, err = by.Sign(rand.Reader, text[:len(text)-4]); err != nil {
		t.Fatal(err)
	}
	return cert
}

// signer shows one key and signs as it likes.
type signer struct {
	public ssh.PublicKey
	sign   func(rand io.Reader, data []byte) (*ssh.Signature, error)
}

func (s *signer) PublicKey() ssh.PublicKey { return s.public }
func (s *signer) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.sign(rand, data)
}

// nested is a certificate in the place of a key.
type nested struct{ *ssh.Certificate }

func (nested) Type() string { return ssh.KeyAlgoED25519 }

func asIs(*ssh.Certificate) {}

// TestCertificates: a certificate that is not just what a grant has is refused, with the
// reason where it is one of ours, and the door never hears of it.
func TestCertificates(t *testing.T) {
	a := &authority{}
	h := a.house(t)
	certified := func(by ssh.Signer, change func(*ssh.Certificate)) ssh.AuthMethod {
		return ssh.PublicKeys(&signer{a.certificate(t, by, change), a.user.Sign})
	}
	mine := a.certificate(t, a.ca, asIs)
	asCA := &signer{mine, a.user.Sign}
	hour := uint64(time.Hour / time.Second)
	now := uint64(time.Now().Unix())
	for name, c := range map[string]struct {
		auth ssh.AuthMethod
		says string
	}{
		"a bare key":                 {ssh.PublicKeys(a.user), ""},
		"of another authority":       {certified(newSigner(t), asIs), ""},
		"of the user itself":         {certified(a.user, asIs), ""},
		"for another permission":     {certified(a.ca, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"u.target"} }), "principal"},
		"for a part of it":           {certified(a.ca, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"t", "target", "*", "t.*"} }), "principal"},
		"CVE-2024-7594 no principal": {certified(a.ca, func(c *ssh.Certificate) { c.ValidPrincipals = nil }), ""},
		"of a host":                  {certified(a.ca, func(c *ssh.Certificate) { c.CertType = ssh.HostCert }), ""},
		"of no kind":                 {certified(a.ca, func(c *ssh.Certificate) { c.CertType = 7 }), ""},
		"expired":                    {certified(a.ca, func(c *ssh.Certificate) { c.ValidBefore = now - hour }), "expired"},
		"not yet valid":              {certified(a.ca, func(c *ssh.Certificate) { c.ValidAfter = now + hour }), "not yet valid"},
		"over before it begins":      {certified(a.ca, func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = now+hour, now-hour }), "not yet valid"},
		"with an unknown option":     {certified(a.ca, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x": ""} }), "critical option"},
		"with a forced command":      {certified(a.ca, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "id"} }), "critical option"},
		"changed after it was signed": {ssh.PublicKeys(&signer{func() ssh.PublicKey {
			c := a.certificate(t, a.ca, asIs)
			c.ValidPrincipals = append(c.ValidPrincipals, "u.target")
			return c
		}(), a.user.Sign}), "signature"},
		"CVE-2025-49825 a certificate as the authority": {certified(asCA, asIs), ""},
		"CVE-2025-49825 a certificate within one":       {certified(a.ca, func(c *ssh.Certificate) { c.Key = nested{mine} }), ""},
	} {
		client, err := dial(testContext(t), h.addr, "t.target", c.auth)
		switch {
		case err == nil:
			client.Close()
			t.Errorf("a certificate %s was taken", name)
		case strings.Contains(err.Error(), "this certificate is of no use here") != (c.says != "") || !strings.Contains(err.Error(), c.says):
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := h.door.Asked(); n > 0 {
		t.Errorf("the door was asked %d times", n)
	}
	// A good one is the door's to judge: it gets the certificate as it was proved.
	_, err := dial(testContext(t), h.addr, "t.target", certified(a.ca, asIs))
	claim := h.door.Claim()
	if len(claim.Certificate) == 0 || claim.Permission != "t.target" {
		t.Errorf("the door was shown %+v: %v", claim, err)
	}
}

// TestWhatIsOfferedIsNotProved: only the key that signs counts, whatever was offered
// before (CVE-2024-45337), and an offer alone is nothing (CVE-2023-43660).
func TestWhatIsOfferedIsNotProved(t *testing.T) {
	a := &authority{}
	h := a.house(t)
	stolen := a.certificate(t, a.ca, asIs) // known, without its key
	other := newSigner(t)
	byOther := func(r io.Reader, data []byte) (*ssh.Signature, error) { return other.Sign(r, data) }
	garbage := func(io.Reader, []byte) (*ssh.Signature, error) {
		return &ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: make([]byte, 64)}, nil
	}
	for name, auth := range map[string][]ssh.AuthMethod{
		"CVE-2024-45337 signed by another key":            {ssh.PublicKeys(&signer{stolen, byOther})},
		"CVE-2024-45337 offered, and then a key of mine":  {ssh.PublicKeys(&signer{stolen, garbage}, other)},
		"CVE-2024-45337 a key of mine, and then offered":  {ssh.PublicKeys(other, &signer{stolen, garbage})},
		"CVE-2024-45337 offered, and then a bad password": {ssh.PublicKeys(&signer{stolen, garbage}), ssh.Password("x")},
		"CVE-2023-43660 offered, and nothing signed": {ssh.PublicKeys(&signer{stolen, func(io.Reader, []byte) (*ssh.Signature, error) {
			return nil, errors.New("no key")
		}})},
		"CVE-2023-43660 an empty signature": {ssh.PublicKeys(&signer{stolen, func(io.Reader, []byte) (*ssh.Signature, error) {
			return &ssh.Signature{Format: ssh.KeyAlgoED25519}, nil
		}})},
	} {
		if c, err := dial(testContext(t), h.addr, "t.target", auth...); err == nil {
			c.Close()
			t.Errorf("%s: let in", name)
		}
	}
	if n := h.door.Opened(); n > 0 {
		t.Errorf("%d sessions were opened", n)
	}
}
