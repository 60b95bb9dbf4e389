package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/posterngate/postern/pkg/conf"
)

// Debug serves /livez, /readyz and /metrics, and profiles where they were asked for, for machines that stand close: on a
// loopback address, or a socket whose folder says who may look.
type Debug struct {
	ln    net.Listener
	ready func(context.Context) error
	t     *T
}

// NewDebug binds addr: host:port, or unix:PATH. Ready says why the process cannot do
// its work now, or nil.
func NewDebug(addr string, t *T, ready func(context.Context) error) (*Debug, error) {
	if err := CheckDebug(addr); err != nil {
		return nil, err
	}
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
		vacate(path)
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		return nil, fmt.Errorf("debug: %w", err)
	}
	return &Debug{ln: ln, ready: ready, t: t}, nil
}

// vacate removes the socket that a process which was killed left at path, and which would keep
// its successor from starting. One that somebody serves stays, and so does what is none.
func vacate(path string) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(path) // or Listen says why not
	}
}

// CheckDebug says what is wrong with an address for NewDebug, or nil; none is good, too.
func CheckDebug(addr string) error {
	if addr == "" || strings.HasPrefix(addr, "unix:") {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("debug: %w", err)
	}
	if !conf.Loopback(host) {
		return fmt.Errorf("debug: %s is no loopback address; use one, or unix:PATH", host)
	}
	return nil
}

// readyTimeout bounds one answer to /readyz.
const readyTimeout = 5 * time.Second

// Run serves until ctx is done.
func (d *Debug) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		if err := d.ready(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", d.t.Metrics)
	if d.t.profiling {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(d.ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}
