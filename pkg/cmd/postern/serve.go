package main

import (
	"context"
	"net"
	"net/http"

	"github.com/posterngate/postern/pkg/run"
)

// serve serves until the returned function is called, which waits for the end.
func serve(srv *http.Server, ln net.Listener) (stop func()) {
	g := run.New(context.Background())
	g.Go("http", func(context.Context) error {
		if err := srv.Serve(ln); err != http.ErrServerClosed {
			return err
		}
		return nil
	})
	return func() {
		_ = srv.Close()
		_ = g.Wait()
	}
}
