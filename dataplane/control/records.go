package control

import (
	"context"
	"errors"

	"github.com/posterngate/postern/dataplane/spool"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/run"
)

var _ spool.Uplink = (*Client)(nil)

// errRetired ends a stream of records whose link was replaced; the next one takes the new.
var errRetired = errors.New("the connection to the control plane was replaced")

// Stream implements spool.Uplink, on the connection that is for records alone. How much
// is on its way at once is bounded by the control plane, which stops reading.
func (c *Client) Stream(ctx context.Context, next func(ctx context.Context) (spool.Chunk, error), acked func(session string, nextIndex uint32), rejected func(session string, index uint32, why string)) error {
	l, done, err := c.use(ctx, nil)
	if err != nil {
		return err
	}
	defer done()
	g := run.New(ctx)
	conn, err := nodev1.NewRecordServiceClient(l.records).Ship(g.Context())
	if err != nil {
		g.Stop()
		return errors.Join(err, g.Wait())
	}
	g.Go("send", func(ctx context.Context) error {
		for {
			chunk, err := next(ctx)
			if err != nil {
				return err
			}
			if conn.Send(&nodev1.ShipRequest{Session: chunk.Session, Index: chunk.Index, Chunk: chunk.Data, Seal: chunk.Seal}) != nil {
				return nil // receive has the reason
			}
		}
	})
	g.Go("receive", func(context.Context) error {
		for {
			r, err := conn.Recv()
			switch {
			case err != nil:
				return err
			case r.GetReject() != "":
				rejected(r.GetSession(), r.GetRejectedIndex(), r.GetReject())
			default:
				acked(r.GetSession(), r.GetNextIndex())
			}
		}
	})
	g.Go("watch", func(ctx context.Context) error {
		select {
		case <-l.retired:
			return errRetired
		case <-ctx.Done():
			return nil
		}
	})
	return g.Wait()
}
