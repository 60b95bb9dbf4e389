package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/test/e2e/house"
)

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return house.Must(ssh.NewSignerFromKey(key))(t)
}

// sshCert is alice's SSH certificate for a task.
func sshCert(t *testing.T, h *house.House, task string) ssh.Signer {
	t.Helper()
	signer := newSigner(t)
	r := house.Must(h.API("alice").Grants.CreateGrant(t.Context(), house.Request(&apiv1.CreateGrantRequest{
		Task: task, SshKey: string(ssh.MarshalAuthorizedKey(signer.PublicKey())),
	})))(t)
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(r.Msg.GetSshCertificate()))
	if err != nil {
		t.Fatal(err)
	}
	return house.Must(ssh.NewCertSigner(key.(*ssh.Certificate), signer))(t)
}

// sshForged is a copy of a certificate that another CA has signed.
func sshForged(t *testing.T, real ssh.Signer) ssh.Signer {
	t.Helper()
	signer := newSigner(t)
	c := *real.PublicKey().(*ssh.Certificate)
	c.Key = signer.PublicKey()
	if err := c.SignCert(rand.Reader, newSigner(t)); err != nil {
		t.Fatal(err)
	}
	return house.Must(ssh.NewCertSigner(&c, signer))(t)
}

// atSSH shows a proof to the SSH listener.
func atSSH(ctx context.Context, h *house.House, p proof) error {
	task := p.task
	if task == "" || task == "nightly-load" {
		task = "web-status"
	}
	cfg := &ssh.ClientConfig{User: task + ".web-1", HostKeyCallback: ssh.InsecureIgnoreHostKey()}
	if p.ssh != nil {
		cfg.Auth = append(cfg.Auth, ssh.PublicKeys(p.ssh))
	}
	if p.token != "" {
		cfg.Auth = append(cfg.Auth, ssh.Password(p.token))
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", h.Nodes[0].SSH)
	if err != nil {
		return fmt.Errorf("not as it should be: %w", err)
	}
	defer nc.Close()
	conn, channels, requests, err := ssh.NewClientConn(nc, h.Nodes[0].SSH, cfg)
	if err != nil {
		if !strings.Contains(err.Error(), "unable to authenticate") {
			return fmt.Errorf("not as it should be: %w", err)
		}
		return err
	}
	client := ssh.NewClient(conn, channels, requests)
	defer client.Close()
	s, err := client.NewSession()
	if err != nil {
		return fmt.Errorf("not as it should be: %w", err)
	}
	defer s.Close()
	if out, err := s.Output("uptime"); err != nil || !strings.Contains(string(out), "load average") {
		return fmt.Errorf("not as it should be: %q, %w", out, err)
	}
	return nil
}
