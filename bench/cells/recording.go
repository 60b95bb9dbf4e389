package cells

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/posterngate/postern/bench/house"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/targets"
	"github.com/posterngate/postern/pkg/record"
)

func recordCells() []Cell {
	return []Cell{
		{ID: "P15", Title: "what recording costs: statements, and every row", Quick: true, run: recordingCell},
	}
}

// recordingCell compares the node with its own engine and gate that record nothing, and
// a task that keeps every row with one that keeps none.
func recordingCell(ctx context.Context, e *Env, out *result.Cell) error {
	if err := e.onAndOff(ctx, out); err != nil {
		return err
	}
	return e.captured(ctx, out)
}

func (e *Env) onAndOff(ctx context.Context, out *result.Cell) error {
	all, err := e.targets(targets.Direct, targets.Judge, targets.Postern, targets.Rows)
	if err != nil {
		return err
	}
	var jobs []job
	for _, t := range all {
		if err := e.prove(ctx, out, t); err != nil {
			return err
		}
		if t.Name != targets.Rows {
			j, err := e.pgbench(out, t, shape{name: "prepared c=8", script: selectOnly, mode: "prepared", clients: 8})
			if err != nil {
				return err
			}
			jobs = append(jobs, j)
		}
		if t.Node {
			j, stop, err := e.bulk(t, reading{"rows", selectAll})
			if err != nil {
				return err
			}
			defer stop()
			jobs = append(jobs, j)
		}
	}
	return e.interleave(ctx, out, jobs)
}

// captured works out what keeping a megabyte costs, and shows that every row was kept.
func (e *Env) captured(ctx context.Context, out *result.Cell) error {
	on, off := out.Metric("rows", targets.Rows, "gateway_ms_mb"), out.Metric("rows", targets.Postern, "gateway_ms_mb")
	sessions, err := e.sealedOf(house.TaskRows)
	if err != nil {
		return err
	}
	var kept, returned, bytes int64
	for _, s := range sessions {
		k, r, b, err := e.kept(ctx, s.ID)
		if err != nil {
			return fmt.Errorf("read recording %s: %w", s.ID, err)
		}
		kept, returned, bytes = kept+k, returned+r, bytes+b
	}
	if returned == 0 {
		return errors.New("no row was returned under the task that keeps rows")
	}
	for round, ms := range on {
		out.Samples = append(out.Samples, result.Sample{Round: round, Workload: "rows", Target: "capture", Values: map[string]float64{
			"cpu_ms_mb": ms - off[round], "lost": float64(returned - kept),
		}})
	}
	out.Proof = append(out.Proof, fmt.Sprintf("%s: %d rows were returned, and %d are on record, %.0f MB", house.TaskRows, returned, kept, float64(bytes)/1e6))
	return nil
}

// kept counts the rows of a recording, and those that the statements say they returned.
func (e *Env) kept(ctx context.Context, id string) (kept, returned, bytes int64, err error) {
	terr := e.House.Try(func(t testing.TB) {
		for ev, eerr := range e.House.Recorder(t).Events(ctx, id) {
			if eerr != nil {
				err = eerr
				return
			}
			switch ev.Kind {
			case record.KindRows:
				kept += ev.Rows
				bytes += int64(len(ev.Data))
			case record.KindFinished:
				returned += ev.Rows
			default:
			}
		}
	})
	return kept, returned, bytes, errors.Join(err, terr)
}
