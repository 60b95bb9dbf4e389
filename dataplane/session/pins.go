package session

import (
	"context"
	"time"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
)

// pinTimeout bounds one asking, so that a lost control plane is told in time.
const pinTimeout = 5 * time.Second

// PinServer has the control plane note what a server of MCP says of itself.
func (s *Session) PinServer(ctx context.Context, told *nodev1.PinServerRequest) (*nodev1.ServerPins, error) {
	ctx, cancel := context.WithTimeout(ctx, pinTimeout)
	defer cancel()
	told.Grant, told.Resource = string(s.grant.ID), string(s.terms.Resource)
	resp, err := s.k.cfg.Control.PinServer(ctx, told)
	if err != nil {
		return nil, err
	}
	return resp.GetPins(), nil
}
