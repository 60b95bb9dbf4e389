package truth

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/test/twoworlds"
)

// A Fault is what is wrong with an answer.
type Fault string

// The faults. Broken is none of the catalogue's three: the node hangs, or a session does
// not survive what it must.
const (
	Missed     Fault = "missed"
	Leak       Fault = "leak"
	FalseAlarm Fault = "false alarm"
	Broken     Fault = "broken"
)

// A Finding is one fault, and how it showed.
type Finding struct {
	Entry *Entry
	Level twoworlds.Level
	How   string // simple, extended or binary
	Fault Fault
	What  string
}

func (f *Finding) String() string {
	return fmt.Sprintf("%s %s %s (%s): %s: %s", f.Fault, f.Entry.ID, f.Level.Short(), f.How, f.Entry.Class, f.What)
}

// The bounds of the tasks in the two worlds.
const (
	maxRows  = 10000
	maxBytes = 5 << 20
	maxTime  = 10 * time.Second
)

// canaries are what only one of the worlds has, and no mask lets through.
var canaries = []string{"@example.com", "+1555000", "@other.invalid", "+4977", "123456", "654321", "zacharias", "postern-canary"}

// Judge runs one entry at one level, in every protocol that it has, or in the first where
// short, and says what is wrong. An error is of the suite itself.
func Judge(ctx context.Context, t testing.TB, w *twoworlds.Worlds, e *Entry, l twoworlds.Level, short bool) ([]Finding, error) {
	t.Helper()
	steps, err := e.steps()
	if err != nil {
		return nil, err
	}
	type form struct {
		how   string
		steps []twoworlds.Step
	}
	forms := []form{{"simple", steps}}
	if !short && len(e.SQL) == 1 && !strings.Contains(strings.TrimRight(e.SQL[0], "; "), ";") && len(e.Wire) == 0 {
		forms = append(forms, form{"extended", []twoworlds.Step{twoworlds.Extended(e.SQL[0], 0)}}, form{"binary", []twoworlds.Step{twoworlds.Extended(e.SQL[0], 1)}})
	} else if len(e.Wire) > 0 {
		forms[0].how = "wire"
	}
	views := []bool{false}
	if l == twoworlds.Wall {
		views = []bool{false, true}
		if w := e.want(l); w == Allow || w == Mask {
			views = views[1:] // tables themselves are for nobody
		}
	}
	var out []Finding
	for _, f := range forms {
		for _, v := range views {
			j := judgement{Finding: Finding{Entry: e, Level: l, How: f.how}, w: w, views: v}
			if err := j.run(ctx, t, f.steps); err != nil {
				return out, err
			}
			out = append(out, j.found...)
		}
	}
	return out, nil
}

type judgement struct {
	Finding
	w     *twoworlds.Worlds
	views bool // past the node, through the task's views
	found []Finding
	took  time.Duration // from the first step to the last answer; opening a session is not the input's doing
	wrote string        // how a target that wrote something tells of it
	after string        // what an unusable session says
}

func (j *judgement) fault(f Fault, format string, args ...any) {
	j.Finding.Fault, j.Finding.What = f, fmt.Sprintf(format, args...)
	j.found = append(j.found, j.Finding)
}

func (j *judgement) run(ctx context.Context, t testing.TB, steps []twoworlds.Step) error {
	e := j.Entry
	if e.Before != "" {
		if _, err := j.w.Targets(ctx, e.Before); err != nil {
			return err
		}
	}
	if e.After != "" {
		defer func() {
			if _, err := j.w.Targets(ctx, e.After); err != nil {
				t.Error(err)
			}
		}()
	}
	seen, usable, err := j.exchange(ctx, t, steps)
	if err != nil {
		j.fault(Broken, "%v", err)
		return nil
	}
	if d := seen.Difference(); d != "" && !seen.Late() {
		j.fault(Leak, "the worlds differ: %s", d)
	}
	j.canaries(seen)
	answer := seen[0].Last()
	if e.Says != "" && j.Level != twoworlds.Wall && (j.How == "simple" || j.How == "wire") && answer.String() != e.Says {
		j.fault(Broken, "the answer is %s", answer)
	}
	if told := refusal(answer); j.Level != twoworlds.Wall && !strings.Contains(told, e.Tells) {
		j.fault(Broken, "the answer is not that it %s: %s", e.Tells, told)
	}
	switch want := e.want(j.Level); want {
	case Allow, Mask:
		if errs := seen[0].Errors(); len(errs) > 0 || seen[0].Count("Z") < requests(steps) {
			j.fault(FalseAlarm, "%s", refusal(seen[0]))
		} else if want == Allow {
			j.unchanged(ctx, t, steps, seen[0])
		}
	case Deny:
		if len(answer.Errors()) == 0 && !closed(answer) {
			j.fault(Missed, "no error: %.200s", answer)
		}
		if n := answer.Count("DdVC"); n > 0 {
			j.fault(Missed, "it ran: %.200s", answer)
		}
		if j.wrote != "" {
			j.fault(Missed, "the target wrote something: %s", j.wrote)
		}
	case Bounded:
		if rows := seen[0].Count("Dd"); rows > maxRows {
			j.fault(Missed, "%d rows came", rows)
		}
		if n := seen[0].Size(); n > maxBytes+maxBytes/10 {
			j.fault(Missed, "%d bytes came", n)
		}
		// What the target's own timer has stopped was given the task's time, however busy
		// the machine; that the timer is at it is an entry of its own, startup-timeout-lifted.
		if j.took > maxTime && !stopped(seen) {
			j.fault(Missed, "it ran for %s", j.took)
		}
	case NoLeak: // the worlds were compared, and that is all
	}
	if !usable && !e.Ends {
		j.fault(Broken, "the session is not usable after %.300s %s: %.300s", answer, refusal(answer), j.after)
	}
	return nil
}

// exchange runs the steps, and then sees whether the session still answers.
func (j *judgement) exchange(ctx context.Context, t testing.TB, steps []twoworlds.Step) (seen twoworlds.Outcome, usable bool, err error) {
	if j.Entry.Segment {
		seen, err = j.w.Unencrypted(ctx, twoworlds.Client{Task: j.Entry.Task, Level: j.Level})
		return seen, false, err
	}
	p, seen, err := j.w.Open(ctx, t, twoworlds.Client{Task: j.Entry.Task, Level: j.Level, Startup: j.Entry.Startup, Views: j.views})
	if err != nil {
		return seen, false, err
	}
	defer p.Close()
	more, err := j.watched(ctx, p, steps)
	for i := range seen {
		seen[i] = append(seen[i], more[i]...)
	}
	if err != nil || p.Over() {
		return seen, false, err
	}
	rest, err := p.Run(ctx, twoworlds.Query("ROLLBACK"), twoworlds.Query("SELECT 1 AS usable"))
	if err == nil {
		j.after = fmt.Sprint(rest[0], " ", rest[1])
	}
	if err != nil || p.Over() || rest.Difference() != "" {
		return seen, false, err
	}
	errs := rest[0].Last().Errors()
	return seen, len(errs) == 0 || errs[0].Code == limitReached, nil
}

// What tells whether a target wrote anything: any transaction at all; or, where walls make
// and drop logins meanwhile, what there is beside them.
const (
	transactions = "SELECT pg_snapshot_xmax(pg_current_snapshot())"
	contents     = `SELECT concat_ws(' ', (SELECT row(count(*), max(xmin::text::bigint)) FROM sales.orders), (SELECT row(count(*), max(xmin::text::bigint)) FROM sales.customers),
		(SELECT row(count(*), max(xmin::text::bigint)) FROM audit.log), (SELECT row(count(*), max(xmin::text::bigint)) FROM hr.salaries),
		(SELECT row(count(*), max(xmin::text::bigint)) FROM sales.leads), (SELECT count(*) FROM pg_largeobject_metadata),
		(SELECT row(count(*), max(xmin::text::bigint)) FROM pg_proc), (SELECT row(count(*), max(xmin::text::bigint)) FROM pg_class WHERE relname !~ '^pg_'),
		(SELECT row(count(*), max(xmin::text::bigint)) FROM pg_namespace), (SELECT row(count(*), max(xmin::text::bigint)) FROM pg_db_role_setting))`
)

// watched runs the steps, and notes whether the targets wrote anything meanwhile.
func (j *judgement) watched(ctx context.Context, p *twoworlds.Pair, steps []twoworlds.Step) (twoworlds.Outcome, error) {
	look := transactions
	if j.Level == twoworlds.Native {
		look = contents
	}
	before, err := j.w.Targets(ctx, look)
	if err != nil {
		return twoworlds.Outcome{}, err
	}
	began := time.Now()
	seen, err := p.Run(ctx, steps...)
	j.took = time.Since(began)
	if err != nil {
		return seen, err
	}
	after, err := j.w.Targets(ctx, look)
	if err != nil {
		return seen, err
	}
	for i := range before {
		if before[i][0][0] != after[i][0][0] {
			j.wrote = fmt.Sprintf("it is at %s, and was at %s", after[i][0][0], before[i][0][0])
		}
	}
	return seen, nil
}

// limitReached is what a session gets that has used up what its task allows.
const limitReached = "53400"

// stopped reports whether the targets' own timers ended a statement in both worlds.
func stopped(seen twoworlds.Outcome) bool {
	for _, t := range seen {
		if !slices.ContainsFunc(t.Errors(), func(e *pgproto3.ErrorResponse) bool {
			return e.Code == "57014" && strings.Contains(e.Message, "statement timeout")
		}) {
			return false
		}
	}
	return true
}

// canaries looks for what is masked, but for what the input says itself.
func (j *judgement) canaries(seen twoworlds.Outcome) {
	own := strings.Join(j.Entry.SQL, "\n")
	for _, m := range j.Entry.Wire {
		if m.Query != nil {
			own += *m.Query
		}
	}
	for _, c := range canaries {
		if !strings.Contains(own, c) && (seen[0].Contains(c) || seen[1].Contains(c)) {
			j.fault(Leak, "the client sees %q", c)
		}
	}
}

// unchanged compares with what the target says to the same text.
func (j *judgement) unchanged(ctx context.Context, t testing.TB, steps []twoworlds.Step, seen twoworlds.Transcript) {
	if j.Level == twoworlds.Wall || j.How == "wire" || strings.HasPrefix(j.Entry.SQL[0], "EXPLAIN") {
		return
	}
	direct, err := j.w.Direct(ctx, steps...)
	if err != nil {
		t.Fatal(err)
	}
	want, got := direct.Only("TDC"), seen.Only("TDC")
	if j.Level == twoworlds.Native { // what it names is a view
		want, got = want.Anonymous(), got.Anonymous()
	}
	if len(want) != len(got) {
		j.fault(FalseAlarm, "%d messages, and from the target itself %d", len(got), len(want))
		return
	}
	for i := range want {
		if want[i].Type != got[i].Type || !bytes.Equal(want[i].Body, got[i].Body) {
			j.fault(FalseAlarm, "the target itself says %.200q and not %.200q", want[i].Body, got[i].Body)
			return
		}
	}
}

// requests are the steps that a server answers.
func requests(steps []twoworlds.Step) int {
	n := 0
	for i := range steps {
		if steps[i].Both == "" {
			n++
		}
	}
	return n
}

func closed(t twoworlds.Transcript) bool { return len(t) == 0 || t[len(t)-1].Type == 0 }

// refusal is the first error in words.
func refusal(t twoworlds.Transcript) string {
	for _, e := range t.Errors() {
		return fmt.Sprintf("%s %s (%s)", e.Code, e.Message, e.Detail)
	}
	return t.String()
}
