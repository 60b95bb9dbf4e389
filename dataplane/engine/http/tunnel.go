package http

import (
	"context"
	"errors"
	"net/http"

	"github.com/posterngate/postern/dataplane/engine"
)

// tunnel makes the connection a WebSocket.
func (x *exchange) tunnel(context.Context, *http.Request) (engine.Outcome, error) {
	return engine.Outcome{}, errors.New("not yet")
}
