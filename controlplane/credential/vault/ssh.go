package vault

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/controlplane/credential"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/policy"
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
	wall := wallOf(r.Host)
	life := min(sshLife, r.Until.Sub(s.cfg.Now()))
	answer, err := child.Logical().WriteWithContext(ctx, path, map[string]any{
		"public_key": string(ssh.MarshalAuthorizedKey(public)), "valid_principals": user, "cert_type": "user",
		"ttl": fmt.Sprintf("%ds", max(1, int64(life/time.Second))), "extensions": wall.Extensions, "critical_options": wall.CriticalOptions,
	})
	if err != nil {
		return credential.Issued{}, fmt.Errorf("write %s: %w", path, err)
	}
	line := ""
	if answer != nil {
		line, _ = answer.Data["signed_key"].(string)
	}
	if err := checkSigned(line, public, user, wall, s.cfg.Now().Add(life+overrun)); err != nil {
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

// forceCommand is OpenSSH's name of the option by which a host runs one command, whatever
// it is asked for.
const forceCommand = "force-command"

// wallOf is what the host itself must hold a session to: the one command where the task
// allows one, and no more than it needs of the rest.
func wallOf(l policy.HostLogin) ssh.Permissions {
	out := ssh.Permissions{CriticalOptions: map[string]string{}, Extensions: map[string]string{}}
	if l.Command != "" {
		out.CriticalOptions[forceCommand] = l.Command
	}
	if l.Terminal {
		out.Extensions["permit-pty"] = ""
	}
	if l.Forward {
		out.Extensions["permit-port-forwarding"] = ""
	}
	return out
}

// checkSigned says why a certificate is not what was asked for.
func checkSigned(line string, key ssh.PublicKey, user string, wall ssh.Permissions, latest time.Time) error {
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
	case !maps.Equal(c.CriticalOptions, wall.CriticalOptions):
		return fmt.Errorf("the certificate has the critical options %v, and %v were asked for: set allowed_critical_options of the role", c.CriticalOptions, wall.CriticalOptions)
	case !maps.Equal(c.Extensions, wall.Extensions):
		return fmt.Errorf("the certificate has the extensions %v, and %v were asked for: set allowed_extensions of the role, and no default_extensions", c.Extensions, wall.Extensions)
	case c.ValidBefore > uint64(max(latest.Unix(), 0)): //nolint:gosec // not negative
		return errors.New("the certificate lasts longer than was asked for: set ttl and max_ttl of the role")
	}
	return nil
}
