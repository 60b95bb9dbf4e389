package grantcert_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/pkg/grantcert"
	"github.com/posterngate/postern/pkg/postern"
)

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// certify makes a certificate from a good one that change has spoiled.
func certify(t testing.TB, ca ssh.Signer, change func(*ssh.Certificate)) []byte {
	t.Helper()
	now := time.Now()
	c := &ssh.Certificate{
		Key: newSigner(t).PublicKey(), CertType: ssh.UserCert, KeyId: "g-1",
		ValidPrincipals: grantcert.Principals("web-status", []postern.ResourceName{"web-1"}),
		ValidAfter:      uint64(now.Add(-time.Minute).Unix()), ValidBefore: uint64(now.Add(time.Hour).Unix()),
	}
	change(c)
	if err := c.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	return c.Marshal()
}

func TestVerifySSH(t *testing.T) {
	ours, theirs := newSigner(t), newSigner(t)
	cas := []ssh.PublicKey{ours.PublicKey()}
	many := func(c *ssh.Certificate) {
		for range grantcert.MaxPrincipals {
			c.ValidPrincipals = append(c.ValidPrincipals, "web-status.web-1")
		}
	}
	for name, c := range map[string]struct {
		by     ssh.Signer
		change func(*ssh.Certificate)
		says   string
	}{
		"good":            {ours, func(*ssh.Certificate) {}, ""},
		"another CA":      {theirs, func(*ssh.Certificate) {}, "not issued here"},
		"ended":           {ours, func(c *ssh.Certificate) { c.ValidBefore = uint64(time.Now().Unix()) }, "ended at"},
		"not yet":         {ours, func(c *ssh.Certificate) { c.ValidAfter = uint64(time.Now().Add(time.Minute).Unix()) }, "a clock is wrong"},
		"backwards":       {ours, func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = c.ValidBefore, c.ValidAfter }, "not issued here"},
		"host":            {ours, func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, "names no grant"},
		"no grant":        {ours, func(c *ssh.Certificate) { c.KeyId = "" }, "names no grant"},
		"no principal":    {ours, func(c *ssh.Certificate) { c.ValidPrincipals = nil }, "names no grant"},
		"many principals": {ours, many, "names no grant"},
		"two tasks":       {ours, func(c *ssh.Certificate) { c.ValidPrincipals = append(c.ValidPrincipals, "web-deploy.web-1") }, "names no grant"},
		"no task":         {ours, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"web-status.web-1"} }, "names no grant"},
		"critical option": {ours, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "x"} }, "names no grant"},
		"extension":       {ours, func(c *ssh.Certificate) { c.Extensions = map[string]string{"permit-pty": ""} }, "names no grant"},
	} {
		n, err := grantcert.VerifySSH(certify(t, c.by, c.change), cas, time.Now())
		switch {
		case c.says == "" && (err != nil || n != grantcert.Name{Grant: "g-1", Task: "web-status"}):
			t.Errorf("%s: %+v, %v", name, n, err)
		case c.says != "" && (err == nil || n != grantcert.Name{} || postern.AsRefusal(err).Code != postern.CodeBadToken || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %+v, %v; want %q", name, n, err, c.says)
		}
	}
	good := certify(t, ours, func(*ssh.Certificate) {})
	bent := append([]byte(nil), good...)
	bent[len(bent)-1] ^= 1
	for name, wire := range map[string][]byte{
		"a signature that is not": bent, "a bare key": newSigner(t).PublicKey().Marshal(), "the CA": ours.PublicKey().Marshal(),
		"nothing": nil, "too long": make([]byte, grantcert.MaxSSHBytes+1),
	} {
		if n, err := grantcert.VerifySSH(wire, cas, time.Now()); err == nil {
			t.Errorf("%s is %+v", name, n)
		}
	}
	if _, err := grantcert.VerifySSH(good, nil, time.Now()); err == nil {
		t.Error("without a CA anything passes")
	}
}

// FuzzVerifySSH: a CA that is not known vouches for nothing, and nothing crashes.
func FuzzVerifySSH(f *testing.F) {
	ca := newSigner(f)
	f.Add(certify(f, ca, func(*ssh.Certificate) {}))
	f.Add(certify(f, ca, func(c *ssh.Certificate) { c.CertType = ssh.HostCert }))
	f.Add(ca.PublicKey().Marshal())
	f.Add([]byte{0, 0, 0, 32})
	stranger := []ssh.PublicKey{newSigner(f).PublicKey()}
	f.Fuzz(func(t *testing.T, wire []byte) {
		if n, err := grantcert.VerifySSH(wire, stranger, time.Now()); err == nil {
			t.Errorf("verified by nobody: %+v", n)
		}
		if key, err := ssh.ParsePublicKey(wire); err == nil {
			if c, ok := key.(*ssh.Certificate); ok {
				if n, err := grantcert.ReadSSH(c); err == nil && (n.Grant == "" || n.Task == "") {
					t.Errorf("read %+v", n)
				}
			}
		}
	})
}
