package vault_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/controlplane/credential"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/test/servers"
)

// fromSSH: what Vault's CA has certified opens a real sshd that trusts the CA, for the one
// login that the reference names, and leaves no token behind.
func fromSSH(t *testing.T, h *house) {
	h.vault.Must(t, http.MethodPost, "sys/mounts/ssh", map[string]any{"type": "ssh"})
	ca, _ := h.vault.Must(t, http.MethodPost, "ssh/config/ca", map[string]any{"generate_signing_key": true, "key_type": "ed25519"})["data"].(map[string]any)
	me, err := user.Current()
	check(t, err)
	h.vault.Must(t, http.MethodPost, "ssh/roles/web", map[string]any{
		"key_type": "ca", "allow_user_certificates": true, "allowed_users": "deploy," + me.Username,
		"allowed_extensions": "permit-pty,permit-port-forwarding", "ttl": "5m", "max_ttl": "10m",
	})
	before := h.accessors()
	resp, err := h.broker(h.source(h.config()), nil).Lease(t.Context(), h.node(), ask("s-ssh", "web"))
	check(t, err)
	c := h.open("s-ssh", resp)
	line, _, _, _, err := ssh.ParseAuthorizedKey(c.GetCertificate())
	check(t, err)
	cert := line.(*ssh.Certificate)
	if c.GetAccount() != "deploy" || !slices.Equal(cert.ValidPrincipals, []string{"deploy"}) || time.Until(time.Unix(int64(cert.ValidBefore), 0)) > 6*time.Minute {
		t.Errorf("lent %q: %+v", c.GetAccount(), cert)
	}
	h.clean(strings.Split(string(c.GetPrivateKey()), "\n")[1:3]...)

	src := h.source(h.config())
	wall := policy.HostLogin{}
	issue := func(name string) (credential.Issued, error) {
		var accessor string
		return src.Issue(t.Context(), credential.Request{
			Ref:   &typesv1.CredentialRef{Vault: &typesv1.VaultRef{Mount: "ssh", SshRole: "web", User: name}},
			Lease: "l-ssh", Grant: "g-1", Node: "node-1", Until: time.Now().Add(time.Hour), Host: wall, Record: recordTo(&accessor),
		})
	}
	file := filepath.Join(t.TempDir(), "ca.pub")
	check(t, os.WriteFile(file, fmt.Append(nil, ca["public_key"]), 0o644))
	sshd := servers.SSH(t, "TrustedUserCAKeys "+file)
	// said is what the host says to a command, and whether it gives a terminal.
	said := func(client *ssh.Client) (string, bool) {
		session, err := client.NewSession()
		check(t, err)
		defer session.Close()
		terminal := session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}) == nil
		out, _ := session.Output("echo asked")
		return strings.TrimSpace(string(out)), terminal
	}
	var out string
	var terminal bool
	login := func(name string) error {
		issued, err := issue(name)
		check(t, err)
		signer, err := ssh.ParsePrivateKey(issued.Credential.GetPrivateKey())
		check(t, err)
		line, _, _, _, err := ssh.ParseAuthorizedKey(issued.Credential.GetCertificate())
		check(t, err)
		certified, err := ssh.NewCertSigner(line.(*ssh.Certificate), signer)
		check(t, err)
		client, err := ssh.Dial("tcp", net.JoinHostPort(sshd.Host, fmt.Sprint(sshd.Port)), &ssh.ClientConfig{
			User: me.Username, Auth: []ssh.AuthMethod{ssh.PublicKeys(certified)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		})
		if err == nil {
			out, terminal = said(client)
			_ = client.Close()
		}
		return err
	}
	if err := login(me.Username); err != nil {
		t.Errorf("the certificate opens nothing: %v: %s", err, sshd.Log())
	}
	if out != "asked" || terminal {
		t.Errorf("without a terminal the host says %q, and gives one: %v", out, terminal)
	}
	// The wall: one command, whatever is asked for; a terminal where the task has one.
	wall = policy.HostLogin{Command: "echo 'the one'"}
	if err := login(me.Username); err != nil || out != "the one" || terminal {
		t.Errorf("one command: %v, the host says %q, and gives a terminal: %v", err, out, terminal)
	}
	wall = policy.HostLogin{Terminal: true, Forward: true}
	if err := login(me.Username); err != nil || out != "asked" || !terminal {
		t.Errorf("a terminal: %v, the host says %q, and gives one: %v", err, out, terminal)
	}
	if err := login("deploy"); err == nil {
		t.Error("a certificate for another login opens this one")
	}
	if _, err := issue(""); err == nil || !strings.Contains(err.Error(), "every login") {
		t.Errorf("without a principal: %v", err)
	}
	// Some of those that were there before may have ended in the meantime.
	if left := slices.DeleteFunc(h.accessors(), func(a string) bool { return slices.Contains(before, a) }); len(left) > 0 {
		t.Errorf("%d tokens are left", len(left))
	}
}
