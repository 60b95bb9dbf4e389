package controlplane

import (
	"context"
	"errors"
	"log/slog"

	"github.com/posterngate/postern/controlplane/config"
)

// NewEpoch marks the store as one that was restored from a backup: whatever nodes have
// of the time that was lost is of another epoch, and they take everything anew. It is
// called once after a restore, while no replica runs.
func NewEpoch(ctx context.Context, cfg config.Config, log *slog.Logger) (_ string, err error) {
	s, err := openStore(ctx, cfg, log)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return s.NewEpoch(ctx)
}
