package controlplane

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/config"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

// NewEpoch marks the store as one that was restored from a backup: whatever nodes have
// of the time that was lost is of another epoch, and they take everything anew. The
// audit log goes on behind the entries that it has; lost is called with each of which the
// store knows nothing any more, in order. It is called once after a restore, while no
// replica runs; after an error none starts, and it is to be called again.
func NewEpoch(ctx context.Context, cfg config.Config, log *slog.Logger, lost func(*apiv1.AuditEntry) error) (name string, err error) {
	s, err := openStore(ctx, cfg, log)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	moved, err := openTrail(cfg)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, moved.Close()) }()
	// The epoch first: a store that has one, and whose log was not resumed, is not served.
	if name, err = s.NewEpoch(ctx); err != nil {
		return "", err
	}
	return name, audit.New(s, time.Now).WithMoved(moved).Resume(ctx, name, lost)
}
