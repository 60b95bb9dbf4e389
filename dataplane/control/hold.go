package control

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/run"
)

// holdRetry is how long after a lost connection a hold is asked for again; the control
// plane keeps it for a while longer.
const holdRetry = 100 * time.Millisecond

// OpenHold parks something for people, and calls on with how it stands, now and after
// every change, until it is settled; it returns the hold as it was told last. Ending
// ctx withdraws it. A connection that is lost meanwhile is made good.
func (c *Client) OpenHold(ctx context.Context, req *nodev1.OpenHoldRequest, on func(*nodev1.OpenHoldResponse)) (*typesv1.Hold, error) {
	var last *typesv1.Hold
	for failures := 0; ; failures++ {
		told := false
		h, err := c.openHold(ctx, req, func(r *nodev1.OpenHoldResponse) { told = true; on(r) })
		if h != nil {
			last = h
		}
		if told {
			failures = 0
		}
		lost := fault.CodeOf(err) == codes.Unavailable || fault.Is(err, fault.KindSuperseded)
		switch {
		case err == nil:
			return last, nil
		case ctx.Err() != nil || !lost || failures >= maxHoldFailures:
			return last, refuse(ctx, "ask for approval", err)
		case !run.Pause(ctx, holdRetry):
			return last, context.Cause(ctx)
		}
	}
}

// maxHoldFailures bounds how often in a row nothing is heard of a hold.
const maxHoldFailures = 3

func (c *Client) openHold(ctx context.Context, req *nodev1.OpenHoldRequest, on func(*nodev1.OpenHoldResponse)) (*typesv1.Hold, error) {
	l, done, err := c.use(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := nodev1.NewGrantServiceClient(l.main).OpenHold(ctx, req)
	if err != nil {
		return nil, err
	}
	var last *typesv1.Hold
	for {
		resp, err := conn.Recv()
		if errors.Is(err, io.EOF) {
			if waits(last) {
				return last, fault.New(codes.Unavailable, "the control plane stopped telling of the hold")
			}
			return last, nil
		}
		if err != nil {
			return last, err
		}
		last = resp.GetHold()
		on(resp)
	}
}

// waits reports whether nothing is known of a hold but that people may answer.
func waits(h *typesv1.Hold) bool {
	return h.GetState() == typesv1.HoldState_HOLD_STATE_PENDING || h.GetState() == typesv1.HoldState_HOLD_STATE_UNSPECIFIED
}
