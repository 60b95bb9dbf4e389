package parts

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/posterngate/postern/pkg/run"
)

// reverse is Go's own reverse proxy as it comes: how a proxy for HTTP is written first.
func reverse(_ context.Context, g *run.Group, settings json.RawMessage) (any, func(string) (any, error), error) {
	var s Backend
	if err := json.Unmarshal(settings, &s); err != nil {
		return nil, nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	srv := &http.Server{Handler: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s.Backend}), ReadHeaderTimeout: time.Minute}
	g.Go("reverse", func(context.Context) error { return srv.Serve(ln) })
	context.AfterFunc(g.Context(), func() { _ = srv.Close() })
	return Hello{ln.Addr().String()}, nil, nil
}
