package telemetry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.opentelemetry.io/otel"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/secret"
)

func TestLogsShowOnlyPlainValues(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		l, err := NewLogger(Config{LogFormat: format}, &out)
		if err != nil {
			t.Fatal(err)
		}
		l.Info("hello",
			"session", postern.SessionID("s-1"), "version", postern.Version{Epoch: "e", Revision: 7}, "error", errors.New("oh"),
			"row", struct{ Email string }{"alice@example.com"}, "claims", map[string]string{"email": "alice@example.com"},
			"raw", []byte("alice@example.com"), "message", wrapperspb.String("alice@example.com"), "token", secret.FromString("hunter2"),
			slog.Group("in", "row", struct{ Email string }{"alice@example.com"}))
		got := out.String()
		for _, want := range []string{"s-1", "e/7", "oh", "REDACTED"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is missing in %s", format, want, got)
			}
		}
		for _, leak := range []string{"alice@example.com", "hunter2"} {
			if strings.Contains(got, leak) {
				t.Errorf("%s: %q stands in %s", format, leak, got)
			}
		}
	}
}

func TestBadConfigNamesTheKey(t *testing.T) {
	for _, cfg := range []Config{{LogLevel: "loud"}, {LogFormat: "xml"}} {
		if _, err := NewLogger(cfg, nil); err == nil || !strings.HasPrefix(err.Error(), "telemetry.log") {
			t.Errorf("NewLogger(%+v) = %v, want an error that names the key", cfg, err)
		}
	}
	for key, cfg := range map[string]Config{"logLevel": {LogLevel: "loud"}, "sampleRatio": {SampleRatio: 7}, "otlp": {OTLP: "collector"}, "": {OTLP: "https://collector:4317", SampleRatio: .5}} {
		if err := cfg.Check(); (err == nil) != (key == "") || err != nil && !strings.HasPrefix(err.Error(), "telemetry."+key) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestMetricsAreServed(t *testing.T) {
	tel, err := Setup(t.Context(), Config{}, "postern-test", "one", &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tel.Shutdown(t.Context()) }()
	c, err := otel.Meter("test").Int64Counter("postern.decisions")
	if err != nil {
		t.Fatal(err)
	}
	c.Add(t.Context(), 3)
	rec := httptest.NewRecorder()
	tel.Metrics.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if !strings.Contains(rec.Body.String(), "postern_decisions_total") {
		t.Errorf("no counter in:\n%s", rec.Body)
	}
}

func TestProfilesAreServedWhenAskedForAlone(t *testing.T) {
	for _, profiling := range []bool{false, true} {
		tel, err := Setup(t.Context(), Config{Profiling: profiling}, "postern-test", "one", &bytes.Buffer{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tel.Shutdown(t.Context()) }()
		d, err := NewDebug("127.0.0.1:0", tel, func(context.Context) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		g := run.New(t.Context())
		g.Go("debug", d.Run)
		resp, err := http.Get("http://" + d.ln.Addr().String() + "/debug/pprof/goroutine?debug=1")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.StatusCode == http.StatusOK; got != profiling {
			t.Errorf("profiling %t: %s", profiling, resp.Status)
		}
		g.Stop()
		_ = g.Wait()
	}
}

// TestDebugSocketOfAKilledProcess: what a process leaves that was killed keeps nobody from starting,
// and what somebody serves, or is no socket, is not taken away.
func TestDebugSocketOfAKilledProcess(t *testing.T) {
	dir := t.TempDir()
	left, served, file := filepath.Join(dir, "left"), filepath.Join(dir, "served"), filepath.Join(dir, "file")
	listen := func(path string) *net.UnixListener {
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		return ln
	}
	killed := listen(left)
	killed.SetUnlinkOnClose(false)
	_ = killed.Close()
	listen(served)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, good := range map[string]bool{left: true, served: false, file: false} {
		d, err := NewDebug("unix:"+path, &T{}, func(context.Context) error { return nil })
		if (err == nil) != good {
			t.Errorf("%s: %v", path, err)
		}
		if d != nil {
			_ = d.ln.Close()
		} else if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
}
