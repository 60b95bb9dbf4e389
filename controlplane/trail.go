package controlplane

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/audit/tree"
	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/controlplane/recording"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/trail"
)

// openTrail opens the audit log's folder for reading, and makes it where it is missing.
func openTrail(cfg config.Config) (*trail.Log, error) {
	if err := os.MkdirAll(cfg.AuditDir, 0o700); err != nil {
		return nil, fmt.Errorf("auditDir: %w", err)
	}
	return trail.Open(cfg.AuditDir)
}

// auditKeyThere refuses a log without the key that signs it: another one, which a replica
// would make for itself, is not the one that auditors know.
func auditKeyThere(cfg config.Config, log *trail.Log) error {
	if _, err := os.Stat(cfg.AuditKey); !errors.Is(err, fs.ErrNotExist) {
		return nil // what is there is read
	}
	size, err := log.Size()
	if err == nil && size > 0 {
		err = fmt.Errorf("auditKey: there is no %s, by which the audit log in %s is signed: put it back, from its backup or from another replica; where it is lost for good, postern-control audit-key makes another", cfg.AuditKey, cfg.AuditDir)
	}
	return err
}

// NewAuditKey makes the key of the audit log in the place of one that is lost, and returns its
// public half, by which checkpoints from now on verify. A key that is there stays.
func NewAuditKey(cfg config.Config) (verifier string, err error) {
	if _, err := os.Lstat(cfg.AuditKey); !errors.Is(err, fs.ErrNotExist) {
		return "", errors.Join(fmt.Errorf("auditKey: there is a file %s: a key that may still sign is not replaced", cfg.AuditKey), err)
	}
	key, err := tree.OpenKey(cfg.AuditKey)
	return key.Verifier, err
}

// drainAudit moves the audit entries of the store into the log.
func (s *Server) drainAudit(ctx context.Context) error {
	return s.audit.Drain(ctx, func(ctx context.Context) (audit.Tree, error) {
		return tree.Open(ctx, s.cfg.AuditDir, s.auditKey, s.log)
	})
}

// told writes into the audit log that a recording began, was sealed or given up: so that it
// is missed where some or all of it is taken away.
func (s *Server) told(ctx context.Context, m recording.Mark) error {
	e := audit.Entry{Actor: "node/" + string(m.Node), Action: trail.Began, Object: "session/" + m.Session.GetId()}
	d := trail.Recording{Node: string(m.Node), Chunks: m.Chunks, Hash: m.Hash[:], Truncated: m.Truncated,
		Subject: m.Session.GetSubject(), Task: m.Session.GetTask(), Resource: m.Session.GetResource(), Doubt: m.Session.GetDoubt()}
	switch {
	case m.Lost:
		e.Actor, e.Action = "postern", trail.Lost
	case m.NodeKey != nil:
		e.Action = trail.Sealed
		der, err := x509.MarshalPKIXPublicKey(m.NodeKey)
		if err != nil {
			return err
		}
		d.NodeKey = der
	}
	e.Detail = d
	return s.audit.Append(ctx, e)
}

// alerted writes down what a session has told that somebody should see, such as a tool of a
// server of MCP that is another one than before.
func (s *Server) alerted(ctx context.Context, of *typesv1.Session, texts []string) error {
	for _, text := range texts {
		err := s.audit.Append(ctx, audit.Entry{
			Actor: "node/" + of.GetNode(), Action: "session.alert", Object: "session/" + of.GetId(),
			Detail: map[string]any{"alert": text, "subject": of.GetSubject(), "actors": of.GetActors(), "task": of.GetTask(), "resource": of.GetResource()},
		})
		if err != nil {
			return err
		}
	}
	return nil
}
