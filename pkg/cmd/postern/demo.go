package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/run"
)

func (a *app) demoCmd() *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "A guided tour of the development house that make dev-up started", Example: "  postern demo", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.env.Getenv("POSTERN_TOKEN_ALICE") == "" {
				return a.demoWithEnv(cmd.Context())
			}
			t := &tour{app: a}
			return t.run(cmd.Context())
		},
	}
}

// demoWithEnv runs the tour again with what .dev/env says, for who has not sourced it.
func (a *app) demoWithEnv(ctx context.Context) error {
	file := filepath.Join(".dev", "env")
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("no development house here: make dev-up (%w)", err)
	}
	vars := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "="); ok {
			vars[name] = strings.Trim(value, "'")
		}
	}
	getenv := a.env.Getenv
	a.env.Getenv = func(name string) string {
		if v, ok := vars[name]; ok {
			return v
		}
		return getenv(name)
	}
	a.addr, a.ca, a.home = vars["POSTERN_ADDR"], vars["POSTERN_CA"], vars["POSTERN_HOME"]
	return (&tour{app: a}).run(ctx)
}

// tour shows what the house does, with the stock client, step by step.
type tour struct {
	*app
	n int
}

func (t *tour) run(ctx context.Context) error {
	if _, err := stockClient("psql", "postgresql-client"); err != nil {
		return err
	}
	steps := []func(context.Context) error{t.masked, t.refused, t.held, t.cut, t.host, t.service, t.replayed}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintln(t.env.Stdout, "\nThat was the tour. Next: postern tasks, postern explain, postern sessions list; the sample company is in deploy/dev/world.")
	return nil
}

func (t *tour) title(format string, args ...any) {
	t.n++
	fmt.Fprintf(t.env.Stdout, "\n%d. %s\n\n", t.n, fmt.Sprintf(format, args...))
}

func (t *tour) show(format string, args ...any) {
	fmt.Fprintf(t.env.Stdout, "   $ "+format+"\n", args...)
}

// psql is the stock client as a person; its password is in a file that only it reads.
func (t *tour) psql(ctx context.Context, who, task string, args ...string) (*exec.Cmd, func(), error) {
	host, port, err := net.SplitHostPort(t.env.Getenv("POSTERN_PG"))
	if err != nil {
		return nil, nil, fmt.Errorf("POSTERN_PG: %w", err)
	}
	user := task + ".warehouse"
	dir, done, err := t.clientFolder()
	if err != nil {
		return nil, nil, err
	}
	passfile := filepath.Join(dir, "pgpass")
	if err := replace(passfile, passwords(user, []near{{addr: net.JoinHostPort(host, port)}}, t.env.Getenv("POSTERN_TOKEN_"+strings.ToUpper(who)))); err != nil {
		done()
		return nil, nil, err
	}
	info := fmt.Sprintf("host=%s port=%s user=%s dbname=warehouse sslmode=verify-full sslrootcert=%s", host, port, user, t.ca)
	cmd := exec.CommandContext(ctx, "psql", append([]string{info, "-X"}, args...)...)
	cmd.Env = append(os.Environ(), "PGPASSFILE="+passfile)
	return cmd, done, nil
}

// query runs one statement as a person and shows what comes back.
func (t *tour) query(ctx context.Context, who, task, text string) error {
	t.show("psql user=%s.warehouse   # %s\n     %s", task, who, text)
	cmd, done, err := t.psql(ctx, who, task, "-c", text)
	if err != nil {
		return err
	}
	defer done()
	out, err := cmd.CombinedOutput()
	fmt.Fprintln(t.env.Stdout, indent(string(out)))
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil // a refusal is part of the tour
	}
	return err
}

func indent(s string) string {
	return "     " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n     ")
}

func (t *tour) masked(ctx context.Context) error {
	t.title("Alice reads a report. Emails and cards are masked before they leave the database.")
	return t.query(ctx, "alice", "sales-report", "SELECT name, email, card, country FROM customers ORDER BY id LIMIT 3")
}

func (t *tour) refused(ctx context.Context) error {
	t.title("What the task does not permit is refused, with the rule and what to do next.")
	if err := t.query(ctx, "alice", "sales-report", "DROP TABLE orders"); err != nil {
		return err
	}
	return t.query(ctx, "alice", "sales-report", "SELECT * FROM hr.salaries")
}

// held has alice wait for bob.
func (t *tour) held(ctx context.Context) error {
	t.title("Deleting an order waits for a lead. Bob approves, and it runs once.")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	text := fmt.Sprintf("DELETE FROM sales.orders WHERE id = %d", 1+time.Now().UnixNano()%190_000)
	t.show("psql user=purge-order.warehouse   # alice\n     %s", text)
	cmd, done, err := t.psql(ctx, "alice", "purge-order", "-c", text)
	if err != nil {
		return err
	}
	defer done()
	out, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		fmt.Fprintln(t.env.Stdout, indent(lines.Text()))
		_, id, found := strings.Cut(lines.Text(), "postern approve ")
		if !found {
			continue
		}
		id, _, _ = strings.Cut(id, ")")
		if err := t.approveAs(ctx, "bob", id); err != nil {
			return err
		}
	}
	err = cmd.Wait()
	fmt.Fprintln(t.env.Stdout, indent(stdout.String()))
	return err
}

func (t *tour) approveAs(ctx context.Context, who, id string) error {
	t.show("postern approve %s   # %s", id, who)
	api, err := t.dialAs(ctx, who)
	if err != nil {
		return err
	}
	_, err = api.approvals.ReviewHold(ctx, connect.NewRequest(&apiv1.ReviewHoldRequest{Id: id, Approve: true, Reason: "order was a duplicate"}))
	return err
}

// dialAs is the API as somebody else of the sample company.
func (t *tour) dialAs(ctx context.Context, who string) (*api, error) {
	as := *t.app
	getenv := t.env.Getenv
	as.env.Getenv = func(name string) string {
		if name == "POSTERN_TOKEN" {
			return getenv("POSTERN_TOKEN_" + strings.ToUpper(who))
		}
		return getenv(name)
	}
	return as.dial(ctx, false)
}

// cut locks carol while she is connected.
func (t *tour) cut(ctx context.Context) error {
	t.title("Carol's contract ends while she is connected. One command, and she is cut off.")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := t.unlockAs(ctx, "ada", "carol"); err != nil {
		return err
	}
	cmd, done, err := t.psql(ctx, "carol", "sales-report", "-A", "-t")
	if err != nil {
		return err
	}
	defer done()
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	if err := cmd.Start(); err != nil {
		return err
	}
	g := run.New(ctx)
	g.Go("psql", func(context.Context) error {
		_ = cmd.Wait() // it is cut off: how it ends is what we show
		return writer.Close()
	})
	t.show("psql user=sales-report.warehouse   # carol\n     SELECT count(*) FROM orders;")
	if _, err := io.WriteString(in, "SELECT count(*) FROM orders;\n"); err != nil {
		return err
	}
	lines := bufio.NewScanner(reader)
	if lines.Scan() {
		fmt.Fprintln(t.env.Stdout, indent(lines.Text()))
	}
	if err := t.lockAs(ctx, "ada", "carol"); err != nil {
		return err
	}
	_, _ = io.WriteString(in, "SELECT count(*) FROM orders;\n")
	_ = in.Close()
	for lines.Scan() {
		fmt.Fprintln(t.env.Stdout, indent(lines.Text()))
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return t.unlockAs(ctx, "ada", "carol")
}

func (t *tour) lockAs(ctx context.Context, who, subject string) error {
	t.show("postern lock --subject %s --reason 'contract ended'   # %s", subject, who)
	api, err := t.dialAs(ctx, who)
	if err != nil {
		return err
	}
	o := newLock()
	o.GetLock().Spec.Subject, o.GetLock().Spec.Reason = subject, "contract ended"
	_, err = api.policy.Create(ctx, connect.NewRequest(&apiv1.CreateRequest{Object: o}))
	return err
}

// unlockAs lifts every lock of a subject: what the tour did, and what somebody did before it.
func (t *tour) unlockAs(ctx context.Context, who, subject string) error {
	api, err := t.dialAs(ctx, who)
	if err != nil {
		return err
	}
	all, err := api.policy.List(ctx, connect.NewRequest(&apiv1.ListRequest{Kind: "lock"}))
	if err != nil {
		return err
	}
	for _, o := range all.Msg.GetObjects() {
		if o.GetLock().GetSpec().GetSubject() != subject {
			continue
		}
		name := o.GetLock().GetMetadata().GetName()
		t.show("postern unlock %s   # %s", name, who)
		if _, err := api.policy.Delete(ctx, connect.NewRequest(&apiv1.DeleteRequest{Kind: "lock", Name: name})); err != nil {
			return err
		}
	}
	return nil
}

// host shows commands on the sample host, where there is one.
func (t *tour) host(ctx context.Context) error {
	if t.env.Getenv("POSTERN_SSH") == "" {
		return nil // it needs an sshd
	}
	if _, err := exec.LookPath("ssh"); err != nil {
		return nil // and a client
	}
	t.title("A host is reached in the same way. Each command is judged as a shell would read it, and each file by its path.")
	for _, line := range []string{"systemctl status shop", "systemctl status shop; id"} {
		t.show("postern ssh web-status -- '%s'   # alice", line)
		if err := t.postern(ctx, "alice", "ssh", "web-status", "--", "-T", line); err != nil {
			return err
		}
	}
	return nil
}

// service asks the sample HTTP service, where there is a client.
func (t *tour) service(ctx context.Context) error {
	if _, err := exec.LookPath("curl"); err != nil || t.env.Getenv("POSTERN_HTTP") == "" {
		return nil
	}
	t.title("So is an HTTP service. Its key is put in at the node, and what confidential fields hold is masked in the answer.")
	for _, args := range [][]string{{"/api/orders/8"}, {"-X", "DELETE", "/api/orders/8"}} {
		t.show("postern curl read-orders -- %s   # alice", strings.Join(args, " "))
		if err := t.postern(ctx, "alice", slices.Concat([]string{"curl", "read-orders", "--", "-s"}, args)...); err != nil {
			return err
		}
	}
	t.title("Agents call tools of such a service by MCP. Each call is judged by itself; a refusal is an error that a model can read.")
	const call = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_order","arguments":{"id":8}}}`
	t.show("postern curl orders-agent -- /mcp --json '%s'   # an agent of alice's", call)
	return t.postern(ctx, "alice", "curl", "orders-agent", "--", "-s", "/mcp", "--json", call)
}

// postern runs this program as a person and shows what comes back.
func (t *tour) postern(ctx context.Context, who string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), "POSTERN_ADDR="+t.addr, "POSTERN_CA="+t.ca, "POSTERN_HOME="+t.home, "POSTERN_TOKEN="+t.env.Getenv("POSTERN_TOKEN_"+strings.ToUpper(who)))
	out, err := cmd.CombinedOutput()
	fmt.Fprintln(t.env.Stdout, indent(string(out)))
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil // a refusal is part of the tour
	}
	return err
}

// replayed shows alice's deletion as it was recorded, and proves it.
func (t *tour) replayed(ctx context.Context) error {
	t.title("Everything was recorded. The recording is shown, and proved to be what the node wrote.")
	api, err := t.dialAs(ctx, "bob")
	if err != nil {
		return err
	}
	id, err := t.sealedSession(ctx, api, "purge-order")
	if err != nil {
		return err
	}
	bob := *t.app
	getenv := t.env.Getenv
	bob.env.Getenv = func(name string) string {
		if name == "POSTERN_TOKEN" {
			return getenv("POSTERN_TOKEN_BOB")
		}
		return getenv(name)
	}
	t.show("postern sessions replay %s   # bob, who is an auditor", id)
	var out bytes.Buffer
	bob.env.Stdout = &out
	if err := bob.replay(ctx, id, toReplay, 0); err != nil {
		return err
	}
	fmt.Fprintln(t.env.Stdout, indent(out.String()))
	t.show("postern sessions verify %s", id)
	out.Reset()
	if err := bob.verify(ctx, id, nil); err != nil {
		return err
	}
	fmt.Fprintln(t.env.Stdout, indent(out.String()))
	return nil
}

// sealedSession waits for the newest session of a task to be sealed and stored.
func (t *tour) sealedSession(ctx context.Context, api *api, task string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := api.sessions.ListSessions(ctx, connect.NewRequest(&apiv1.ListSessionsRequest{Task: task, PageSize: 1}))
		if err != nil {
			return "", err
		}
		if all := resp.Msg.GetSessions(); len(all) > 0 && all[0].GetRecording() == "sealed" {
			return all[0].GetId(), nil
		}
		select {
		case <-ctx.Done():
			return "", errors.New("the recording did not arrive")
		case <-tick.C:
		}
	}
}
