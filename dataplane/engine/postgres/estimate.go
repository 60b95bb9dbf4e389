package postgres

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/sql/postgres/lex"
	"github.com/posterngate/postern/pkg/wire"
)

// maxPlan bounds what the target may say of a plan, in bytes.
const maxPlan = 4 << 20

// estimate asks the target's planner how many rows a single statement would return or
// change, over a connection of its own: the session's may be in the middle of something.
// What the session has not committed does not count. Parameters are unknown then, so the
// plan is the generic one.
func (c *conn) estimate(ctx context.Context, text string) (int64, error) {
	l, err := c.e.login(ctx, c.s, engine.PurposeSession, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = l.conn.Close() })()
	r := &reader{conn: l.conn, in: bufio.NewReaderSize(l.conn, wire.Small), hash: io.Discard, left: maxPlan}
	explain := text
	if n := parameters(text); n > 0 {
		// The values of a generic plan do not matter.
		for _, s := range []string{"SET plan_cache_mode = force_generic_plan", "PREPARE " + poisonName + " AS " + text} {
			if err := r.single(s, func(*row) {}); err != nil {
				return 0, fmt.Errorf("estimate: %w", err)
			}
		}
		explain = "EXECUTE " + poisonName + "(" + strings.TrimSuffix(strings.Repeat("NULL, ", n), ", ") + ")"
	}
	var out string
	if err := r.single("EXPLAIN (FORMAT JSON) "+explain, func(v *row) { out += v.text() }); err != nil {
		return 0, fmt.Errorf("estimate: %w", err)
	}
	_, _ = l.conn.Write(appendEmpty(nil, 'X'))
	return planRows([]byte(out))
}

// parameters is the highest number of a parameter in the text.
func parameters(text string) int {
	highest := 0
	for at := 0; at < len(text); {
		t := lex.Next(text, at)
		at = t.End
		if t.Kind == lex.Param {
			n := 0
			for _, d := range text[t.Start+1 : t.End] {
				n = min(n*10+int(d-'0'), math.MaxUint16)
			}
			highest = max(highest, n)
		}
	}
	return highest
}

// planRows reads the estimate out of EXPLAIN (FORMAT JSON). A plan that changes rows
// returns none itself: what counts is what it is fed.
func planRows(explained []byte) (int64, error) {
	type node struct {
		Type     string  `json:"Node Type"`
		Relation string  `json:"Parent Relationship"`
		Rows     float64 `json:"Plan Rows"`
		Plans    []node  `json:"Plans"`
	}
	var all []struct {
		Plan *node `json:"Plan"`
	}
	if err := json.Unmarshal(explained, &all); err != nil {
		return 0, fmt.Errorf("read plan: %w", err)
	}
	if len(all) != 1 || all[0].Plan == nil {
		return 0, errors.New("read plan: there is not exactly one")
	}
	rows := all[0].Plan.Rows
	if all[0].Plan.Type == "ModifyTable" {
		rows = 0
		for _, n := range all[0].Plan.Plans {
			if n.Relation == "Outer" || n.Relation == "Member" { // not what is computed beside it
				rows += n.Rows
			}
		}
	}
	if !(rows >= 0) || rows > math.MaxInt64/2 {
		return 0, fmt.Errorf("read plan: %v rows", rows)
	}
	return int64(rows), nil
}
