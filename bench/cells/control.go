package cells

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/posterngate/postern/bench/account"
	"github.com/posterngate/postern/bench/child"
	"github.com/posterngate/postern/bench/house"
	"github.com/posterngate/postern/bench/parts"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/stats"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

func controlCells() []Cell {
	return []Cell{
		{ID: "C1", Title: "a changed policy on its way to nodes", run: func(ctx context.Context, e *Env, out *result.Cell) error { return e.fanOut(ctx, out, 100) }},
		{ID: "C1-1000", Title: "a changed policy, and a lock, on their way to 1,000 nodes",
			run: func(ctx context.Context, e *Env, out *result.Cell) error { return e.fanOut(ctx, out, 1000) }},
		{ID: "C2", Title: "a lock closes a session", run: lockCell},
		{ID: "C3", Title: "the API, 32 calls under way", run: callsCell},
	}
}

// changes is how often something is changed in a round; fewChanges where many nodes follow.
const (
	changes    = 20
	fewChanges = 5
)

// changeBytes is about the size of a change.
const changeBytes = 1000

// fanOut measures from the call that changes something to the last node that enforces it.
// Nodes are streams of their own in another process; each compiles what it is sent.
func (e *Env) fanOut(ctx context.Context, out *result.Cell, n int) error {
	c, err := e.simulated(ctx, n)
	if err != nil {
		return err
	}
	defer c.Stop()
	ada, err := e.House.API("ada")
	if err != nil {
		return err
	}
	number, times := 0, changes
	if n >= 1000 {
		times = fewChanges
	}
	change := func(ctx context.Context, o *typesv1.Object) (time.Duration, error) {
		began := time.Now()
		resp, err := ada.Policy.Apply(ctx, connect.NewRequest(&apiv1.ApplyRequest{Objects: []*typesv1.Object{o}}))
		if err != nil {
			return 0, err
		}
		v := resp.Msg.GetVersion()
		var a parts.Applied
		err = c.Ask(fmt.Sprintf("%s %d", v.GetEpoch(), v.GetRevision()), &a)
		return a.Last.Sub(began), err
	}
	several := func(make func(i int) (*typesv1.Object, error)) func(context.Context) (map[string]float64, error) {
		return func(ctx context.Context) (map[string]float64, error) {
			var took []float64
			for range times {
				number++
				o, err := make(number)
				if err != nil {
					return nil, err
				}
				d, err := change(ctx, o)
				if err != nil {
					return nil, err
				}
				took = append(took, float64(d)/float64(time.Millisecond))
			}
			slices.Sort(took)
			return map[string]float64{"p50_ms": stats.Median(took), "p99_ms": took[len(took)-1]}, nil
		}
	}
	workload := fmt.Sprintf("%d nodes", n)
	jobs := []job{
		{workload: workload, target: "policy", control: true, run: several(func(i int) (*typesv1.Object, error) {
			return parse(fmt.Sprintf("kind: Task\nmetadata: {name: bench-change}\nspec: {purpose: change %d, resources: {names: [bench]}, duration: 1h, permit: [{table: public.people, verbs: [select], columns: [%s]}]}",
				i, columnNames(changeBytes)))
		})},
		{workload: workload, target: "lock", control: true, run: several(func(i int) (*typesv1.Object, error) {
			return parse(fmt.Sprintf("kind: Lock\nmetadata: {name: bench-lock}\nspec: {subject: nobody-%d, reason: to be measured}", i))
		})},
	}
	out.Notes = append(out.Notes, fmt.Sprintf("from the API call to the last of %d nodes that enforces it; %d changes a round, so p99 is the worst of them; the nodes share the cores", n, times))
	if err := e.interleave(ctx, out, jobs); err != nil {
		return err
	}
	_, err = ada.Policy.Delete(ctx, connect.NewRequest(&apiv1.DeleteRequest{Kind: "lock", Name: "bench-lock"}))
	out.Proof = append(out.Proof, fmt.Sprintf("every one of %d nodes enforced every version that was asked for", n))
	return err
}

// columnNames are as many names of columns as have about so many bytes.
func columnNames(bytes int) string {
	var names []string
	for i := range bytes / len("column_000 ") {
		names = append(names, fmt.Sprintf("column_%03d", i))
	}
	return strings.Join(names, ", ")
}

func parse(text string) (*typesv1.Object, error) {
	all, err := object.ParseYAML(strings.NewReader("apiVersion: postern/v1\n" + text))
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// simulated enrols and starts nodes that have no listener.
func (e *Env) simulated(ctx context.Context, n int) (*child.Child, error) {
	ada, err := e.House.API("ada")
	if err != nil {
		return nil, err
	}
	s := parts.Nodes{Addr: e.House.NodesAddr(), Dir: filepath.Join(e.Dir, fmt.Sprintf("nodes-%d", n))}
	for i := range n {
		name := fmt.Sprintf("sim-%d-%d", n, i)
		resp, err := ada.Nodes.CreateJoinToken(ctx, connect.NewRequest(&apiv1.CreateJoinTokenRequest{Name: name, Region: "sim"}))
		if err != nil {
			return nil, err
		}
		s.Names, s.Tokens = append(s.Names, name), append(s.Tokens, resp.Msg.GetToken())
	}
	fmt.Fprintf(e.Log, "     %d nodes enrol\n", n)
	return parts.Start(filepath.Join(e.Dir, "nodes.log"), "nodes", s, &struct{}{})
}

// inFlight is how many calls are under way.
const inFlight = 32

// callsCell measures calls that are authenticated, authorized and answered from the
// control plane's view of the store. Reading is not audited.
func callsCell(ctx context.Context, e *Env, out *result.Cell) error {
	ada, err := e.House.API("ada")
	if err != nil {
		return err
	}
	c, err := parts.Start(filepath.Join(e.Dir, "calls.log"), "calls", parts.Calls{Addr: e.House.Addr, CA: e.House.CA, Token: ada.Token, InFlight: inFlight, Connections: 4}, &struct{}{})
	if err != nil {
		return err
	}
	defer c.Stop()
	resp, err := ada.Policy.Get(ctx, connect.NewRequest(&apiv1.GetRequest{Kind: "task", Name: house.TaskPass}))
	if err != nil || object.Name(resp.Msg) != house.TaskPass {
		return fmt.Errorf("proof of the API: %w", err)
	}
	out.Proof = append(out.Proof, "the call returns the task; without a token it is refused")
	if err := e.refusedWithoutToken(ctx); err != nil {
		return err
	}
	out.Notes = append(out.Notes, "Get of a task over gRPC and TLS, 4 connections; reads are authenticated and authorized, and not audited")
	return e.interleave(ctx, out, []job{{workload: "get", target: "api", control: true, run: func(context.Context) (map[string]float64, error) {
		control := account.Total(e.House.Control.PID())
		var called parts.Called
		if err := c.Ask(time.Duration(e.Seconds*float64(time.Second)).String(), &called); err != nil {
			return nil, err
		}
		used := account.Total(e.House.Control.PID()) - control
		ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
		return map[string]float64{
			"rps": float64(called.Calls) / called.Took.Seconds(), "p50_ms": ms(called.P50), "p99_ms": ms(called.P99),
			"control_us": float64(used) / float64(time.Microsecond) / float64(called.Calls),
		}, nil
	}}})
}

func (e *Env) refusedWithoutToken(ctx context.Context) error {
	err := e.House.Unauthenticated(ctx)
	if connect.CodeOf(err) != connect.CodeUnauthenticated {
		return fmt.Errorf("proof of the API: without a token: %w", err)
	}
	return nil
}
