package authority_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/grantcert"
)

// clock is an Authority's time, and how to start it anew at that time.
type clock struct {
	t   *testing.T
	s   *storetest.Memory
	now time.Time
}

func (c *clock) open() *authority.Authority {
	c.t.Helper()
	cfg := config(c.s)
	cfg.Now = func() time.Time { return c.now }
	a, err := authority.Open(c.t.Context(), cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

func states(t *testing.T, a *authority.Authority, use string) (out string) {
	t.Helper()
	keys, err := a.Keys()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if k.Use == use {
			out += k.State + " "
		}
	}
	return strings.TrimSpace(out)
}

// TestRotateCA replaces the CA: both are trusted, the old one signs, then the new one, and
// then the old one is gone, also for who starts later.
func TestRotateCA(t *testing.T) {
	c := &clock{t, storetest.NewMemory(), time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	a, other := c.open(), c.open()
	node := func() *x509.Certificate {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := a.IssueNode(csr(t, key), "n1")
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	serve := a.Server("localhost")
	shown := func() []byte {
		t.Helper()
		cert, err := serve(nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert.Certificate[1]
	}
	old, first := a.CA(), node()
	lead := time.Hour
	made, err := a.Rotate(t.Context(), "ada", authority.UseNodes, &lead)
	if err != nil || made.State != "next" || !made.Signs.Equal(c.now.Add(lead)) {
		t.Fatalf("%+v, %v", made, err)
	}
	if got := states(t, a, authority.UseNodes); got != "signing next" || bytes.Count(a.Bundle(), []byte("BEGIN")) != 2 || !a.CA().Equal(old) || !bytes.Equal(shown(), old.Raw) {
		t.Errorf("before it signs: %s", got)
	}
	c.now = c.now.Add(lead)
	if got := states(t, a, authority.UseNodes); got != "former signing" || a.CA().Equal(old) || !bytes.Equal(shown(), a.CA().Raw) {
		t.Errorf("once it signs: %s", got)
	}
	second := node()
	if second.CheckSignatureFrom(old) == nil {
		t.Error("the old CA still signs")
	}
	for what, cert := range map[string]*x509.Certificate{"old": first, "new": second} {
		if _, err := a.NodeFromCert(cert); err != nil {
			t.Errorf("a certificate of the %s CA: %v", what, err)
		}
		if _, err := other.NodeFromCert(cert); what == "new" && err == nil {
			t.Error("a replica that has not read the new CA trusts it")
		}
	}
	c.now = c.now.Add(47 * time.Hour)
	if got := states(t, c.open(), authority.UseNodes); got != "former signing" {
		t.Errorf("while its certificates may live: %s", got)
	}
	c.now = c.now.Add(2 * time.Hour)
	for range 2 { // who starts later makes no new one in its place
		if later := c.open(); states(t, later, authority.UseNodes) != "signing" || bytes.Count(later.Bundle(), []byte("BEGIN")) != 1 || later.CA().Equal(old) {
			t.Errorf("after the overlap: %s", states(t, later, authority.UseNodes))
		}
	}
}

// TestRotateCertificates: what the former CA of grant certificates signed is good beside
// what its successor signs, until it is retired; so for X.509 and SSH.
func TestRotateCertificates(t *testing.T) {
	c := &clock{t, storetest.NewMemory(), time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	a := c.open()
	name := grantcert.Name{Grant: "g-abcdefghijklmnop", Task: "web-status", Subject: "alice"}
	end := func() time.Time { return c.now.Add(24 * time.Hour) }
	lead := time.Minute
	for use, how := range map[string]struct {
		issue func() []byte
		read  func([]byte) (grantcert.Name, error)
		first string
		known func() int
	}{
		authority.UseCertificates: {func() []byte {
			cert, err := a.IssueGrant(csr(t, ecKey(t, elliptic.P256())), name, end())
			if err != nil {
				t.Fatal(err)
			}
			return cert.Raw
		}, a.GrantFromCert, "client-ca", func() int { return len(a.ClientCAs()) }},
		authority.UseSSH: {func() []byte {
			cert, err := a.IssueSSHGrant(line(sshKey(t)), name, grantcert.Principals("web-status", nil), end())
			if err != nil {
				t.Fatal(err)
			}
			return cert.Marshal()
		}, a.SSHGrantFromCert, "ssh-user-ca", func() int { return len(a.SSHUserCAs()) }},
	} {
		old := how.issue()
		if _, err := a.Rotate(t.Context(), "ada", use, &lead); err != nil || how.known() != 2 {
			t.Fatalf("%s: %d are known, %v", use, how.known(), err)
		}
		c.now = c.now.Add(lead)
		fresh := how.issue()
		for what, cert := range map[string][]byte{"former": old, "new": fresh} {
			if got, err := how.read(cert); err != nil || got.Grant != name.Grant {
				t.Errorf("%s: a certificate of the %s CA: %+v, %v", use, what, got, err)
			}
		}
		if err := a.Retire(t.Context(), "ada", how.first); err != nil {
			t.Fatal(err)
		}
		if _, err := how.read(old); err == nil || how.known() != 1 {
			t.Errorf("%s: a retired CA is trusted", use)
		}
		if _, err := how.read(fresh); err != nil {
			t.Errorf("%s: %v", use, err)
		}
	}

	before, signs := a.SSHHostLines(), a.SSHHostCA()
	if _, err := a.Rotate(t.Context(), "ada", authority.UseSSHHosts, &lead); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(a.SSHHostLines(), "\n"); len(lines) != 2 || lines[0] != before || !bytes.Equal(a.SSHHostCA(), signs) {
		t.Errorf("before the successor signs hosts: %q", lines)
	}
	c.now = c.now.Add(lead)
	if lines := strings.Split(a.SSHHostLines(), "\n"); len(lines) != 2 || lines[1] != before || bytes.Equal(a.SSHHostCA(), signs) {
		t.Errorf("once the successor signs hosts: %q", lines)
	}
	c.now = c.now.Add(49 * time.Hour)
	if later := c.open(); strings.Contains(later.SSHHostLines(), "\n") || later.SSHHostLines() == before {
		t.Errorf("after the overlap: %q", later.SSHHostLines())
	}
}

// TestRetire ends the trust in a key at once, but for the one that signs.
func TestRetire(t *testing.T) {
	c := &clock{t, storetest.NewMemory(), time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	a := c.open()
	lead, short := 15*time.Second, time.Second
	for _, use := range authority.Uses() {
		before, err := a.Keys()
		if err != nil {
			t.Fatal(err)
		}
		name := ""
		for _, k := range before {
			if k.Use == use {
				name = k.Name
			}
		}
		if err := a.Retire(t.Context(), "ada", name); fault.CodeOf(err) != codes.FailedPrecondition {
			t.Errorf("the key that signs for %s: %v", use, err)
		}
		if k, err := a.Rotate(t.Context(), "ada", use, &lead); err != nil || k.State != "next" {
			t.Errorf("%+v %v", k, err)
		}
		c.now = c.now.Add(lead)
		if err := a.Retire(t.Context(), "ada", name); err != nil {
			t.Errorf("the former key of %s: %v", use, err)
		}
		if got := states(t, a, use); got != "signing" {
			t.Errorf("%s: %s", use, got)
		}
	}
	signed, err := a.SignGrant(&typesv1.Grant{Id: "g-1"})
	if err != nil || !verify(a, signed) {
		t.Errorf("a grant by the new key: %v", err)
	}
	if err := a.Retire(t.Context(), "ada", "client-ca"); fault.CodeOf(err) != codes.NotFound {
		t.Errorf("a key that is gone: %v", err)
	}
	long := 1000 * 24 * time.Hour
	for _, err := range []error{
		func() error { _, err := a.Rotate(t.Context(), "ada", "everything", nil); return err }(),
		func() error { _, err := a.Rotate(t.Context(), "ada", authority.UseNodes, &long); return err }(),
		func() error { _, err := a.Rotate(t.Context(), "ada", authority.UseNodes, &short); return err }(),
	} {
		if fault.CodeOf(err) != codes.InvalidArgument {
			t.Errorf("a request that makes no sense: %v", err)
		}
	}
}
