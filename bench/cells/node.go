package cells

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/posterngate/postern/bench/targets"
	"github.com/posterngate/postern/pkg/run"
)

// metrics are what the node says of itself.
type metrics struct {
	mallocs  float64
	pauses   float64 // seconds, of the collector, in all
	unstored float64 // bytes of records that the control plane has not stored
}

func (m metrics) minus(o metrics) metrics {
	return metrics{mallocs: m.mallocs - o.mallocs, pauses: m.pauses - o.pauses}
}

// usage is what the node says of itself, where the target is the node.
func (e *Env) usage(ctx context.Context, t *targets.Target) (metrics, error) {
	if !t.Node {
		return metrics{}, nil
	}
	return e.scrape(ctx)
}

func (e *Env) get(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.House.Node.Debug+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", path, resp.Status)
	}
	return resp.Body, nil
}

func (e *Env) scrape(ctx context.Context) (metrics, error) {
	body, err := e.get(ctx, "/metrics")
	if err != nil {
		return metrics{}, err
	}
	defer body.Close()
	var m metrics
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		name, _, _ = strings.Cut(name, "{")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		switch {
		case name == "go_memstats_mallocs_total":
			m.mallocs = v
		case name == "go_gc_duration_seconds_sum":
			m.pauses = v
		case strings.HasPrefix(name, "postern_spool_depth"):
			m.unstored = v
		}
	}
	return m, lines.Err()
}

// settled is how many bytes of records may wait when a round begins.
const settled = 1 << 20

// settle waits until the node has handed its records on, so that a round does not pay
// for the one before.
func (e *Env) settle(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(time.Minute); ; {
		m, err := e.scrape(ctx)
		if err != nil {
			return err
		}
		if m.unstored < settled {
			return nil
		}
		select {
		case <-late:
			return fmt.Errorf("%.0f MB of records are not stored after a minute", m.unstored/1e6)
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// profile takes a CPU profile of the node while the rounds run, where that was asked for.
func (e *Env) profile(ctx context.Context) (stop func(), err error) {
	if e.Profile == "" {
		return func() {}, nil
	}
	out, err := os.Create(e.Profile)
	if err != nil {
		return nil, err
	}
	// The node stops at the end of the time or when the request is given up; a profile is
	// whole only after the former, so its time is what the rounds take at least.
	seconds := max(1, int(float64(e.Rounds)*e.Seconds))
	g := run.New(ctx)
	g.Go("profile", func(ctx context.Context) error {
		body, err := e.get(ctx, "/debug/pprof/profile?seconds="+strconv.Itoa(seconds))
		if err != nil {
			return err
		}
		defer body.Close()
		_, err = io.Copy(out, body)
		return err
	})
	return func() {
		if err := errors.Join(g.Wait(), out.Close()); err != nil {
			fmt.Fprintln(e.Log, "no profile:", err)
		}
	}, nil
}
