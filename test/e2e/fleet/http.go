package fleet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/run"
)

// serveHTTP serves until the test ends.
func serveHTTP(t testing.TB, ln net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	g := run.New(context.Background())
	g.Go("http", func(context.Context) error { _ = srv.Serve(ln); return nil })
	t.Cleanup(func() { _ = srv.Close(); _ = g.Wait() })
}

// HTTP gets a page of a debug listener.
func HTTP(addr, path string) (status int, body string, err error) {
	hc := &http.Client{Timeout: 6 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Get("http://" + addr + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	return resp.StatusCode, string(b), err
}

// Ready is what a debug listener says about readiness, as an error.
func Ready(addr string) error {
	status, body, err := HTTP(addr, "/readyz")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d %s", status, body)
	}
	return err
}

// awaitReady waits for a process to be ready, and gives up when it ends.
func awaitReady(t testing.TB, p *Process, debug string) time.Duration {
	t.Helper()
	began := time.Now()
	_, err := eventually(t.Context(), startWait, func() error { return Ready(debug) })
	select {
	case <-p.Ended():
		t.Fatalf("%s ended: %v", p.Name, p.err)
	default:
	}
	if err != nil {
		t.Fatalf("%s is not ready: %v", p.Name, err)
	}
	return time.Since(began)
}
