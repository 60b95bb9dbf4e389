package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/pgbench"
)

// load is what bench puts on a node.
type load struct {
	SQL     string        `json:"sql"`
	Mode    string        `json:"mode"`
	Clients int           `json:"clients"`
	Time    time.Duration `json:"-"`
	Rounds  int           `json:"rounds"`

	node, direct string
}

func (a *app) benchCmd() *cobra.Command {
	var l load
	c := &cobra.Command{
		Use: "bench TASK[.RESOURCE] --sql STATEMENT", Short: "Measure a node with a statement of yours", Args: cobra.ExactArgs(1),
		Long: `Takes the task and has pgbench run one statement through the nearest node, or through the
one that --node names, as often as it can. The statement may use \set as scripts of pgbench
do. With --direct the same goes to the resource itself in turns, and the ratio of the two is
told, paired inside rounds: it is a connection string of libpq, whose password is where libpq
finds it. Everything that runs through the node is judged and recorded.`,
		Example: "  postern bench sales-report --sql 'SELECT count(*) FROM regions'\n  postern bench sales-report --node eu-1-a --clients 32 --direct 'service=warehouse' --sql 'SELECT name FROM customers WHERE id = 7'",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case strings.TrimSpace(l.SQL) == "":
				return usage("--sql STATEMENT says what is to be run")
			case !slices.Contains([]string{"prepared", "extended", "simple"}, l.Mode):
				return usage("--mode %s is not prepared, extended or simple", l.Mode)
			case l.Clients < 1 || l.Rounds < 1 || l.Time < time.Second:
				return usage("--clients and --rounds are 1 at least, and --time a second")
			}
			return a.bench(cmd.Context(), args[0], l)
		},
	}
	c.Flags().StringVar(&l.SQL, "sql", "", "the statement")
	c.Flags().StringVar(&l.Mode, "mode", "prepared", "prepared, extended or simple")
	c.Flags().IntVar(&l.Clients, "clients", 8, "connections")
	c.Flags().DurationVar(&l.Time, "time", 2*time.Second, "of a round, in whole seconds")
	c.Flags().IntVar(&l.Rounds, "rounds", 5, "how often")
	c.Flags().StringVar(&l.node, "node", "", "this node, and not the nearest")
	c.Flags().StringVar(&l.direct, "direct", "", "connection string of the resource itself, to compare with")
	return c
}

// measured is what came of all rounds on one way to the resource.
type measured struct {
	Way          string    `json:"way"` // a node, or direct
	Transactions int       `json:"transactions"`
	Rate         []float64 `json:"rate"` // a second, by round
	P50          []float64 `json:"p50Microseconds"`
	P99          []float64 `json:"p99Microseconds"`
}

// benched is the answer of the command.
type benched struct {
	load
	Took     string     `json:"time"` // of a round
	Measured []measured `json:"measured"`
	Ratios   []float64  `json:"ratios,omitempty"` // of the node to direct, by round
}

func (a *app) bench(ctx context.Context, permission string, l load) error {
	program, err := stockClient("pgbench", "postgresql-contrib")
	if err != nil {
		return err
	}
	api, err := a.dial(ctx, false)
	if err != nil {
		return err
	}
	to, err := a.resolve(ctx, api, permission)
	if err != nil {
		return err
	}
	if to.protocol != "postgres" {
		return usage("%s speaks %s; what is measured is PostgreSQL", to.resource, to.protocol)
	}
	node, err := a.nodeFor(ctx, api, to.resource, l.node)
	if err != nil {
		return err
	}
	b, err := a.borrow(ctx, api, &apiv1.CreateGrantRequest{Task: to.task}, to.user(), []near{node}, false)
	if err != nil {
		return err
	}
	defer b.done()
	defer a.giveBack(ctx, api, b.grant)
	dir, done, err := a.clientFolder()
	if err != nil {
		return err
	}
	defer done()
	script := filepath.Join(dir, "script.sql")
	if err := os.WriteFile(script, []byte(strings.TrimRight(strings.TrimSpace(l.SQL), ";")+";\n"), 0o600); err != nil {
		return err
	}
	env := slices.DeleteFunc(os.Environ(), notForClients)
	run := pgbench.Run{Program: program, Script: script, Mode: l.Mode, Clients: l.Clients, For: l.Time, Scale: 1}
	through := run
	through.Env, through.Target = append(env, b.env...), joined(append(a.conninfo(to.user(), []near{node}), b.conninfo...))
	ways := []pgbench.Run{through}
	out := benched{load: l, Took: l.Time.String(), Measured: []measured{{Way: node.node.GetNode()}}}
	if l.direct != "" {
		direct := run
		direct.Env, direct.Target = os.Environ(), l.direct
		ways, out.Measured = append(ways, direct), append(out.Measured, measured{Way: "direct"})
	}
	if err := out.rounds(ctx, a, ways, dir); err != nil {
		return err
	}
	return a.printValue(out, out.text)
}

// nodeFor is the nearest node that serves a resource, or the one that is named.
func (a *app) nodeFor(ctx context.Context, api *api, resource, name string) (near, error) {
	nodes, err := a.nearest(ctx, api, resource, "postgres")
	if err != nil {
		return near{}, err
	}
	if name == "" {
		return nodes[0], nil
	}
	i := slices.IndexFunc(nodes, func(n near) bool { return n.node.GetNode() == name })
	if i < 0 {
		return near{}, fail(exitUnreachable, statusHint, "node %q does not answer, or does not serve %s", name, resource)
	}
	return nodes[i], nil
}

// rounds runs each way once a round, in turns.
func (b *benched) rounds(ctx context.Context, a *app, ways []pgbench.Run, dir string) error {
	for round := range b.Rounds {
		for i := range ways {
			at := (i + round) % len(ways)
			m := &b.Measured[at]
			tx, err := ways[at].Do(ctx, dir)
			switch {
			case err != nil && strings.Contains(err.Error(), "postern: "):
				return fail(exitDenied, "", "through %s: %w", m.Way, err)
			case err != nil:
				return fmt.Errorf("through %s: %w", m.Way, err)
			case tx.Failed > 0:
				return fmt.Errorf("through %s: %d of %d transactions failed", m.Way, tx.Failed, tx.Failed+tx.Done)
			}
			m.Transactions += tx.Done
			m.Rate = append(m.Rate, tx.Rate)
			m.P50 = append(m.P50, float64(tx.Percentile(.5))/float64(time.Microsecond))
			m.P99 = append(m.P99, float64(tx.Percentile(.99))/float64(time.Microsecond))
		}
		if len(ways) > 1 {
			b.Ratios = append(b.Ratios, b.Measured[0].Rate[round]/b.Measured[1].Rate[round])
		}
		if isTerminal(a.env.Stderr) {
			a.say("round %d of %d: %.0f a second through %s", round+1, b.Rounds, b.Measured[0].Rate[round], b.Measured[0].Way)
		}
	}
	return nil
}

func (b *benched) text(w io.Writer) {
	var rows [][]string
	for _, m := range b.Measured {
		rows = append(rows, []string{m.Way, fmt.Sprint(m.Transactions), middle(m.Rate, "%.0f"), middle(m.P50, "%.0f"), middle(m.P99, "%.0f")})
	}
	table(w, "through transactions a-second p50-us p99-us", rows)
	if len(b.Ratios) > 0 {
		fmt.Fprintf(w, "%s of direct, paired inside %d rounds\n", middle(b.Ratios, "%.2f"), len(b.Ratios))
	}
}

// middle is the median and between what the others lie.
func middle(values []float64, form string) string {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return fmt.Sprintf(form+" ["+form+" "+form+"]", (s[(n-1)/2]+s[n/2])/2, s[0], s[n-1])
}
