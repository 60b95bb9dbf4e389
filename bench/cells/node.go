package cells

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
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

// get reads from a debug listener.
func get(ctx context.Context, addr, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
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
	body, err := get(ctx, e.House.Node.Debug, "/metrics")
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

// profileSeconds is how long a profile is taken.
const profileSeconds = 8

// profile runs the jobs of node and control plane once more, longer, and takes a CPU
// profile of each, where that was asked for. The file's name gets what it is a profile of
// before its end.
func (e *Env) profile(ctx context.Context, jobs []job) error {
	if e.Profile == "" {
		return nil
	}
	seconds := e.Seconds
	e.Seconds = profileSeconds + 1
	defer func() { e.Seconds = seconds }()
	for _, j := range jobs {
		if j.restarts {
			continue
		}
		t, err := e.Targets.Get(j.target)
		node := err == nil && t.Node
		if !node && !j.control {
			continue // a rival has no profile
		}
		file := e.profileName(j.workload, j.target)
		g := run.New(ctx)
		take := func(addr, file string) {
			g.Go("profile", func(ctx context.Context) error {
				return save(ctx, addr, "/debug/pprof/profile?seconds="+strconv.Itoa(profileSeconds), file)
			})
		}
		if node {
			take(e.House.Node.Debug, file)
			take(e.House.Debug, e.profileName(j.workload, j.target+"-control"))
		} else {
			take(e.House.Debug, file)
		}
		_, err = j.run(ctx)
		if err := errors.Join(err, g.Wait()); err != nil {
			return fmt.Errorf("profile of %s %s: %w", j.workload, j.target, err)
		}
		fmt.Fprintf(e.Log, "     profile: %s\n", file)
	}
	return nil
}

// profileName is the file for a profile of a job.
func (e *Env) profileName(workload, target string) string {
	end := filepath.Ext(e.Profile)
	return strings.TrimSuffix(e.Profile, end) + "-" + strings.ReplaceAll(workload+"-"+target, " ", "-") + end
}

func save(ctx context.Context, addr, path, file string) error {
	body, err := get(ctx, addr, path)
	if err != nil {
		return err
	}
	defer body.Close()
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, body)
	return errors.Join(err, out.Close())
}
