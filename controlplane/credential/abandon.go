package credential

import (
	"context"
	"errors"
	"fmt"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/postern"
)

// Abandon says that a session is over whose node died and so can release nothing: the
// sweeper takes back what the session borrowed, without waiting until it would have had
// to be renewed. Saying it again does no harm.
func (b *Broker) Abandon(ctx context.Context, node postern.NodeName, session postern.SessionID) error {
	for _, purpose := range []string{PurposeSession, PurposeCatalog} {
		if err := b.abandon(ctx, leaseID(node, session, purpose)); err != nil {
			return fmt.Errorf("abandon the lease of session %s: %w", session, err)
		}
	}
	return nil
}

func (b *Broker) abandon(ctx context.Context, id postern.LeaseID) error {
	unlock, err := b.locks.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	one, err := b.ledger.get(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil || one.State != stateActive { // else it ends by itself, or has ended
		return err
	}
	b.replies.drop(id)
	return b.ledger.move(ctx, &one, stateRevoking, func(l *lease) { l.Reason = "its node died" })
}
