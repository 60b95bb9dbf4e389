package query

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/posterngate/postern/controlplane/recording/index"
)

// Usage implements index.Index.
func (r *Reader) Usage(ctx context.Context, q index.Usage) (list []index.Used, err error) {
	var c clause
	c.add(true, NotRaw)
	for _, f := range []struct{ column, value string }{
		{"subject", q.Subject}, {"task", q.Task}, {"resource", q.Resource}, {"account", q.Account}, {"workload", q.Workload},
	} {
		c.add(f.value != "", f.column+" = ?", f.value)
	}
	c.add(q.Name != "", "(subject = ? OR resource = ? OR account = ? OR workload = ?)", q.Name, q.Name, q.Name, q.Name)
	c.add(!q.Since.IsZero(), "last_us >= ?", q.Since.UnixMicro())
	c.add(!q.Until.IsZero(), "start_us < ?", q.Until.UnixMicro())
	text := `SELECT subject, workload, task, resource, account, node, region, client_host, client_program, CASE WHEN doubt = '' THEN 0 ELSE 1 END,
			count(*), CAST(sum(statements) AS bigint), CAST(sum(row_count) AS bigint), min(start_us), max(last_us)
		FROM session s WHERE ` + c.String() + ` GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 ORDER BY max(last_us) DESC, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 LIMIT ?`
	err = r.rows(ctx, text, append(c.args, index.MaxUsed), func(scan func(...any) error) error {
		var u index.Used
		var first, last, doubted int64
		if err := scan(&u.Subject, &u.Workload, &u.Task, &u.Resource, &u.Account, &u.Node, &u.Region, &u.ClientHost, &u.ClientProgram, &doubted,
			&u.Sessions, &u.Statements, &u.Rows, &first, &last); err != nil {
			return err
		}
		u.First, u.Last = time.UnixMicro(first).UTC(), time.UnixMicro(last).UTC()
		u.Doubted = doubted != 0
		list = append(list, u)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("index: usage: %w", err)
	}
	return list, nil
}

// Takers implements index.Index.
func (r *Reader) Takers(ctx context.Context, task, resource string) (list []index.Taker, err error) {
	var c clause
	c.add(true, NotRaw)
	c.add(true, "doubt = '' AND task = ?", task)
	c.add(resource != "", "resource = ?", resource)
	text := `SELECT subject, workload, groups, max(last_us) FROM session s WHERE ` + c.String() + ` GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3 LIMIT ?`
	err = r.rows(ctx, text, append(c.args, index.MaxUsed), func(scan func(...any) error) error {
		var t index.Taker
		var groups string
		var last int64
		if err := scan(&t.Subject, &t.Workload, &groups, &last); err != nil {
			return err
		}
		t.Last = time.UnixMicro(last).UTC()
		list = append(list, t)
		return json.Unmarshal([]byte(groups), &list[len(list)-1].Groups)
	})
	if err != nil {
		return nil, fmt.Errorf("index: who took %s: %w", task, err)
	}
	return list, nil
}
