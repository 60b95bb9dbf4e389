package grantcert

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

// A grant's SSH certificate has the grant as its key id, and as its principals what a
// client may log in as: the task first, then TASK.RESOURCE for each resource. It has no
// critical options and no extensions: what a session may do is the task's to say.

// MaxSSHBytes bounds the wire form of an SSH certificate; MaxPrincipals is what OpenSSH
// reads.
const (
	MaxSSHBytes   = 32 << 10
	MaxPrincipals = 256
)

// Principals are those of a certificate for a task that reaches these resources.
func Principals(task postern.TaskName, resources []postern.ResourceName) []string {
	all := []string{string(task)}
	for _, r := range resources {
		all = append(all, string(task)+"."+string(r))
	}
	return all
}

// ReadSSH is the name in a certificate of just the right form, without the subject,
// which an SSH certificate does not say. It verifies nothing.
func ReadSSH(c *ssh.Certificate) (Name, error) {
	if c.CertType != ssh.UserCert || len(c.CriticalOptions)+len(c.Extensions) != 0 || c.KeyId == "" ||
		len(c.ValidPrincipals) == 0 || len(c.ValidPrincipals) > MaxPrincipals {
		return Name{}, errForm
	}
	task := c.ValidPrincipals[0]
	if object.CheckName(task) != nil {
		return Name{}, errForm
	}
	for _, p := range c.ValidPrincipals[1:] {
		resource, ok := strings.CutPrefix(p, task+".")
		if !ok || object.CheckName(resource) != nil {
			return Name{}, errForm
		}
	}
	return Name{Grant: postern.GrantID(c.KeyId), Task: postern.TaskName(task)}, nil
}

// VerifySSH is the name in the wire form of a certificate that one of the CAs has signed
// and that is valid at now. That the client holds its key is for the handshake to have
// shown. An error is a *postern.Refusal for the client.
func VerifySSH(wire []byte, cas []ssh.PublicKey, now time.Time) (Name, error) {
	if len(wire) > MaxSSHBytes {
		return Name{}, refuseSSH(errForm, "the certificate cannot be read")
	}
	key, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return Name{}, refuseSSH(err, "the certificate cannot be read")
	}
	c, ok := key.(*ssh.Certificate)
	if !ok {
		return Name{}, refuseSSH(errForm, "a key without a certificate opens nothing here")
	}
	if !slices.ContainsFunc(cas, func(ca ssh.PublicKey) bool { return bytes.Equal(ca.Marshal(), c.SignatureKey.Marshal()) }) {
		return Name{}, refuseSSH(errors.New("unknown authority"), "the certificate was not issued here")
	}
	n, err := ReadSSH(c)
	if err != nil {
		return Name{}, refuseSSH(err, "the certificate names no grant")
	}
	// The checker is asked for a principal that it has, at a time at which it is valid, so
	// that what is left to find is a signature that is not the CA's.
	check := &ssh.CertChecker{Clock: func() time.Time { return time.Unix(int64(c.ValidAfter), 0) }} //nolint:gosec // compared below
	if err := check.CheckCert(c.ValidPrincipals[0], c); err != nil {
		return Name{}, refuseSSH(err, "the certificate was not issued here")
	}
	switch at := uint64(max(now.Unix(), 0)); { //nolint:gosec // not negative
	case at >= c.ValidBefore:
		return Name{}, refuseSSH(errForm, fmt.Sprintf("the certificate ended at %s", time.Unix(int64(c.ValidBefore), 0).UTC().Format(time.RFC3339))) //nolint:gosec // it is in the past
	case at < c.ValidAfter:
		return Name{}, refuseSSH(errForm, "the certificate is not valid yet: a clock is wrong")
	}
	return n, nil
}

// SSHHint says how to come in with another certificate, and how without one.
const SSHHint = "get one by: postern grant TASK --ssh DIR; or give a token as the password"

func refuseSSH(cause error, reason string) *postern.Refusal {
	return &postern.Refusal{Code: postern.CodeBadToken, Reason: reason, Hint: SSHHint, Cause: cause}
}
