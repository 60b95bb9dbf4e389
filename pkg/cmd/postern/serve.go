package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/posterngate/postern/pkg/run"
)

// serveGrace is how long an answer may take on its way once a server is to stop.
const serveGrace = 500 * time.Millisecond

// serve serves until the returned function is called, which lets answers reach who
// waits for them and returns once all has ended.
func serve(srv *http.Server, ln net.Listener) (stop func()) {
	g := run.New(context.Background())
	g.Go("http", func(context.Context) error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), serveGrace)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close()
		}
		_ = g.Wait()
	}
}
