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
	have, err := b.ledger.all(ctx, leaseID(node, session, PurposeSession), leaseID(node, session, PurposeCatalog))
	for i := 0; err == nil && i < len(have); i++ {
		err = b.over(ctx, have[i])
	}
	if err != nil {
		return fmt.Errorf("end the lease of session %s: %w", session, err)
	}
	return nil
}

const overReason = "its session is over"

// over leaves the work to the sweeper, or to a release that is on its way: whoever still
// lends this very lease finds that it was moved, and undoes what it did.
func (b *Broker) over(ctx context.Context, one lease) error {
	for {
		if one.State.ended() || one.State == stateRevoking {
			return nil
		}
		b.replies.drop(one.id)
		var next time.Time
		if one.State.lending() {
			next = one.Updated.Add(issueTimeout)
		}
		var err error
		if one.spent() {
			err = b.finish(ctx, &one, overReason)
		} else {
			err = b.put(ctx, &one, overReason, next)
		}
		if conflict := (*store.ConflictError)(nil); !errors.As(err, &conflict) {
			return err
		}
		// It was just given back, or renewed.
		if one, err = b.ledger.get(ctx, one.id); errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
