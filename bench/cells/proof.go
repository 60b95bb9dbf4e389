package cells

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/bench/house"
	"github.com/posterngate/postern/bench/load"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/targets"
)

// probe is what is asked of every target before it is measured: the same rows must come
// back, but for masks.
const (
	probe     = "SELECT id, name, email FROM people WHERE id BETWEEN 101 AND 150 ORDER BY id"
	probeRows = 50
	maskValue = "***"
)

// forbidden are statements that no task of the benchmark permits.
var forbidden = []string{
	"DELETE FROM people WHERE id = 1",
	"UPDATE people SET name = 'x' WHERE id = 1",
	"DROP TABLE people",
	"SELECT rolname FROM pg_authid",
	"COPY people TO PROGRAM 'true'",
}

func dial(ctx context.Context, w load.Where) (*pgx.Conn, error) {
	mode := "sslmode=disable"
	if w.CA != "" {
		mode = "sslmode=verify-full sslrootcert=" + w.CA
	}
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s connect_timeout=10 %s", w.Host, w.Port, w.User, w.Database, mode))
	if err != nil {
		return nil, err
	}
	cfg.Password = w.Password
	return pgx.ConnectConfig(ctx, cfg)
}

// text runs one statement in the simple protocol.
func text(ctx context.Context, c *pgx.Conn, sql string) ([][]string, error) {
	results, err := c.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			var values []string
			for _, v := range row {
				values = append(values, string(v))
			}
			rows = append(rows, values)
		}
	}
	return rows, nil
}

// prove shows that a target does its work: the rows are right, what must be masked is,
// and what is forbidden is denied.
func (e *Env) prove(ctx context.Context, out *result.Cell, t *targets.Target) error {
	fail := func(err error) error { return fmt.Errorf("proof of %s: %w", t.Name, err) }
	direct, err := e.Targets.Get(targets.Direct)
	if err != nil {
		return err
	}
	want, err := e.ask(ctx, direct.Where, probe)
	if err != nil {
		return fail(err)
	}
	c, err := dial(ctx, t.Where)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = c.Close(ctx) }()
	got, err := text(ctx, c, probe)
	if err != nil {
		return fail(err)
	}
	masked := t.Task == house.TaskMasked
	for _, row := range want {
		if row[2] == maskValue {
			return fail(errors.New("the server's own rows are masked"))
		}
		if masked {
			row[2] = maskValue
		}
	}
	if len(want) != probeRows || !slices.EqualFunc(got, want, slices.Equal) {
		return fail(fmt.Errorf("%d rows that are not those of the server", len(got)))
	}
	what := fmt.Sprintf("%s: %d rows right", t.Name, len(got))
	if masked {
		what += ", the masked column masked in each"
	}
	if t.Node || t.Name == targets.Judge {
		for _, sql := range forbidden {
			var pg *pgconn.PgError
			if _, err := text(ctx, c, sql); !errors.As(err, &pg) || pg.Code != "42501" {
				return fail(fmt.Errorf("%q was not denied: %w", sql, err))
			}
		}
		what += fmt.Sprintf(", %d statements denied", len(forbidden))
	}
	if t.Node {
		e.sent[t.Task]++
	}
	out.Proof = append(out.Proof, what)
	return nil
}

func (e *Env) ask(ctx context.Context, w load.Where, sql string) ([][]string, error) {
	c, err := dial(ctx, w)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close(ctx) }()
	return text(ctx, c, sql)
}

// recordWait is how long the last records of a cell may take to be stored.
const recordWait = time.Minute

// proveRecords shows that what was sent through the node in this cell is on record: each
// session sealed, every statement in it, and of each task one recording that verifies and
// one that replays.
func (e *Env) proveRecords(out *result.Cell) error {
	delete(e.sent, "")
	if len(e.sent) == 0 {
		return nil
	}
	sessions, err := e.sealed()
	if err != nil {
		return fmt.Errorf("proof of records: %w", err)
	}
	byTask, recorded := tally(sessions)
	for task, sent := range e.sent {
		recorded := recorded[task]
		out.Samples = append(out.Samples, result.Sample{Workload: "records", Target: task, Values: map[string]float64{"sent": float64(sent), "recorded": float64(recorded), "lost": float64(sent - recorded)}})
		if recorded != sent {
			return fmt.Errorf("proof of records: of %d statements under %s %d are on record", sent, task, recorded)
		}
		if err := e.verify(task, byTask[task]); err != nil {
			return fmt.Errorf("proof of records: %w", err)
		}
		out.Proof = append(out.Proof, fmt.Sprintf("%s: all %d statements of %d sessions are on record; a recording verifies, and one replays", task, recorded, len(byTask[task])))
	}
	return nil
}

// verify proves the last recording under load, and replays the one of the proof.
func (e *Env) verify(task string, sessions []house.Session) error {
	denied, shown := len(forbidden), append(forbidden[:2:2], "BETWEEN 101 AND 150")
	switch task {
	case taskSSH:
		denied, shown = 1, []string{"does not allow " + forbiddenSSH}
	case taskHTTP, taskHTTPMasked:
		denied, shown = 1, []string{"does not allow GET " + pathForbidden}
	}
	said, err := e.House.Postern("sessions", "verify", sessions[0].ID)
	if err != nil {
		return err
	}
	if !strings.Contains(said, "chain and signature hold") {
		return fmt.Errorf("verify says %q", said)
	}
	i := slices.IndexFunc(sessions, func(s house.Session) bool { return s.Denied == int64(denied) })
	if i < 0 {
		return errors.New("the session with the denials is not on record")
	}
	if said, err = e.House.Postern("sessions", "replay", sessions[i].ID); err != nil {
		return err
	}
	for _, sql := range shown {
		if !strings.Contains(said, sql) {
			return fmt.Errorf("the replay of %s does not show %q", sessions[i].ID, sql)
		}
	}
	return nil
}

// sealedOf are those of a task, once they have ended.
func (e *Env) sealedOf(task string) ([]house.Session, error) {
	all, err := e.sealed()
	return slices.DeleteFunc(all, func(s house.Session) bool { return s.Task != task }), err
}

// sealed waits until every session of this cell has its end on record, and everything
// that was sent is there; what is missing after recordWait is the caller's to see.
func (e *Env) sealed() ([]house.Session, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(recordWait); ; {
		all, err := e.House.Sessions(e.began)
		if err != nil {
			return nil, err
		}
		open := slices.IndexFunc(all, func(s house.Session) bool { return s.Recording != "sealed" })
		if open < 0 && e.complete(all) {
			return all, nil
		}
		select {
		case <-late:
			if open >= 0 {
				return nil, fmt.Errorf("session %s is %s after %s", all[open].ID, all[open].Recording, recordWait)
			}
			return all, nil
		case <-tick.C:
		}
	}
}

// complete reports whether no statement is missing: the last session of a cell may not
// have been heard of yet.
func (e *Env) complete(all []house.Session) bool {
	_, recorded := tally(all)
	for task, sent := range e.sent {
		if task != "" && recorded[task] < sent {
			return false
		}
	}
	return true
}

// tally sorts sessions by task, and counts their statements that were let through.
func tally(all []house.Session) (byTask map[string][]house.Session, recorded map[string]int64) {
	byTask, recorded = map[string][]house.Session{}, map[string]int64{}
	for _, s := range all {
		byTask[s.Task] = append(byTask[s.Task], s)
		recorded[s.Task] += s.Statements - s.Denied
	}
	return byTask, recorded
}
