package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// receipt asks where a version is enforced; nil for who may not see nodes.
func (a *app) receipt(ctx context.Context, api *api, v *typesv1.Version) (*apiv1.Receipt, error) {
	resp, err := api.locks.GetReceipt(ctx, connect.NewRequest(&apiv1.GetReceiptRequest{Version: v}))
	if connect.CodeOf(err) == connect.CodePermissionDenied {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("it is done, but where it is enforced could not be asked: %w", err)
	}
	return resp.Msg.GetReceipt(), nil
}

// showReceipt says where a change is enforced and, where it is not yet, by when.
func showReceipt(w io.Writer, r *apiv1.Receipt) {
	if r == nil {
		return
	}
	now := r.GetTime().AsTime()
	for _, n := range r.GetNodes() {
		name := n.GetNode()
		if n.GetRegion() != "" {
			name += " (" + n.GetRegion() + ")"
		}
		worst := n.GetWorstCaseTime().AsTime()
		switch {
		case n.GetEnforcedTime() != nil:
			fmt.Fprintf(w, "enforced at %s at %s\n", name, clock(n.GetEnforcedTime().AsTime()))
		case worst.After(now):
			fmt.Fprintf(w, "pending at %s, which is %s: its sessions end by %s at the latest\n", name, reach(n), clock(worst))
		default:
			fmt.Fprintf(w, "nothing runs at %s, which is %s, since %s at the latest\n", name, reach(n), clock(worst))
		}
	}
	switch {
	case len(r.GetNodes()) == 0:
		fmt.Fprintln(w, "there are no nodes")
	case r.GetWorstCaseTime() != nil:
		fmt.Fprintf(w, "worst case: everywhere by %s\n", clock(r.GetWorstCaseTime().AsTime()))
	default:
		fmt.Fprintln(w, "enforced everywhere")
	}
}

func reach(n *apiv1.NodeReceipt) string {
	switch {
	case n.GetConnected():
		return "connected and has not confirmed"
	case n.GetLastSeen() == nil:
		return "not connected"
	}
	return "cut off since " + clock(n.GetLastSeen().AsTime())
}

// clock is a time to the millisecond, for what is a matter of less than a second.
func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000 MST") }
