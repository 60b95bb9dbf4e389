package authority_test

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/grantcert"
	pname "github.com/posterngate/postern/pkg/postern"
)

func sshKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func line(k ssh.PublicKey) string { return string(ssh.MarshalAuthorizedKey(k)) }

func TestSSHGrant(t *testing.T) {
	s := storetest.NewMemory()
	a := open(t, s)
	name := grantcert.Name{Grant: "g-abcdefghijklmnop", Task: "web-status", Subject: "alice"}
	principals := grantcert.Principals("web-status", nil)
	end := time.Now().Add(15 * time.Minute)
	c, err := a.IssueSSHGrant(line(sshKey(t)), name, principals, end)
	if err != nil {
		t.Fatal(err)
	}
	if c.CertType != ssh.UserCert || c.KeyId != string(name.Grant) || !slices.Equal(c.ValidPrincipals, principals) || len(c.Extensions) != 0 || int64(c.ValidBefore) != end.Unix() {
		t.Errorf("issued %+v", c)
	}
	for what, a := range map[string]*authority.Authority{"its authority": a, "another replica": open(t, s)} {
		if n, err := a.SSHGrantFromCert(c.Marshal()); err != nil || n.Grant != name.Grant || n.Task != name.Task {
			t.Errorf("%s reads %+v, %v", what, n, err)
		}
	}
	if n, err := open(t, storetest.NewMemory()).SSHGrantFromCert(c.Marshal()); err == nil {
		t.Errorf("another house reads %+v", n)
	}
	host, err := a.IssueSSHHost(sshKey(t).Marshal(), "n1", []string{"n1.example"})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := a.SSHGrantFromCert(host.Marshal()); err == nil {
		t.Errorf("a host's certificate is %+v", n)
	}
	ec, err := ssh.NewPublicKey(ecKey(t, elliptic.P384()).Public())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for range grantcert.MaxPrincipals {
		all = append(all, "web-status.web-1")
	}
	for what, bad := range map[string]struct {
		key        string
		principals []string
	}{
		"no key": {"", principals}, "P-384": {line(ec), principals}, "a certificate": {line(c), principals},
		"two keys": {line(sshKey(t)) + line(sshKey(t)), principals}, "options": {"no-pty " + line(sshKey(t)), principals},
		"no principal": {line(sshKey(t)), nil}, "another's principal": {line(sshKey(t)), []string{"web-deploy"}},
		"many principals": {line(sshKey(t)), append(principals, all...)}, "long": {strings.Repeat("x", 1<<20), principals},
	} {
		if _, err := a.IssueSSHGrant(bad.key, name, bad.principals, end); err == nil {
			t.Errorf("%s: issued", what)
		}
	}
}

func TestSSHHost(t *testing.T) {
	a := open(t, storetest.NewMemory())
	c, err := a.IssueSSHHost(sshKey(t).Marshal(), "n1", []string{"127.0.0.1", "n1.example"})
	if err != nil {
		t.Fatal(err)
	}
	ca, _, _, _, err := ssh.ParseAuthorizedKey([]byte(a.SSHHostLines()))
	if err != nil {
		t.Fatal(err)
	}
	check := &ssh.CertChecker{IsHostAuthority: func(k ssh.PublicKey, _ string) bool { return string(k.Marshal()) == string(ca.Marshal()) }}
	for addr, good := range map[string]bool{"127.0.0.1:22": true, "n1.example:2222": true, "n2.example:22": false} {
		if err := check.CheckHostKey(addr, &net.TCPAddr{}, c); (err == nil) != good {
			t.Errorf("%s: %v", addr, err)
		}
	}
	ec, err := ssh.NewPublicKey(ecKey(t, elliptic.P256()).Public())
	if err != nil {
		t.Fatal(err)
	}
	key := sshKey(t).Marshal()
	for what, bad := range map[string]struct {
		key   []byte
		node  string
		names []string
	}{
		"no name": {key, "n1", nil}, "no key": {nil, "n1", []string{"a"}}, "ECDSA": {ec.Marshal(), "n1", []string{"a"}},
		"certificate": {c.Marshal(), "n1", []string{"a"}}, "no node": {key, "", []string{"a"}}, "long": {make([]byte, 1<<20), "n1", []string{"a"}},
	} {
		if _, err := a.IssueSSHHost(bad.key, pname.NodeName(bad.node), bad.names); err == nil {
			t.Errorf("%s: issued", what)
		}
	}
}
