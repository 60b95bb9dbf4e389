package main

import (
	"context"
	"fmt"
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
)

func (a *app) connectCmd() *cobra.Command {
	var dryRun bool
	var ttl time.Duration
	var listen string
	var cert bool
	c := &cobra.Command{
		Use: "connect TASK[.RESOURCE] [-- CLIENT ARGS]", Short: "Run the stock client through the nearest node", Args: cobra.MinimumNArgs(1),
		Long: `Takes the task, measures which healthy node that reaches the resource is nearest, and
runs the stock client through it. The token, or with --cert the key of a certificate, is in
a file that only the client reads, never in its arguments or environment. Further nodes are given to the client too, so that it goes
on when the nearest one dies. The client's exit code is passed through.`,
		Example: "  postern connect sales-report.warehouse\n  postern connect web-status -- uptime\n  postern connect sales-report -- -c 'SELECT count(*) FROM orders'\n  postern connect sales-report --listen 127.0.0.1:5433",
		RunE: func(cmd *cobra.Command, args []string) error {
			if listen != "" && cert {
				return usage("--listen shows a token by itself; --cert is for a client that is run")
			}
			if listen != "" {
				return a.listen(cmd.Context(), listen, args[0], ttl)
			}
			return a.connect(cmd.Context(), args[0], args[1:], ttl, dryRun, cert)
		},
	}
	c.Flags().StringVar(&listen, "listen", "", "run no client, but listen here for tools that know neither tokens nor TLS: a loopback address, or a folder for a socket that only you can reach")
	c.Flags().BoolVar(&cert, "cert", false, "let the client show a certificate, made for it alone, instead of a token")
	c.Flags().BoolVar(&dryRun, "print", false, "print what would be run, and where, and run nothing")
	c.Flags().DurationVar(&ttl, "ttl", 0, "how long the grant lasts; at most the task's duration")
	return c
}

func (a *app) psqlCmd() *cobra.Command {
	c := a.connectCmd()
	c.Use, c.Short, c.Long = "psql TASK[.RESOURCE] [-- PSQL ARGS]", "Short for connect, with psql", ""
	c.Example = "  postern psql sales-report -- -c 'SELECT email FROM customers LIMIT 3'"
	return c
}

func (a *app) connect(ctx context.Context, permission string, args []string, ttl time.Duration, dryRun, cert bool) error {
	api, err := a.dial(ctx, false)
	if err != nil {
		return err
	}
	task, resource, protocol, err := a.resolve(ctx, api, permission)
	if err != nil {
		return err
	}
	list, err := a.endpointList(ctx, api, resource)
	if err != nil {
		return err
	}
	nodes, err := nearest(ctx, list, protocol)
	if err != nil {
		return err
	}
	for i, n := range nodes {
		role := "then"
		if i == 0 {
			role = "node"
		}
		if dryRun || isTerminal(a.env.Stderr) {
			a.say("%s %s (%s, %s, %s)", role, n.node.GetNode(), n.node.GetRegion(), n.addr, n.rtt.Round(10*time.Microsecond))
		}
	}
	if protocol == "ssh" {
		return a.connectSSH(ctx, api, task+"."+resource, args, ttl, dryRun, nodes)
	}
	if dryRun {
		_, err := fmt.Fprintf(a.env.Stdout, "psql %s\n", shellQuote(joined(a.conninfo(task+"."+resource, nodes))))
		return err
	}
	program, err := exec.LookPath("psql")
	if err != nil {
		return fmt.Errorf("psql is not on PATH; install it (Debian: postgresql-client)")
	}
	b, err := a.borrow(ctx, api, &apiv1.CreateGrantRequest{Task: task, Ttl: ttlOf(ttl)}, task+"."+resource, nodes, cert)
	if err != nil {
		return err
	}
	defer b.done()
	defer a.giveBack(ctx, api, b.grant)
	// Not bound to ctx: an interrupt is for the client, which cancels its statement with it.
	cmd := exec.Command(program, append([]string{joined(append(a.conninfo(task+"."+resource, nodes), b.conninfo...))}, args...)...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), notForClients), b.env...)
	return a.run(cmd)
}

// borrowed is a grant for one client, and how the client comes to use it.
type borrowed struct {
	grant    string
	conninfo [][2]string
	env      []string
	done     func() // removes what lies in files
}

// borrow takes a task for a client that is about to run, which finds the token or the
// certificate in files that nobody else can read.
func (a *app) borrow(ctx context.Context, api *api, req *apiv1.CreateGrantRequest, user string, nodes []near, cert bool) (*borrowed, error) {
	dir, done, err := a.clientFolder()
	if err != nil {
		return nil, err
	}
	b := &borrowed{done: done}
	var resp *apiv1.CreateGrantResponse
	if cert {
		var files certFiles
		if files, err = filesIn(dir, req.GetTask()); err == nil {
			resp, err = a.certify(ctx, api, req, files)
		}
		b.conninfo = files.conninfo()
	} else {
		var created *connect.Response[apiv1.CreateGrantResponse]
		if created, err = api.grants.CreateGrant(ctx, connect.NewRequest(req)); err == nil {
			resp = created.Msg
			file := filepath.Join(dir, "pgpass")
			err = replace(file, passwords(user, nodes, resp.GetToken()))
			// A certificate for another server, which libpq would show where it finds
			// one, is not shown: there is none at a path below a file.
			b.env = []string{"PGPASSFILE=" + file, "PGSSLCERT=" + filepath.Join(file, "none")}
		}
	}
	b.grant = resp.GetGrant().GetId()
	if err != nil {
		b.done()
		if b.grant != "" {
			a.giveBack(ctx, api, b.grant)
		}
		return nil, err
	}
	return b, nil
}

// clientFolder is a folder for what one run of a client reads, and nobody else can.
func (a *app) clientFolder() (dir string, done func(), err error) {
	if err := os.MkdirAll(a.home, 0o700); err != nil {
		return "", nil, err
	}
	dir, err = os.MkdirTemp(a.home, ".client-*") // 0700
	return dir, func() { _ = os.RemoveAll(dir) }, err
}

// giveBackTimeout bounds how long a command may take to end once its client has.
const giveBackTimeout = 5 * time.Second

// giveBack ends the grant of a client that has ended. One that cannot be given back
// ends by itself.
func (a *app) giveBack(ctx context.Context, api *api, grant string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTimeout)
	defer cancel()
	_, _ = api.grants.RevokeGrant(ctx, connect.NewRequest(&apiv1.RevokeGrantRequest{Id: grant, Reason: "its client has ended"}))
}

// notForClients tells what a client must not inherit: our tokens, and what would lead it
// to another place than the one that was asked for.
func notForClients(kv string) bool {
	name, _, _ := strings.Cut(kv, "=")
	switch name {
	case "PGPASSWORD", "PGPASSFILE", "PGSSLCERT", "PGSSLKEY", "PGSSLCERTMODE", "PGDATABASE", "PGSERVICE", "PGOPTIONS", "PGHOSTADDR":
		return true
	}
	return strings.HasPrefix(name, "POSTERN_TOKEN")
}

// resolve completes TASK to TASK.RESOURCE by what the bindings offer, and says what the
// resource speaks.
func (a *app) resolve(ctx context.Context, api *api, permission string) (task, resource, protocol string, err error) {
	task, resource, _ = strings.Cut(permission, ".")
	resp, err := api.access.ListTasks(ctx, connect.NewRequest(&apiv1.ListTasksRequest{}))
	if err != nil {
		return "", "", "", err
	}
	for _, o := range resp.Msg.GetTasks() {
		if o.GetTask() != task {
			continue
		}
		switch all := o.GetResources(); {
		case resource != "" && slices.Contains(all, resource), resource == "" && len(all) == 1:
			if resource == "" {
				resource = all[0]
			}
			return task, resource, protocolOf(o, resource), nil
		case resource != "":
			return "", "", "", connect.NewError(connect.CodePermissionDenied, fmt.Errorf("task %q does not reach %q; it reaches %s", task, resource, strings.Join(all, ", ")))
		default:
			return "", "", "", usage("task %q reaches %s: say %s.RESOURCE", task, strings.Join(all, ", "), task)
		}
	}
	return "", "", "", connect.NewError(connect.CodePermissionDenied, fmt.Errorf("no binding offers you task %q; postern tasks lists what does", task))
}

// protocolOf is what a resource of an offer speaks. A control plane that does not say is
// older than all protocols but one.
func protocolOf(o *apiv1.TaskOffer, resource string) string {
	if p := o.GetProtocols()[resource]; p != "" {
		return p
	}
	return "postgres"
}

// conninfo is what libpq needs to know, with every node, the nearest first.
func (a *app) conninfo(user string, nodes []near) [][2]string {
	var hosts, ports []string
	for _, n := range nodes {
		h, p, err := net.SplitHostPort(n.addr)
		if err == nil {
			hosts, ports = append(hosts, h), append(ports, p)
		}
	}
	out := [][2]string{
		{"host", strings.Join(hosts, ",")}, {"port", strings.Join(ports, ",")}, {"user", user},
		{"sslmode", "verify-full"}, {"connect_timeout", "5"},
	}
	if ca, err := filepath.Abs(a.ca); a.ca != "" && err == nil {
		out = append(out, [2]string{"sslrootcert", ca})
	}
	return out
}

// joined is a connection string.
func joined(pairs [][2]string) string {
	var quoted []string
	for _, kv := range pairs {
		quoted = append(quoted, kv[0]+"="+quote(kv[1]))
	}
	return strings.Join(quoted, " ")
}

// quote writes a value as it stands in a connection string.
func quote(v string) string {
	if v != "" && !strings.ContainsAny(v, " \t\n\\'") {
		return v
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

// passwords is a password file of libpq, with a token for each node.
func passwords(user string, nodes []near, token string) []byte {
	var b []byte
	for _, n := range nodes {
		h, p, err := net.SplitHostPort(n.addr)
		if err == nil {
			b = fmt.Appendf(b, "%s:%s:*:%s:%s\n", strings.ReplaceAll(h, ":", `\:`), p, user, token)
		}
	}
	return b
}

func (a *app) configCmd() *cobra.Command {
	c := group("config", "Configuration for stock clients")
	var file, dir string
	pg := &cobra.Command{
		Use: "pg", Short: "A pg_service.conf entry for each of my PostgreSQL tasks", Args: cobra.NoArgs,
		Long: `Prints a pg_service.conf entry for each PostgreSQL task: every node that reaches the
resource, nearest first, so that libpq goes on to the next when one is down. The password
is a token: PGPASSWORD=$(postern token). With --cert each entry shows the certificate that
postern grant TASK --cert makes in the same folder, and needs no password.`,
		Example: "  postern config pg --file ~/.pg_service.conf\n  PGPASSWORD=$(postern token) psql service=sales-report.warehouse",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.configPG(cmd.Context(), file, dir) },
	}
	pg.Flags().StringVar(&file, "file", "", "write to this file; standard output where it is not given")
	pg.Flags().StringVar(&dir, "cert", "", "folder of client certificates")
	c.AddCommand(pg, a.configSSHCmd())
	return c
}

func (a *app) configPG(ctx context.Context, file, dir string) error {
	api, err := a.dial(ctx, false)
	if err != nil {
		return err
	}
	offers, err := a.offers(ctx)
	if err != nil {
		return err
	}
	var out strings.Builder
	for _, o := range offers {
		for _, r := range o.GetResources() {
			if protocolOf(o, r) != "postgres" {
				continue
			}
			list, err := a.endpointList(ctx, api, r)
			if err != nil {
				return err
			}
			nodes, err := nearest(ctx, list, "postgres")
			if err != nil {
				a.say("%s.%s: %s", o.GetTask(), r, err)
				continue
			}
			fmt.Fprintf(&out, "# %s\n[%s.%s]\n", oneLine(o.GetPurpose(), 70), o.GetTask(), r)
			pairs := a.conninfo(o.GetTask()+"."+r, nodes)
			if dir != "" {
				files, err := filesIn(dir, o.GetTask())
				if err != nil {
					return err
				}
				pairs = append(pairs, files.conninfo()...)
			}
			for _, kv := range pairs {
				fmt.Fprintf(&out, "%s=%s\n", kv[0], kv[1]) // a service file takes values as they are
			}
			fmt.Fprintln(&out)
		}
	}
	if file == "" {
		_, err := fmt.Fprint(a.env.Stdout, out.String())
		return err
	}
	return os.WriteFile(file, []byte(out.String()), 0o600)
}
