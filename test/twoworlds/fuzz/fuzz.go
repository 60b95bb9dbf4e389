// Package fuzz sends generated statements through a node to two worlds, many on one
// connection and several connections at once, and compares every byte that comes back.
// It also counts what makes the comparison worth something: how many statements were
// admitted, how many of those concern masked columns, and which constructs were reached.
package fuzz

import (
	"context"
	"embed"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/twoworlds"
	"github.com/posterngate/postern/test/twoworlds/generate"
)

//go:embed testdata
var testdata embed.FS

// Options are what the worlds must be started with: small, with a task that may do what
// the generators write.
func Options(levels ...twoworlds.Level) twoworlds.Options {
	policy, sql := must(testdata.ReadFile("testdata/policy.yaml")), must(testdata.ReadFile("testdata/fixture.sql"))
	return twoworlds.Options{Customers: 6, Orders: 12, Levels: levels, Policy: string(policy), SQL: string(sql), WallEvery: 30 * time.Second}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err) // what is embedded is there
	}
	return b
}

// A Source gives statements until there are no more.
type Source func() (generate.Statement, bool)

// Generated is n statements of the generator.
func Generated(seed uint64, n int) Source {
	g := generate.New(seed)
	return func() (generate.Statement, bool) {
		if n--; n < 0 {
			return generate.Statement{}, false
		}
		return g.Next(), true
	}
}

// Varied is n statements of the generator, of which each query comes times more with
// other literals, so that a node reuses what it decided of the first.
func Varied(seed uint64, n, times int) Source {
	g := generate.New(seed)
	var last generate.Statement
	left := 0
	return func() (generate.Statement, bool) {
		if n--; n < 0 {
			return generate.Statement{}, false
		}
		if left > 0 {
			left--
			if again, ok := g.Again(last); ok {
				return again, true
			}
		}
		last, left = g.Next(), times
		return last, true
	}
}

// Listed is statements that are there already.
func Listed(list []generate.Statement) Source {
	return func() (s generate.Statement, ok bool) {
		if len(list) == 0 {
			return s, false
		}
		s, list = list[0], list[1:]
		return s, true
	}
}

// A Failure is a statement whose answers differ.
type Failure struct {
	Name      string // of the source
	At        int    // in the source, from 0
	Level     twoworlds.Level
	Statement generate.Statement
	What      string
}

func (f *Failure) String() string {
	return fmt.Sprintf("%s, statement %d, %s: %s\n  %s", f.Name, f.At, f.Level.Short(), f.What, strings.Join(f.Statement.Texts, ";\n  "))
}

// A Report counts what was sent. It is safe for concurrent use while sources run.
type Report struct {
	mu         sync.Mutex
	Sent       int
	Admitted   int
	Masked     int            // of those admitted, that concern a masked column
	Errors     int            // of those admitted, that failed at the target
	Unsteady   int            // that differed once, and alone did not: a deadline, under load
	Constructs map[string]int // of those admitted
	Failures   []Failure
	Refusals   map[string]int // by reason
}

// String is the report for people, on some lines.
func (r *Report) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d statements, %.1f %% admitted, %.1f %% of those with a masked column, %.1f %% failed at the target, %d unsteady, %d differ", r.Sent,
		share(r.Admitted, r.Sent), share(r.Masked, r.Admitted), share(r.Errors, r.Admitted), r.Unsteady, len(r.Failures))
	return b.String()
}

func share(n, of int) float64 { return 100 * float64(n) / float64(max(of, 1)) }

// Add adds another report that is complete, but for its failures and refusals.
func (r *Report) Add(more *Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Sent, r.Admitted, r.Masked = r.Sent+more.Sent, r.Admitted+more.Admitted, r.Masked+more.Masked
	r.Errors, r.Unsteady = r.Errors+more.Errors, r.Unsteady+more.Unsteady
	if r.Constructs == nil {
		r.Constructs = map[string]int{}
	}
	for name, n := range more.Constructs {
		r.Constructs[name] += n
	}
}

// Counts is each construct with its number, the rarest first.
func (r *Report) Counts() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return counts(r.Constructs)
}

// Reasons is each reason of refusals with its number, the rarest first.
func (r *Report) Reasons() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return counts(r.Refusals)
}

func counts(m map[string]int) string {
	names := slices.SortedFunc(maps.Keys(m), func(a, b string) int { return m[a] - m[b] })
	for i, n := range names {
		names[i] = fmt.Sprintf("%6d %s", m[n], n)
	}
	return strings.Join(names, "\n")
}

// How many statements go out in one write, and how many that write.
const (
	batch  = 32
	writes = 8
)

// maxFailures ends a source: more say no more.
const maxFailures = 20

// A Fuzzer sends statements at one level. Use it for one Run.
type Fuzzer struct {
	Worlds *twoworlds.Worlds
	Level  twoworlds.Level
	Report *Report

	mu    sync.Mutex
	later []sent // what writes
}

type sent struct {
	generate.Statement
	source string
	at     int
}

// Run sends everything of the sources, each on a connection of its own, and after that,
// one by one, what writes. An error is a node that hangs or hangs up; differences are in
// the report.
//
// The planner looks at how large tables are, which is what masked values make of them
// too, and chooses the order of rows. So the tables are kept as small as they were.
func (f *Fuzzer) Run(ctx context.Context, t testing.TB, sources map[string]Source) error {
	g := run.New(ctx)
	for name, s := range sources {
		g.Go(name, func(ctx context.Context) error { return f.source(ctx, t, name, s) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	p, _, err := f.Worlds.Open(ctx, t, twoworlds.Client{Task: "fuzz", Level: f.Level})
	if err != nil {
		return err
	}
	defer p.Close()
	for part := range slices.Chunk(f.later, writes) {
		if err := f.send(ctx, t, p, part); err != nil || f.failed() {
			return err
		}
		if _, err := f.Worlds.Targets(ctx, "VACUUM sales.orders, sales.status"); err != nil {
			return err
		}
	}
	return nil
}

func (f *Fuzzer) source(ctx context.Context, t testing.TB, name string, s Source) error {
	p, _, err := f.Worlds.Open(ctx, t, twoworlds.Client{Task: "fuzz", Level: f.Level})
	if err != nil {
		return err
	}
	defer p.Close()
	var reads []sent
	for at := 0; ; at++ {
		st, ok := s()
		switch {
		case ok && st.Writes:
			f.mu.Lock()
			f.later = append(f.later, sent{st, name, at})
			f.mu.Unlock()
		case ok:
			reads = append(reads, sent{st, name, at})
		}
		if len(reads) >= batch || !ok {
			if err := f.send(ctx, t, p, reads); err != nil {
				return err
			}
			reads = reads[:0]
		}
		if !ok || f.failed() {
			return nil
		}
	}
}

func (f *Fuzzer) failed() bool {
	f.Report.mu.Lock()
	defer f.Report.mu.Unlock()
	return len(f.Report.Failures) >= maxFailures
}

// protocol is how the text of a statement goes out: one text alone also by the extended
// protocol, in text or binary, whole or in pieces.
func protocol(s *sent, text string) []pgproto3.FrontendMessage {
	if len(s.Texts) > 1 || s.at%3 == 0 {
		return twoworlds.Query(text).Send
	}
	step := twoworlds.Extended(text, int16(s.at%2)) //nolint:gosec // 0 or 1
	if s.at%4 == 1 {
		pieces := slices.Clone(step.Send)
		pieces[len(pieces)-2] = &pgproto3.Execute{MaxRows: 2}
		return slices.Insert(pieces, len(pieces)-1, pgproto3.FrontendMessage(&pgproto3.Execute{}))
	}
	return step.Send
}

// send sends a batch and compares the answers.
func (f *Fuzzer) send(ctx context.Context, t testing.TB, p *twoworlds.Pair, list []sent) error {
	if len(list) == 0 {
		return nil
	}
	var step twoworlds.Step
	for i := range list {
		for _, text := range list[i].Texts {
			step.Send = append(step.Send, protocol(&list[i], text)...)
		}
	}
	seen, err := p.Run(ctx, step)
	if err == nil && p.Over() {
		err = fmt.Errorf("the node hung up: %.300s and %.300s", seen[0].Last(), seen[1].Last())
	}
	if err != nil {
		texts := make([]string, 0, len(list))
		for i := range list {
			texts = append(texts, strings.Join(list[i].Texts, ";\n"))
		}
		return fmt.Errorf("%s, statements %d to %d: %w\n%s", list[0].source, list[0].at, list[len(list)-1].at, err, strings.Join(texts, ";\n"))
	}
	rest := [2][]twoworlds.Transcript{seen[0].Answers(), seen[1].Answers()}
	for i := range list {
		s := &list[i]
		var o twoworlds.Outcome
		for side := range o {
			for range s.Texts {
				o[side] = append(o[side], rest[side][0]...)
				rest[side] = rest[side][1:]
			}
		}
		if o.Difference() != "" {
			if o, err = f.alone(ctx, t, s, o); err != nil {
				return err
			}
		}
		f.judge(s, o)
	}
	return nil
}

// again is how often a statement whose answers differed must show none alone, before
// that is put down to time.
const again = 3

// alone sends a statement that differed once more on connections of its own, text by
// text, and returns the outcome that counts.
func (f *Fuzzer) alone(ctx context.Context, t testing.TB, s *sent, differs twoworlds.Outcome) (twoworlds.Outcome, error) {
	var last twoworlds.Outcome
	late := false
	for range again {
		p, _, err := f.Worlds.Open(ctx, t, twoworlds.Client{Task: "fuzz", Level: f.Level})
		if err != nil {
			return differs, err
		}
		steps := make([]twoworlds.Step, 0, len(s.Texts))
		for _, text := range s.Texts {
			steps = append(steps, twoworlds.Step{Send: protocol(s, text)})
		}
		last, err = p.Run(ctx, steps...)
		p.Close()
		if err != nil || last.Difference() != "" && !last.Late() {
			return differs, err
		}
		late = late || last.Late()
	}
	f.Report.mu.Lock()
	defer f.Report.mu.Unlock()
	f.Report.Unsteady++
	if late { // as far as both came they are the same
		last[1] = last[0]
	}
	return last, nil
}

// judge counts one statement.
func (f *Fuzzer) judge(s *sent, o twoworlds.Outcome) {
	what := o.Difference()
	refused := ""
	errs := o[0].Errors()
	for _, e := range errs {
		if strings.HasPrefix(e.Message, "postern: ") {
			refused = e.Message
			break
		}
	}
	r := f.Report
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Sent++
	if what != "" {
		r.Failures = append(r.Failures, Failure{s.source, s.at, f.Level, s.Statement, what})
	}
	if r.Constructs == nil {
		r.Constructs, r.Refusals = map[string]int{}, map[string]int{}
	}
	if refused != "" {
		r.Refusals[refused]++
		return
	}
	r.Admitted++
	if s.Masked {
		r.Masked++
	}
	if len(errs) > 0 {
		r.Errors++
	}
	for _, c := range s.Constructs {
		r.Constructs[c]++
	}
}
