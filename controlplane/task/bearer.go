package task

import (
	"context"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/grantcert"
	"github.com/posterngate/postern/pkg/postern"
)

// handOut makes what uses g: a certificate for the key that was given or, without one, a
// token. A grant has one of them: what it had before is dead.
func (s *Service) handOut(g *typesv1.Grant, how taking, reaches []postern.ResourceName, resp *apiv1.CreateGrantResponse) error {
	g.TokenHash, g.CertificateHash = nil, nil
	if len(how.csr) == 0 && how.sshKey == "" {
		token, err := newToken(g.GetId())
		if err != nil {
			return err
		}
		g.TokenHash, resp.Token = hash([]byte(token)), token
		return nil
	}
	name := grantcert.Name{Grant: postern.GrantID(g.GetId()), Task: postern.TaskName(g.GetTask()), Subject: g.GetSubject().GetName()}
	if how.sshKey != "" {
		c, err := s.cfg.Certificates.IssueSSHGrant(how.sshKey, name, grantcert.Principals(name.Task, reaches), g.GetEndTime().AsTime())
		if err != nil {
			return fault.Invalid(fault.Violation{Field: "ssh_key", Reason: err.Error()})
		}
		g.CertificateHash = hash(c.Marshal())
		resp.SshCertificate, resp.SshHostCa = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(c))), s.cfg.Certificates.SSHHostLines()
		return nil
	}
	c, err := s.cfg.Certificates.IssueGrant(how.csr, name, g.GetEndTime().AsTime())
	if err != nil {
		return fault.Invalid(fault.Violation{Field: "csr", Reason: err.Error()})
	}
	g.CertificateHash = hash(c.Raw)
	resp.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	return nil
}

// bearer is one of the things that open their own grant alone.
type bearer struct {
	name string                      // for people
	make string                      // the command that makes one
	hash func(*typesv1.Grant) []byte // of the one that is on file
}

var (
	byToken       = bearer{"grant token", "postern grant %s", (*typesv1.Grant).GetTokenHash}
	byCertificate = bearer{"client certificate", "postern grant %s --cert DIR", (*typesv1.Grant).GetCertificateHash}
	bySSH         = bearer{"certificate", "postern grant %s --ssh DIR", (*typesv1.Grant).GetCertificateHash}
)

// ofToken is the grant that a grant token opens.
func (s *Service) ofToken(ctx context.Context, token string, name postern.TaskName) (*typesv1.Grant, error) {
	id, err := parseToken(token)
	if err != nil {
		return nil, byToken.unknown(name)
	}
	return s.own(ctx, byToken, id, []byte(token), name)
}

// ofCertificate is the grant that a grant certificate opens. It must be the one that is
// on file with its grant: that the CA has signed it is not enough.
func (s *Service) ofCertificate(ctx context.Context, by bearer, read func([]byte) (grantcert.Name, error), shown []byte, name postern.TaskName) (*typesv1.Grant, error) {
	says, err := read(shown)
	if err != nil {
		return nil, asFault(err)
	}
	return s.own(ctx, by, string(says.Grant), shown, name)
}

// own is the grant with the id, where what was shown is what it has on file and it may
// be used for the task now.
func (s *Service) own(ctx context.Context, by bearer, id string, shown []byte, name postern.TaskName) (*typesv1.Grant, error) {
	g, _, err := s.load(ctx, id)
	if fault.CodeOf(err) == codes.NotFound {
		return nil, by.unknown(name)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case !fits(by.hash(g), shown):
		return nil, by.unknown(name)
	case g.GetTask() != string(name):
		return nil, fault.Refused(&postern.Refusal{Code: postern.CodeNoGrant, Reason: fmt.Sprintf("this %s is for task %q, not for %q", by.name, g.GetTask(), name), Hint: "make one for it: " + fmt.Sprintf(by.make, name)})
	}
	why, err := s.standing(ctx, g, nil)
	if err != nil || why == "" {
		return g, err
	}
	return nil, fault.Refused(&postern.Refusal{Code: postern.CodeBadToken, Reason: fmt.Sprintf("the grant of this %s is over: %s", by.name, why), Hint: by.another(name)})
}

// standing says why a grant cannot be used now, or nothing where it can; now is the
// subject as a token of today tells of it, where there is one.
func (s *Service) standing(ctx context.Context, g *typesv1.Grant, now *postern.Subject) (why string, err error) {
	switch {
	case Live(g, s.cfg.Now()):
		return s.unfounded(ctx, g, now)
	case g.GetState() != typesv1.GrantState_GRANT_STATE_ACTIVE && g.GetEndReason() != "":
		return g.GetEndReason(), nil
	}
	return overText, nil
}

func (b bearer) another(name postern.TaskName) string {
	return "make a new one: " + fmt.Sprintf(b.make, name)
}

func (b bearer) unknown(name postern.TaskName) error {
	return fault.Refused(&postern.Refusal{Code: postern.CodeBadToken, Reason: fmt.Sprintf("this %s is not known", b.name), Hint: b.another(name)})
}
