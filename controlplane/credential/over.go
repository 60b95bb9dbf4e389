package credential

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/postern"
)

// Over says that a session has ended. What it gave back has gone; whatever else it has
// borrowed, because its node died or a call was lost, the sweeper takes back at once
// instead of when it is not renewed. Saying it again does no harm.
func (b *Broker) Over(ctx context.Context, node postern.NodeName, session postern.SessionID) error {
	for _, purpose := range []string{PurposeSession, PurposeCatalog} {
		if err := b.over(ctx, leaseID(node, session, purpose)); err != nil {
			return fmt.Errorf("end the lease of session %s: %w", session, err)
		}
	}
	return nil
}

// over leaves the work to the sweeper, or to a release that is on its way: whoever still
// lends this very lease finds that it was moved, and undoes what it did.
func (b *Broker) over(ctx context.Context, id postern.LeaseID) error {
	for {
		one, err := b.ledger.get(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil || one.State.ended() || one.State == stateRevoking {
			return err
		}
		b.replies.drop(id)
		var next time.Time
		if one.State.lending() {
			next = one.Updated.Add(issueTimeout)
		}
		err = b.put(ctx, &one, "its session is over", next)
		if store.IsConflict(err) {
			continue // it was just given back, or renewed
		}
		return err
	}
}
