package authority

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/pkg/grantcert"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

const maxSSHKeyBytes = 4 << 10

// SSHHostCA is the wire form of the key that signs the SSH host keys of nodes now.
func (a *Authority) SSHHostCA() []byte { return a.current(UseSSHHosts).ssh.PublicKey().Marshal() }

// SSHHostLines are all keys that certify SSH hosts as they stand in an authorized_keys
// file, a line each; the last line has no end.
func (a *Authority) SSHHostLines() string {
	var lines strings.Builder
	for _, k := range a.trusted(UseSSHHosts) {
		lines.Write(ssh.MarshalAuthorizedKey(k.ssh.PublicKey()))
	}
	return strings.TrimSpace(lines.String())
}

// SSHUserCAs are the wire forms of the keys that sign the SSH certificates of grants.
func (a *Authority) SSHUserCAs() (wire [][]byte) {
	for _, k := range a.trusted(UseSSH) {
		wire = append(wire, k.ssh.PublicKey().Marshal())
	}
	return wire
}

// IssueSSHHost certifies a node's SSH host key, given in wire form, for host names and
// addresses. It lasts as long as the node's other certificates.
func (a *Authority) IssueSSHHost(wire []byte, name postern.NodeName, names []string) (*ssh.Certificate, error) {
	if err := object.CheckName(string(name)); err != nil {
		return nil, err
	}
	if len(wire) > maxSSHKeyBytes {
		return nil, fmt.Errorf("the host key is longer than %d bytes", maxSSHKeyBytes)
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return nil, fmt.Errorf("host key: %w", err)
	}
	if key.Type() != ssh.KeyAlgoED25519 {
		return nil, errors.New("the host key is not Ed25519")
	}
	if len(names) == 0 {
		return nil, errors.New("a host certificate without a name would be good for every host")
	}
	return a.current(UseSSHHosts).certify(&ssh.Certificate{
		Key: key, CertType: ssh.HostCert, KeyId: nodeHost + "/" + string(name), ValidPrincipals: names,
	}, a.cfg.Now(), a.cfg.Now().Add(nodeLifetime))
}

// IssueSSHGrant certifies a key, given as in an authorized_keys file, for a grant: to log
// in as one of the principals, until end.
func (a *Authority) IssueSSHGrant(line string, name grantcert.Name, principals []string, end time.Time) (*ssh.Certificate, error) {
	if len(line) > maxSSHKeyBytes {
		return nil, fmt.Errorf("the key is longer than %d bytes", maxSSHKeyBytes)
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil || len(options) > 0 || len(rest) > 0 {
		return nil, errors.New("this is not one public key, such as \"ssh-ed25519 AAAA...\"")
	}
	if !slices.Contains([]string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256}, key.Type()) {
		return nil, fmt.Errorf("the key is %s, and may be Ed25519 or ECDSA on P-256", key.Type())
	}
	c := &ssh.Certificate{Key: key, CertType: ssh.UserCert, KeyId: string(name.Grant), ValidPrincipals: principals}
	if says, err := grantcert.ReadSSH(c); err != nil || says.Task != name.Task {
		return nil, fmt.Errorf("the task reaches too many resources for one certificate (at most %d): take a token", grantcert.MaxPrincipals-1)
	}
	return a.current(UseSSH).certify(c, a.cfg.Now(), end)
}

// SSHGrantFromCert is what the wire form of a grant's SSH certificate says, which this
// authority has issued and which is valid now. Errors are *postern.Refusal.
func (a *Authority) SSHGrantFromCert(wire []byte) (grantcert.Name, error) {
	var cas []ssh.PublicKey
	for _, k := range a.trusted(UseSSH) {
		cas = append(cas, k.ssh.PublicKey())
	}
	return grantcert.VerifySSH(wire, cas, a.cfg.Now())
}

// certify completes a certificate, which begins at now but for the clocks that lag.
func (s *signer) certify(cert *ssh.Certificate, now, end time.Time) (*ssh.Certificate, error) {
	var serial [8]byte
	_, _ = rand.Read(serial[:]) // never fails
	cert.Serial = binary.BigEndian.Uint64(serial[:])
	cert.ValidAfter, cert.ValidBefore = uint64(now.Add(-backdate).Unix()), uint64(end.Unix()) //nolint:gosec // after 1970
	if err := cert.SignCert(rand.Reader, s.ssh); err != nil {
		return nil, err
	}
	return cert, nil
}
