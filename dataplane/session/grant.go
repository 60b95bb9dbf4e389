package session

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/grantcert"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
)

// signInTimeout bounds how long a person may take to sign in, whatever the control plane
// says.
const signInTimeout = 15 * time.Minute

// signIn is the grant of a person who signs in elsewhere.
func (k *Keeper) signIn(ctx context.Context, c engine.Claim, task postern.TaskName, resource postern.ResourceName) (*postern.Grant, error) {
	if c.Certificate != nil || c.Token.Len() > 0 {
		return nil, &postern.Refusal{Code: postern.CodeBadToken, Reason: "something was shown, and a person would sign in too", Hint: "connect again"}
	}
	ctx, cancel := context.WithTimeout(ctx, signInTimeout)
	defer cancel()
	return k.cfg.Control.SignIn(ctx, &nodev1.SignInRequest{
		Task: string(task), Resource: string(resource), ClientAddress: c.ClientAddress, ClientProgram: c.ClientProgram,
	}, func(p *nodev1.SignInPrompt) {
		c.SignIn(engine.SignIn{URL: p.GetUrl(), Code: p.GetCode(), Expires: p.GetExpireTime().AsTime()})
	})
}

// grant is the grant of a claim, which is that of a person where one has signed in; it
// waits until the node enforces the policy under which the grant was made.
func (k *Keeper) grant(ctx context.Context, c engine.Claim, task postern.TaskName, resource postern.ResourceName, person *postern.Grant) (*postern.Grant, error) {
	grant, named := person, grantcert.Name{}
	if grant == nil {
		var err error
		if grant, named, err = k.shown(ctx, c, task, resource); err != nil {
			return nil, err
		}
	}
	if grant.Task != task {
		return nil, &postern.Refusal{Code: postern.CodeNoGrant, Reason: fmt.Sprintf("this token is for task %q, not for %q", grant.Task, task), Hint: fmt.Sprintf("connect as %s.RESOURCE, or get a token for %s", grant.Task, task)}
	}
	if c.Certificate != nil && (grant.ID != named.Grant || named.Subject != "" && grant.Subject.Name != named.Subject) {
		return nil, &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the control plane answered with another grant than the client certificate names", Hint: "tell the operators when it happened"}
	}
	wait, cancel := context.WithTimeout(ctx, minVersionTimeout)
	defer cancel()
	if err := k.cfg.Snapshots.WaitFor(wait, grant.MinVersion); err != nil && !hole.Is("grant-version") {
		return nil, &postern.Refusal{Code: postern.CodeUnavailable, Reason: "this node does not enforce the policy yet under which the grant was made", Hint: "try again in a moment, or another node", Cause: err}
	}
	return grant, nil
}

// shown asks the control plane for the grant of what a client has shown, and says what a
// certificate names.
func (k *Keeper) shown(ctx context.Context, c engine.Claim, task postern.TaskName, resource postern.ResourceName) (*postern.Grant, grantcert.Name, error) {
	var named grantcert.Name
	if c.Certificate != nil {
		var err error
		if named, err = k.certificate(c, task); err != nil {
			return nil, named, err
		}
	}
	ask := &nodev1.OpenGrantRequest{
		Token: string(c.Token.Reveal()), Task: string(task), Resource: string(resource),
		ClientAddress: c.ClientAddress, ClientProgram: c.ClientProgram,
	}
	if c.Protocol == postern.SSH {
		ask.SshCertificate = c.Certificate
	} else {
		ask.ClientCertificate = c.Certificate
	}
	grant, err := k.cfg.Control.OpenGrant(ctx, ask)
	return grant, named, err
}

// certificate verifies what a client showed instead of a token: that it is good for just
// this task. Whether it is on file with its grant the control plane says.
func (k *Keeper) certificate(c engine.Claim, task postern.TaskName) (grantcert.Name, error) {
	verify, hint, dir := k.ofTLS, grantcert.Hint, "--cert"
	if c.Protocol == postern.SSH {
		verify, hint, dir = k.ofSSH, grantcert.SSHHint, "--ssh"
	}
	n, err := verify(c.Certificate)
	switch {
	case err != nil:
		return n, err
	case c.Token.Len() > 0:
		return n, &postern.Refusal{Code: postern.CodeBadToken, Reason: "a client certificate and a token were shown at once", Hint: hint}
	case n.Task != task:
		return n, &postern.Refusal{
			Code: postern.CodeNoGrant, Reason: fmt.Sprintf("this client certificate is for task %q, not for %q", n.Task, task),
			Hint: fmt.Sprintf("connect as %s.RESOURCE, or make one for it: postern grant %s %s DIR", n.Task, task, dir),
		}
	}
	return n, nil
}

func (k *Keeper) ofTLS(der []byte) (grantcert.Name, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return grantcert.Name{}, &postern.Refusal{Code: postern.CodeBadToken, Reason: "the client certificate cannot be read", Hint: grantcert.Hint, Cause: err}
	}
	return grantcert.Verify(cert, k.cfg.Snapshots.ClientCAs(), k.cfg.Now())
}

func (k *Keeper) ofSSH(wire []byte) (grantcert.Name, error) {
	return grantcert.VerifySSH(wire, k.cfg.Snapshots.UserCAs(), k.cfg.Now())
}
