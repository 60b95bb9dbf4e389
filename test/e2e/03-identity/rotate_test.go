package identity

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/test/e2e/house"
)

// rotated replaces the CAs of grant certificates, of those of SSH and of SSH hosts: what
// the former ones signed goes on beside what the new ones sign, until they are retired.
func rotated(t *testing.T, h *house.House) {
	atPG := func(cert *tls.Certificate) error {
		cfg := h.Config(t, "", "sales-report")
		cfg.TLSConfig.Certificates = []tls.Certificate{*cert}
		conn, err := pgx.ConnectConfig(t.Context(), cfg)
		if err == nil {
			err = conn.Close(t.Context())
		}
		return err
	}
	shown := func(cert ssh.Signer) error { return atSSH(t.Context(), h, proof{ssh: cert}) }
	former, formerSSH, formerHosts := h.ClientCert(t, "alice", "sales-report", 0), sshCert(t, h, "web-status"), hostCAs(t, h)

	for _, use := range []string{"certificates", "ssh-certificates", "ssh-hosts"} {
		name := strings.TrimSpace(ok(t, h.CLI(t, "ada", "ca", "rotate", use, "--lead", "2s")).Out)
		house.Eventually(t, func() string { return use + " has a key that signs" }, func() bool {
			return regexp.MustCompile(regexp.QuoteMeta(name) + `\s+` + use + `\s+signing`).MatchString(ok(t, h.CLI(t, "ada", "ca")).Out)
		})
	}
	next, nextSSH, hosts := h.ClientCert(t, "alice", "sales-report", 0), sshCert(t, h, "web-status"), hostCAs(t, h)
	if len(hosts) != 2 || !bytes.Equal(hosts[1], formerHosts[0]) {
		t.Fatalf("%d keys certify hosts, or in another order", len(hosts))
	}
	var err error
	house.Eventually(t, func() string { return "the node trusts the new CAs: " + err.Error() }, func() bool {
		err = errors.Join(atPG(next), shown(nextSSH))
		return err == nil
	})
	if err := errors.Join(atPG(former), shown(formerSSH)); err != nil {
		t.Errorf("while the former CAs are trusted: %v", err)
	}
	house.Eventually(t, func() string { return "the node's host key is certified anew: " + err.Error() }, func() bool {
		err = knownBy(h, hosts[0])
		return err == nil
	})

	for _, name := range []string{"client-ca", "ssh-user-ca", "ssh-host-ca"} {
		ok(t, h.CLI(t, "ada", "ca", "retire", name))
	}
	house.Eventually(t, func() string { return "the node trusts the former CAs no more" }, func() bool {
		return house.State(atPG(former)) == "28P01" && shown(formerSSH) != nil
	})
	if err := errors.Join(atPG(next), shown(nextSSH)); err != nil {
		t.Errorf("once the former CAs are gone: %v", err)
	}
	if left := hostCAs(t, h); len(left) != 1 || !bytes.Equal(left[0], hosts[0]) {
		t.Errorf("%d keys certify hosts", len(left))
	}
}

// hostCAs are the wire forms of the keys that certify SSH hosts, as a grant tells them.
func hostCAs(t *testing.T, h *house.House) (wire [][]byte) {
	t.Helper()
	r := house.Must(h.API("alice").Grants.CreateGrant(t.Context(), house.Request(&apiv1.CreateGrantRequest{
		Task: "web-status", SshKey: string(ssh.MarshalAuthorizedKey(newSigner(t).PublicKey())),
	})))(t)
	for line := range strings.Lines(r.Msg.GetSshHostCa()) {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		wire = append(wire, key.Marshal())
	}
	return wire
}

// knownBy is nil where the SSH listener shows a key that the CA has certified.
func knownBy(h *house.House, ca []byte) error {
	check := &ssh.CertChecker{IsHostAuthority: func(k ssh.PublicKey, _ string) bool { return bytes.Equal(k.Marshal(), ca) }}
	seen := errors.New("no host key was shown")
	nc, err := net.Dial("tcp", h.Nodes[0].SSH)
	if err != nil {
		return err
	}
	defer nc.Close()
	_, _, _, _ = ssh.NewClientConn(nc, h.Nodes[0].SSH, &ssh.ClientConfig{User: "web-status.web-1", HostKeyCallback: func(addr string, remote net.Addr, key ssh.PublicKey) error {
		seen = check.CheckHostKey(addr, remote, key)
		return seen
	}}) // nobody logs in: who the host is was asked
	return seen
}
