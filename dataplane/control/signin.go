package control

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// SignIn lets somebody sign in elsewhere: show is called once, with where. It returns
// their grant once they have, as OpenGrant does. Ending ctx gives up.
func (c *Client) SignIn(ctx context.Context, req *nodev1.SignInRequest, show func(*nodev1.SignInPrompt)) (*postern.Grant, error) {
	resp, err := c.signIn(ctx, req, show)
	if err != nil {
		return nil, refuse(ctx, "let somebody sign in", err)
	}
	return c.opened(ctx, resp, req.GetTask())
}

func (c *Client) signIn(ctx context.Context, req *nodev1.SignInRequest, show func(*nodev1.SignInPrompt)) (*nodev1.OpenGrantResponse, error) {
	l, done, err := c.use(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := nodev1.NewGrantServiceClient(l.main).SignIn(ctx, req)
	if err != nil {
		return nil, err
	}
	for {
		resp, err := conn.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil, fault.New(codes.Unavailable, "the control plane stopped telling of the sign-in")
		case err != nil:
			return nil, err
		case resp.GetGrant() != nil:
			return resp.GetGrant(), nil
		case resp.GetPrompt() != nil:
			show(resp.GetPrompt())
		}
	}
}
