package controlplane

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/config"
)

// NewEpoch marks the store as one that was restored from a backup: whatever nodes have
// of the time that was lost is of another epoch, and they take everything anew. The
// audit log goes on behind the entries that it has. It is called once after a restore, while no replica runs.
func NewEpoch(ctx context.Context, cfg config.Config, log *slog.Logger) (_ string, err error) {
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
	if err := audit.New(s, time.Now).WithMoved(moved).Resume(ctx); err != nil {
		return "", err
	}
	return s.NewEpoch(ctx)
}
