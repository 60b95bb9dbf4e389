package cells

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/bench/house"
	"github.com/posterngate/postern/bench/parts"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/targets"
)

func blastCells() []Cell {
	return []Cell{{ID: "P8", Title: "rows from memory: how much one core of a gateway passes on", run: blastCell}}
}

// blastRows is how many rows of about 220 bytes one answer has.
const blastRows = 500_000

// blastCell puts gateways before a server that answers from memory. What counts is the
// gateway's CPU time, so that the figure is that of one core whatever else is busy.
func blastCell(ctx context.Context, e *Env, out *result.Cell) error {
	settings, err := e.blaster(ctx)
	if err != nil {
		return err
	}
	var hello parts.Hello
	c, err := parts.Start(e.Dir+"/blaster.log", "blaster", settings, &hello)
	if err != nil {
		return err
	}
	defer c.Stop()
	all, stop, err := e.blasted(hello.Addr)
	if err != nil {
		return err
	}
	defer stop()
	var jobs []job
	for _, t := range all {
		if err := e.prove(ctx, out, t); err != nil {
			return err
		}
		if t.Task == house.TaskMasked {
			if err := e.masksBlast(ctx, t); err != nil {
				return fmt.Errorf("proof of %s: %w", t.Name, err)
			}
		}
		j, stop, err := e.bulk(t, reading{"blast", selectAll})
		if err != nil {
			return err
		}
		defer stop()
		run := j.run
		j.run = func(ctx context.Context) (map[string]float64, error) {
			values, err := run(ctx)
			if ms, ok := values["gateway_ms_mb"]; ok && ms > 0 {
				// A megabyte in a millisecond is a gigabyte in a second. What counts is what
				// came in: a mask makes rows shorter.
				values["gb_s_core"] = values["rows_s"] * settings.RowBytes() / (values["mb_s"] * 1e6) / ms
			}
			return values, err
		}
		jobs = append(jobs, j)
	}
	return e.interleave(ctx, out, jobs)
}

// blaster describes the answer: the server's own columns and first row.
func (e *Env) blaster(ctx context.Context) (parts.Blaster, error) {
	b := parts.Blaster{Listen: e.House.BlastAddr, Backend: e.House.PG.Addr(), Table: "FROM big", Rows: blastRows}
	direct, err := e.Targets.Get(targets.Direct)
	if err != nil {
		return b, err
	}
	c, err := dial(ctx, direct.Where)
	if err != nil {
		return b, err
	}
	defer func() { _ = c.Close(ctx) }()
	rows, err := c.Query(ctx, selectAll+" LIMIT 1", pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return b, err
	}
	defer rows.Close()
	if !rows.Next() {
		return b, fmt.Errorf("the table is empty: %w", rows.Err())
	}
	for i, f := range rows.FieldDescriptions() {
		b.Columns = append(b.Columns, parts.Column{Name: f.Name, Table: f.TableOID, Attribute: f.TableAttributeNumber, Type: f.DataTypeOID, Size: f.DataTypeSize, Modifier: f.TypeModifier})
		b.Row = append(b.Row, string(rows.RawValues()[i]))
	}
	return b, nil
}

// blasted are the gateways before the blaster.
func (e *Env) blasted(addr string) (all []*targets.Target, stop func(), err error) {
	host, port := e.House.PG.Host, 0
	if _, err := fmt.Sscanf(addr, "127.0.0.1:%d", &port); err != nil {
		return nil, nil, fmt.Errorf("the blaster listens at %s: %w", addr, err)
	}
	direct := &targets.Target{Name: targets.Direct, Where: targets.At(host+":"+strconv.Itoa(port), house.Account, e.House.Password)}
	all = append(all, direct)
	var stops []func()
	stop = func() {
		for _, f := range stops {
			f()
		}
	}
	for _, name := range []string{targets.Splice, targets.Naive} {
		t, end, err := e.Targets.Before(name, addr)
		if err != nil {
			stop()
			return nil, nil, err
		}
		stops = append(stops, end)
		all = append(all, t)
	}
	for _, n := range []struct{ name, from string }{{"pass", targets.Postern}, {"const mask", targets.Masked}} {
		t, err := e.Targets.Get(n.from)
		if err != nil {
			stop()
			return nil, nil, err
		}
		c := *t
		c.Name, c.Where.User = n.name, t.Task+"."+house.BlastResource
		all = append(all, &c)
	}
	return all, stop, nil
}

// masksBlast shows that the rows from memory are masked on their way back.
func (e *Env) masksBlast(ctx context.Context, t *targets.Target) error {
	c, err := dial(ctx, t.Where)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	rows, err := c.Query(ctx, selectAll, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return err
	}
	n := 0
	for rows.Next() {
		if got := string(rows.RawValues()[2]); got != maskValue {
			return fmt.Errorf("row %d has %q", n, got)
		}
		n++
	}
	if rows.Err() != nil {
		return rows.Err()
	}
	e.sent[t.Task]++
	if n == 0 {
		return fmt.Errorf("no rows")
	}
	return nil
}
