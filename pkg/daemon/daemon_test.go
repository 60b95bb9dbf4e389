package daemon

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posterngate/postern/pkg/telemetry"
)

// TestStop: a program that does not stop in time fails, and says where it hangs.
func TestStop(t *testing.T) {
	for name, c := range map[string]struct {
		takes time.Duration // to stop; 0 is for ever
		code  int
		says  []string
	}{
		"in time": {29 * time.Second, 0, nil},
		"hangs":   {0, 1, []string{"did not stop within 30s", "daemon.hangs"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := make(chan time.Time)
				p := Program[struct{}]{
					Name: "postern-test", Load: func(string) (struct{}, error) { return struct{}{}, nil },
					Telemetry: func(struct{}) (telemetry.Config, string) { return telemetry.Config{}, "" },
					Serve: func(ctx context.Context, _ struct{}, _ *telemetry.T) error {
						<-ctx.Done()
						if c.takes > 0 {
							hangs(time.After(c.takes))
						} else {
							hangs(end)
						}
						return nil
					},
					Stop: func(struct{}) time.Duration { return 30 * time.Second },
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				var stdout, stderr strings.Builder
				if code := p.Run(ctx, nil, &stdout, &stderr); code != c.code {
					t.Errorf("it ends with %d: %s", code, &stderr)
				}
				close(end)
				for _, want := range c.says {
					if !strings.Contains(stderr.String(), want) {
						t.Errorf("it does not say %q: %s", want, &stderr)
					}
				}
			})
		})
	}
}

// TestLinesOfLibraries: what a library logs by Go's own logger is a line like ours.
func TestLinesOfLibraries(t *testing.T) {
	was := slog.Default()
	t.Cleanup(func() { slog.SetDefault(was) })
	p := Program[struct{}]{
		Name: "postern-test", Load: func(string) (struct{}, error) { return struct{}{}, nil },
		Telemetry: func(struct{}) (telemetry.Config, string) { return telemetry.Config{}, "" },
		Serve: func(context.Context, struct{}, *telemetry.T) error {
			slog.Warn("of a library")
			return nil
		},
	}
	var stdout, stderr strings.Builder
	if code := p.Run(t.Context(), nil, &stdout, &stderr); code != 0 || !strings.Contains(stderr.String(), "of a library") || !strings.Contains(stderr.String(), "postern-test") {
		t.Errorf("%d: %s", code, &stderr)
	}
}

//go:noinline
func hangs(until <-chan time.Time) { <-until }
