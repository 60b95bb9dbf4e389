package cells

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/bench/account"
	"github.com/posterngate/postern/bench/parts"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/targets"
)

// The tasks of the cells of HTTP; the second masks a field.
const (
	taskHTTP       = "bench-http"
	taskHTTPMasked = "bench-http-masked"
	resourceHTTP   = "bench-web"
)

// What is asked for: files of nginx, and one that no task permits.
const (
	pathSmall     = "/small.txt"
	pathLarge     = "/large.txt"
	pathJSON      = "/order.json"
	pathForbidden = "/forbidden.txt"
)

const httpWorld = `
apiVersion: postern/v1
kind: Resource
metadata: {name: bench-web}
spec: {protocol: http, endpoint: {host: 127.0.0.1, port: %d, tls: {mode: disable}, http: {auth: {scheme: none}}}}
---
apiVersion: postern/v1
kind: Task
metadata: {name: bench-http}
spec:
  purpose: to be measured
  resources: {names: [bench-web]}
  permit: [{methods: [GET], path: /small.txt}, {methods: [GET], path: /large.txt}, {methods: [GET], path: /order.json}]
  duration: 8h
---
apiVersion: postern/v1
kind: Task
metadata: {name: bench-http-masked}
spec:
  purpose: to be measured
  resources: {names: [bench-web]}
  permit: [{methods: [GET], path: /order.json, mask: {/customer/email: bench-email}}]
  duration: 8h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: bench-http}
spec: {subjects: [{group: analysts}, {group: leads}], tasks: [bench-http, bench-http-masked]}
`

// file is what a path holds.
func file(path string) []byte {
	switch path {
	case pathLarge:
		return bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	case pathJSON:
		return fmt.Appendf(nil, `{"id":7,"status":"open","customer":{"name":"Ann","email":"ann@example.com"},"lines":[%s{"sku":"end","n":1}]}`,
			strings.Repeat(`{"sku":"widget-12","n":3,"price":"12.50"},`, 20))
	}
	return bytes.Repeat([]byte("0123456789abcdef"), 64)
}

// An asked is one workload of HTTP.
type asked struct {
	name, path     string
	conns, streams int
	targets        []string
}

func httpCells() []Cell {
	four := []string{targets.Direct, targets.HAProxy, nginxProxy, targets.Postern}
	return []Cell{
		{ID: "H1", Title: "HTTP, 1 KB, 32 connections", run: httpCell(asked{"1 KB c=32", pathSmall, 32, 0, append(four, reverseProxy)})},
		{ID: "H1-more", Title: "HTTP, 1 MB, HTTP/2, and JSON of which a field is masked", Full: true, run: httpCell(
			asked{"1 MB c=8", pathLarge, 8, 0, four},
			asked{"h2 1 KB c=8x4", pathSmall, 8, 4, four[1:]},
			asked{"JSON c=32", pathJSON, 32, 0, []string{targets.Direct, targets.Postern, targets.Masked}},
		)},
	}
}

func httpCell(all ...asked) func(context.Context, *Env, *result.Cell) error {
	return func(ctx context.Context, e *Env, out *result.Cell) error {
		w, err := e.webs(ctx)
		if err != nil {
			return err
		}
		defer w.stop()
		var jobs []job
		for _, a := range all {
			for _, name := range a.targets {
				site := w.sites[name]
				if site == nil {
					continue
				}
				if err := e.proveHTTP(ctx, site, a, out); err != nil {
					return fmt.Errorf("proof of %s: %w", name, err)
				}
				j, stop, err := e.asking(site, a)
				if err != nil {
					return err
				}
				defer stop()
				jobs = append(jobs, j)
			}
		}
		return e.interleave(ctx, out, jobs)
	}
}

// asking makes the job of one client.
func (e *Env) asking(s *site, a asked) (job, func(), error) {
	settings := parts.Web{Addr: s.plain, Host: s.host, Path: a.path, Token: s.token, Conns: a.conns, Streams: a.streams, CA: s.ca, Server: s.server}
	if a.streams > 0 {
		settings.Addr = s.secure
	}
	c, err := parts.Start(filepath.Join(e.Dir, "web.log"), "web", settings, &struct{}{})
	if err != nil {
		return job{}, nil, err
	}
	ask := func(d string) (parts.Served, error) {
		var got parts.Served
		err := c.Ask(d, &got)
		e.sent[s.task] += got.Requests
		return got, err
	}
	return job{
		workload: a.name, target: s.name,
		warm: func(context.Context) error { _, err := ask("100ms"); return err },
		run: func(ctx context.Context) (map[string]float64, error) {
			if err := e.settle(ctx); err != nil {
				return nil, err
			}
			control := e.House.Control.PID()
			gateway0, control0, client0 := account.Total(s.roots...), account.Total(control), account.CPU(c.PID())
			got, err := ask(time.Duration(e.Seconds * float64(time.Second)).String())
			if err != nil {
				return nil, err
			}
			us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
			each := func(d time.Duration) float64 { return us(d) / float64(got.Requests) }
			values := map[string]float64{
				"rps": float64(got.Requests) / got.Took.Seconds(), "p50_us": us(got.P50), "p99_us": us(got.P99), "client_us": each(account.CPU(c.PID()) - client0),
				"mb_s": float64(got.Bytes) / 1e6 / got.Took.Seconds(),
			}
			if len(s.roots) > 0 {
				values["gateway_us"] = each(account.Total(s.roots...) - gateway0)
				values["rss_mb"] = float64(account.RSS(s.roots...)) / (1 << 20)
			}
			if s.task != "" {
				values["control_us"] = each(account.Total(control) - control0)
			}
			return values, nil
		},
	}, c.Stop, nil
}

// proveHTTP shows that a site answers with what the file holds, but for a mask, and that
// the node refuses what the task does not permit. It asks as somebody else than the load
// does, so that its session can be told from theirs.
func (e *Env) proveHTTP(ctx context.Context, s *site, a asked, out *result.Cell) error {
	get := func(path string) (status int, body []byte, err error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.plain+path, nil)
		if err != nil {
			return 0, nil, err
		}
		req.Host = s.host
		if s.task != "" {
			req.Header.Set("Authorization", "Bearer "+s.other)
		}
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return 0, nil, err
		}
		defer resp.Body.Close()
		body, err = io.ReadAll(resp.Body)
		return resp.StatusCode, body, err
	}
	want := file(a.path)
	if s.task == taskHTTPMasked {
		want = bytes.Replace(want, []byte("ann@example.com"), []byte(maskValue), 1)
	}
	status, body, err := get(a.path)
	if err != nil || status != http.StatusOK || !bytes.Equal(body, want) {
		return fmt.Errorf("GET %s: %d and %d bytes, not the %d of the file: %w", a.path, status, len(body), len(want), err)
	}
	said := fmt.Sprintf("%s: %s is right", s.name, a.path)
	if s.task != "" {
		e.sent[s.task]++
	}
	if s.task != "" && !s.proven {
		if status, body, err = get(pathForbidden); err != nil || status != http.StatusForbidden {
			return fmt.Errorf("GET %s: %d %.200q, and no refusal: %w", pathForbidden, status, body, err)
		}
		s.proven = true
		said += ", what is not permitted is refused"
	}
	if !slices.Contains(out.Proof, said) {
		out.Proof = append(out.Proof, said)
	}
	return nil
}

// applyHTTP publishes the tasks, and finds tokens of two people.
func (e *Env) applyHTTP(port int) (load, other string, err error) {
	err = e.House.Try(func(t testing.TB) {
		e.House.Apply(t, fmt.Sprintf(httpWorld, port))
		load, other = e.House.Token, e.House.Fleet.Token(t, "bob")
	})
	return load, other, err
}

// put writes the files that are asked for.
func put(dir string) error {
	var err error
	for _, path := range []string{pathSmall, pathLarge, pathJSON, pathForbidden} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, path), file(path), 0o644))
	}
	return err
}
