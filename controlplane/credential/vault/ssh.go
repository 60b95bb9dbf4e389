package vault

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/controlplane/credential"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
)

// sshLife is how long a certificate is good: it is shown once, when the session logs in.
const sshLife = 5 * time.Minute

// fromSSH has a key certified that is made for this lease, for one principal. There is
// nothing to revoke: the certificate ends by itself within minutes, and the token has
// done its work.
func (s *Source) fromSSH(ctx context.Context, child *api.Client, path string, r credential.Request, h handle) (credential.Issued, error) {
	user := r.Ref.GetVault().GetUser()
	if user == "" {
		return credential.Issued{}, errors.Join(errors.New("a certificate without a principal would be good for every login"), s.drop(ctx, h))
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return credential.Issued{}, err
	}
	defer clear(key)
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		return credential.Issued{}, err
	}
	life := min(sshLife, r.Until.Sub(s.cfg.Now()))
	answer, err := child.Logical().WriteWithContext(ctx, path, map[string]any{
		"public_key": string(ssh.MarshalAuthorizedKey(public)), "valid_principals": user, "cert_type": "user",
		"ttl": fmt.Sprintf("%ds", max(1, int64(life/time.Second))), "extensions": map[string]string{"permit-pty": "", "permit-port-forwarding": ""},
	})
	if err != nil {
		return credential.Issued{}, fmt.Errorf("write %s: %w", path, err)
	}
	line := ""
	if answer != nil {
		line, _ = answer.Data["signed_key"].(string)
	}
	if err := checkSigned(line, public, user, s.cfg.Now().Add(life+overrun)); err != nil {
		return credential.Issued{}, fmt.Errorf("write %s: %w", path, err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return credential.Issued{}, err
	}
	defer clear(block.Bytes)
	if err := s.drop(ctx, h); err != nil {
		return credential.Issued{}, err
	}
	return credential.Issued{Credential: &nodev1.Credential{Account: user, PrivateKey: pem.EncodeToMemory(block), Certificate: []byte(line)}}, nil
}

// checkSigned says why a certificate is not what was asked for.
func checkSigned(line string, key ssh.PublicKey, user string, latest time.Time) error {
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return errors.New("the answer holds no certificate")
	}
	c, ok := parsed.(*ssh.Certificate)
	switch {
	case !ok || c.CertType != ssh.UserCert || !bytes.Equal(c.Key.Marshal(), key.Marshal()):
		return errors.New("the answer is not a user certificate for the key that was sent")
	case !slices.Equal(c.ValidPrincipals, []string{user}):
		return fmt.Errorf("the certificate is good for %q, and not for %q alone", c.ValidPrincipals, user)
	case c.ValidBefore > uint64(max(latest.Unix(), 0)): //nolint:gosec // not negative
		return errors.New("the certificate lasts longer than was asked for: set ttl and max_ttl of the role")
	}
	return nil
}
