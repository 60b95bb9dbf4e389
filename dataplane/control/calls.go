package control

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	callWait = 30 * time.Second // for one call
	// policyWait is how long a grant waits for the policy that it was made under.
	policyWait    = 5 * time.Second
	maxGrantBytes = 256 << 10
	grantContext  = "postern/grant/v1"
)

// call makes one call on the link that is up, and once more where the first try met a
// link that had just been replaced. Again says that a call whose answer was lost may
// be made again.
func call[Resp any](ctx context.Context, c *Client, again bool, fn func(ctx context.Context, conn *grpc.ClientConn) (Resp, error)) (Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	var not *link
	for {
		l, done, err := c.use(ctx, not)
		if err != nil {
			var none Resp
			return none, err
		}
		resp, err := fn(ctx, l.main)
		done()
		// What has a kind was said by the control plane: the link is well.
		lost := again && fault.CodeOf(err) == codes.Unavailable && fault.From(err).Kind == ""
		if err == nil || not != nil || ctx.Err() != nil || !lost && !fault.Is(err, fault.KindSuperseded) {
			return resp, err
		}
		not = l
	}
}

// OpenGrant finds or makes the grant for a token and a task. The grant's signature has
// been verified, it is for this task and not over, and the policy that it was made
// under is enforced here. It is shared: nobody may change it.
func (c *Client) OpenGrant(ctx context.Context, req *nodev1.OpenGrantRequest) (*postern.Grant, error) {
	what, again := askedBy(req)
	at, began := c.moment(), time.Now()
	if again {
		if g := c.answers.find(what, at, began); g != nil {
			return g, nil
		}
	}
	resp, err := call(ctx, c, true, func(ctx context.Context, conn *grpc.ClientConn) (*nodev1.OpenGrantResponse, error) {
		return nodev1.NewGrantServiceClient(conn).OpenGrant(ctx, req)
	})
	if err != nil {
		return nil, refuse(ctx, "open the grant", err)
	}
	g, err := c.opened(ctx, resp, req.GetTask())
	if reuse := min(resp.GetReuse().AsDuration(), maxReuse); err == nil && again && reuse > 0 && at != (moment{}) && c.moment() == at {
		c.answers.keep(what, answer{g, began.Add(reuse), at})
	}
	return g, err
}

// opened is a grant that has just come.
func (c *Client) opened(ctx context.Context, resp *nodev1.OpenGrantResponse, task string) (*postern.Grant, error) {
	if key := resp.GetRecordingKey(); len(key) > 0 {
		c.recordingKey.Store(&key)
	}
	raw := resp.GetRawKey()
	c.rawKey.Store(&raw)
	g, err := c.verify(resp.GetGrant())
	if err == nil && string(g.Task) != task {
		err = fmt.Errorf("grant %s is for the task %q and not %q", g.ID, g.Task, task)
	}
	if err != nil {
		return nil, &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the control plane's grant could not be verified", Hint: "try again; if it stays, tell the operators when it happened", Cause: err}
	}
	g.Alternatives = noun.AlternativesOf(resp.GetAlternatives())
	waiting, cancel := context.WithTimeout(ctx, policyWait)
	defer cancel()
	if err := c.cfg.Snapshot.WaitFor(waiting, g.MinVersion); err != nil && !hole.Is("grant-version") {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &postern.Refusal{Code: postern.CodeUnavailable, Reason: "this node does not have the newest policy yet", Hint: "try again in a moment", Cause: err}
	}
	if reason, ended := c.cfg.Snapshot.Ended(g.ID); ended {
		return nil, &postern.Refusal{Code: postern.CodeKilled, Reason: reason}
	}
	return g, nil
}

// RecordingKey is the public key to which sessions that begin now are to be sealed; empty
// before the first grant. It comes with each grant, and so is never older than those.
func (c *Client) RecordingKey() []byte {
	if key := c.recordingKey.Load(); key != nil {
		return *key
	}
	return nil
}

// RawKey is the same for what masks hide. It may be empty, and become so.
func (c *Client) RawKey() []byte {
	if key := c.rawKey.Load(); key != nil {
		return *key
	}
	return nil
}

// verify reads a signed grant. It needs the node's snapshot and nothing else.
func (c *Client) verify(s *typesv1.SignedGrant) (*postern.Grant, error) {
	if len(s.GetGrant()) > maxGrantBytes {
		return nil, fmt.Errorf("a grant of %d bytes is longer than %d", len(s.GetGrant()), maxGrantBytes)
	}
	key, ok := c.cfg.Snapshot.GrantKey(s.GetKeyId())
	if !ok {
		return nil, fmt.Errorf("no key %q signs grants", s.GetKeyId())
	}
	if !ed25519.Verify(key, append([]byte(grantContext), s.GetGrant()...), s.GetSignature()) {
		return nil, errors.New("the signature of the grant is wrong")
	}
	return readGrant(s.GetGrant(), time.Now())
}

// readGrant reads the bytes of a grant that may be used now.
func readGrant(b []byte, now time.Time) (*postern.Grant, error) {
	g := &typesv1.Grant{}
	if err := proto.Unmarshal(b, g); err != nil {
		return nil, fmt.Errorf("read the grant: %w", err)
	}
	switch {
	case g.GetId() == "" || g.GetTask() == "" || g.GetSubject().GetName() == "":
		return nil, errors.New("the grant names no id, task or subject")
	case g.GetState() != typesv1.GrantState_GRANT_STATE_ACTIVE:
		return nil, fmt.Errorf("grant %s is not active", g.GetId())
	case g.GetEndTime() == nil || !g.GetEndTime().AsTime().After(now):
		return nil, fmt.Errorf("grant %s has ended", g.GetId())
	case g.GetMinVersion().GetEpoch() == "":
		return nil, fmt.Errorf("grant %s names no policy version", g.GetId())
	}
	out := &postern.Grant{
		ID: postern.GrantID(g.GetId()), Task: postern.TaskName(g.GetTask()), Binding: g.GetBinding(),
		Start: g.GetStartTime().AsTime(), End: g.GetEndTime().AsTime(), MinVersion: version(g.GetMinVersion()),
		Subject: noun.SubjectOf(g.GetSubject()), Approval: noun.ApprovalOf(g.GetApproval()), Reason: g.GetReason(),
	}
	return out, nil
}

// ConsumeHold uses a yes, at most once.
func (c *Client) ConsumeHold(ctx context.Context, req *nodev1.ConsumeHoldRequest) (*typesv1.Hold, error) {
	resp, err := call(ctx, c, false, func(ctx context.Context, conn *grpc.ClientConn) (*nodev1.ConsumeHoldResponse, error) {
		return nodev1.NewGrantServiceClient(conn).ConsumeHold(ctx, req)
	})
	if err != nil {
		return nil, refuse(ctx, "use the approval", err)
	}
	return resp.GetHold(), nil
}

// RouteCancel asks the nodes to cancel what the session with this key runs.
func (c *Client) RouteCancel(ctx context.Context, key []byte) error {
	_, err := call(ctx, c, true, func(ctx context.Context, conn *grpc.ClientConn) (*nodev1.RouteCancelResponse, error) {
		return nodev1.NewGrantServiceClient(conn).RouteCancel(ctx, &nodev1.RouteCancelRequest{Key: key})
	})
	if err != nil {
		return refuse(ctx, "pass the cancellation on", err)
	}
	return nil
}

// DrawBudget says what this process wants to hold of a grant's limits; the same once more
// does no harm.
func (c *Client) DrawBudget(ctx context.Context, req *nodev1.DrawBudgetRequest) (*nodev1.DrawBudgetResponse, error) {
	resp, err := call(ctx, c, true, func(ctx context.Context, conn *grpc.ClientConn) (*nodev1.DrawBudgetResponse, error) {
		return nodev1.NewGrantServiceClient(conn).DrawBudget(ctx, req)
	})
	if err != nil {
		return nil, refuse(ctx, "count what the grant uses", err)
	}
	return resp, nil
}

// Vouch asks for a token that tells a resource who asks under a grant.
func (c *Client) Vouch(ctx context.Context, req *nodev1.VouchRequest) (*nodev1.VouchResponse, error) {
	resp, err := call(ctx, c, true, func(ctx context.Context, conn *grpc.ClientConn) (*nodev1.VouchResponse, error) {
		return nodev1.NewGrantServiceClient(conn).Vouch(ctx, req)
	})
	if err != nil {
		return nil, refuse(ctx, "say who asks", err)
	}
	return resp, nil
}

// PinServer notes what a server of MCP says of itself; the same once more does no harm.
func (c *Client) PinServer(ctx context.Context, req *nodev1.PinServerRequest) (*nodev1.PinServerResponse, error) {
	resp, err := call(ctx, c, true, func(ctx context.Context, conn *grpc.ClientConn) (*nodev1.PinServerResponse, error) {
		return nodev1.NewGrantServiceClient(conn).PinServer(ctx, req)
	})
	if err != nil {
		return nil, refuse(ctx, "remember what the server says of itself", err)
	}
	return resp, nil
}

// BeginBrowser says where a browser signs in.
func (c *Client) BeginBrowser(ctx context.Context, req *nodev1.BeginBrowserRequest) (*nodev1.BeginBrowserResponse, error) {
	resp, err := call(ctx, c, true, func(ctx context.Context, conn *grpc.ClientConn) (*nodev1.BeginBrowserResponse, error) {
		return nodev1.NewGrantServiceClient(conn).BeginBrowser(ctx, req)
	})
	if err != nil {
		return nil, refuse(ctx, "let a browser sign in", err)
	}
	return resp, nil
}

// FinishBrowser trades a browser's code for its session; a code works once.
func (c *Client) FinishBrowser(ctx context.Context, req *nodev1.FinishBrowserRequest) (*nodev1.FinishBrowserResponse, error) {
	resp, err := call(ctx, c, false, func(ctx context.Context, conn *grpc.ClientConn) (*nodev1.FinishBrowserResponse, error) {
		return nodev1.NewGrantServiceClient(conn).FinishBrowser(ctx, req)
	})
	if err != nil {
		return nil, refuse(ctx, "let the browser in", err)
	}
	return resp, nil
}

// EndBrowser ends a browser's session; once more does no harm.
func (c *Client) EndBrowser(ctx context.Context, req *nodev1.EndBrowserRequest) error {
	_, err := call(ctx, c, true, func(ctx context.Context, conn *grpc.ClientConn) (*nodev1.EndBrowserResponse, error) {
		return nodev1.NewGrantServiceClient(conn).EndBrowser(ctx, req)
	})
	if err != nil {
		return refuse(ctx, "sign the browser out", err)
	}
	return nil
}

// Lease borrows a credential, sealed to the node's HPKE key. Asking again for one
// session gives the same lease.
func (c *Client) Lease(ctx context.Context, req *nodev1.LeaseRequest) (*nodev1.LeaseResponse, error) {
	resp, err := call(ctx, c, true, func(ctx context.Context, conn *grpc.ClientConn) (*nodev1.LeaseResponse, error) {
		req = proto.CloneOf(req)
		req.Process = c.cfg.Process
		return nodev1.NewCredentialServiceClient(conn).Lease(ctx, req)
	})
	if err != nil {
		return nil, refuse(ctx, "lend a credential", err)
	}
	return resp, nil
}

// RenewLease keeps a lease alive.
func (c *Client) RenewLease(ctx context.Context, req *nodev1.RenewLeaseRequest) (*nodev1.RenewLeaseResponse, error) {
	resp, err := call(ctx, c, true, func(ctx context.Context, conn *grpc.ClientConn) (*nodev1.RenewLeaseResponse, error) {
		return nodev1.NewCredentialServiceClient(conn).RenewLease(ctx, req)
	})
	if err != nil {
		return nil, refuse(ctx, "renew the credential", err)
	}
	return resp, nil
}

// Release gives a lease back; once more does no harm.
func (c *Client) Release(ctx context.Context, req *nodev1.ReleaseRequest) (*nodev1.ReleaseResponse, error) {
	resp, err := call(ctx, c, true, func(ctx context.Context, conn *grpc.ClientConn) (*nodev1.ReleaseResponse, error) {
		return nodev1.NewCredentialServiceClient(conn).Release(ctx, req)
	})
	if err != nil {
		return nil, refuse(ctx, "take the credential back", err)
	}
	return resp, nil
}
