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

// client is how connect and its short forms run a stock client.
type client struct {
	speaks string // the one protocol it is for; any where empty
	ttl    time.Duration
	listen string
	cert   bool
	print  bool
}

func (a *app) connectCmd() *cobra.Command { return a.clientCmd(client{}) }

func (a *app) clientCmd(cl client) *cobra.Command {
	c := &cobra.Command{
		Use: "connect TASK[.RESOURCE] [-- CLIENT ARGS]", Short: "Run the stock client through the nearest node", Args: cobra.MinimumNArgs(1),
		Long: `Takes the task, measures which healthy node that reaches the resource is nearest, and
runs the stock client through it. The token, or with --cert the key of a certificate, is in
a file that only the client reads, never in its arguments or environment. Further nodes are
given to psql too, so that it goes on when the nearest one dies. The client's exit code is
passed through.`,
		Example: "  postern connect sales-report.warehouse\n  postern connect web-status -- uptime\n  postern connect read-orders -- /api/orders/7\n  postern connect sales-report -- -c 'SELECT count(*) FROM orders'\n  postern connect sales-report --listen 127.0.0.1:5433",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case cl.listen != "" && cl.cert:
				return usage("--listen shows a token by itself; --cert is for a client that is run")
			case cl.listen != "" && cl.print:
				return usage("--print runs nothing, and --listen runs no client")
			case cl.listen != "":
				return a.listen(cmd.Context(), cl.listen, args[0], cl.ttl)
			}
			return a.connect(cmd.Context(), args[0], args[1:], cl)
		},
	}
	c.Flags().BoolVar(&cl.print, "print", false, "print what would be run, and where, and run nothing")
	forFlag(c, &cl.ttl, "how long the grant lasts; at most the task's duration")
	if cl.speaks == "ssh" { // which has a certificate of its own
		return c
	}
	c.Flags().StringVar(&cl.listen, "listen", "", "run no client, but listen here for tools that know neither tokens nor TLS: a loopback address, or a folder for a socket that only you can reach")
	c.Flags().BoolVar(&cl.cert, "cert", false, "let psql show a certificate, made for it alone, instead of a token")
	return c
}

func (a *app) psqlCmd() *cobra.Command {
	c := a.clientCmd(client{speaks: "postgres"})
	c.Use, c.Short, c.Long = "psql TASK[.RESOURCE] [-- PSQL ARGS]", "Short for connect, with psql", ""
	c.Example = "  postern psql sales-report -- -c 'SELECT email FROM customers LIMIT 3'"
	return c
}

// clientOf names the command for each protocol.
var clientOf = map[string]string{"postgres": "psql", "ssh": "ssh", "http": "curl"}

func (a *app) connect(ctx context.Context, permission string, args []string, cl client) error {
	api, err := a.dial(ctx, false)
	if err != nil {
		return err
	}
	to, err := a.resolve(ctx, api, permission)
	if err != nil {
		return err
	}
	switch {
	case cl.speaks != "" && cl.speaks != to.protocol:
		return to.wrongClient()
	case to.protocol == "http" && cl.cert:
		return usage("--cert is for psql, and %s speaks http", to.resource)
	case to.protocol == "http":
		return a.curl(ctx, api, to, args, cl)
	}
	nodes, err := a.nearest(ctx, api, to.resource, to.protocol)
	if err != nil {
		return err
	}
	for i, n := range nodes {
		role := "then"
		if i == 0 {
			role = "node"
		}
		if cl.print || isTerminal(a.env.Stderr) {
			a.say("%s %s (%s, %s, %s)", role, n.node.GetNode(), n.node.GetRegion(), n.addr, n.rtt.Round(10*time.Microsecond))
		}
	}
	if to.protocol == "ssh" {
		return a.connectSSH(ctx, api, to, args, cl, nodes)
	}
	if cl.print {
		_, err := fmt.Fprintf(a.env.Stdout, "psql %s\n", shellQuote(joined(a.conninfo(to.user(), nodes))))
		return err
	}
	program, err := stockClient("psql", "postgresql-client")
	if err != nil {
		return err
	}
	b, err := a.borrow(ctx, api, &apiv1.CreateGrantRequest{Task: to.task, Ttl: ttlOf(cl.ttl)}, to.user(), nodes, cl.cert)
	if err != nil {
		return err
	}
	defer b.done()
	defer a.giveBack(ctx, api, b.grant)
	// Not bound to ctx: an interrupt is for the client, which cancels its statement with it.
	cmd := exec.Command(program, append([]string{joined(append(a.conninfo(to.user(), nodes), b.conninfo...))}, args...)...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), notForClients), b.env...)
	return a.run(cmd)
}

// stockClient finds a program, or says which package of Debian has it.
func stockClient(name, debian string) (string, error) {
	program, err := exec.LookPath(name)
	if err != nil {
		return "", fail(exitFailed, "install it (Debian: "+debian+")", "%s is not on PATH", name)
	}
	return program, nil
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

// clientFolder is a folder for what one run of a client reads, and nobody else can. Where there
// is none for settings, or it cannot be written, it lies among temporary files.
func (a *app) clientFolder() (dir string, done func(), err error) {
	home, err := a.settings()
	if err == nil {
		err = os.MkdirAll(home, 0o700)
	}
	if err == nil {
		dir, err = os.MkdirTemp(home, ".client-*") // 0700
	}
	if err != nil {
		dir, err = os.MkdirTemp("", "postern-client-*") // 0700, too
	}
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

// target is what a permission reaches.
type target struct{ task, resource, protocol string }

// user is the name under which a client logs in at a node.
func (t target) user() string { return t.task + "." + t.resource }

// wrongClient says which command speaks what the target speaks.
func (t target) wrongClient() error {
	if c := clientOf[t.protocol]; c != "" {
		return fail(exitUsage, "postern "+c+" "+t.user(), "%s speaks %s, which this command does not", t.resource, t.protocol)
	}
	return fail(exitUsage, "a newer postern may have a client for it", "%s speaks %s, for which this release has no client", t.resource, t.protocol)
}

// resolve completes TASK to TASK.RESOURCE by what the bindings offer, and says what the
// resource speaks.
func (a *app) resolve(ctx context.Context, api *api, permission string) (target, error) {
	task, resource, _ := strings.Cut(permission, ".")
	offers, err := offers(ctx, api)
	if err != nil {
		return target{}, err
	}
	for _, o := range offers {
		if o.GetTask() != task {
			continue
		}
		all := o.GetResources()
		if resource == "" && len(all) == 1 {
			resource = all[0]
		}
		switch {
		case resource == "":
			return target{}, usage("task %q reaches %s: say %s.RESOURCE", task, strings.Join(all, ", "), task)
		case !slices.Contains(all, resource):
			return target{}, fail(exitDenied, "", "task %q does not reach %q; it reaches %s", task, resource, strings.Join(all, ", "))
		}
		return target{task, resource, protocolOf(o, resource)}, nil
	}
	return target{}, notOffered(task)
}

// notOffered says that no binding lets the caller take a task.
func notOffered(task string) error {
	return fail(exitDenied, "postern tasks lists what is offered to you", "no binding offers you task %q", task)
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
			b = appendPassword(b, h, p, user, token)
		}
	}
	return b
}

// appendPassword appends a line of a password file, in which colons of an address are escaped.
func appendPassword(b []byte, host, port, user, token string) []byte {
	return fmt.Appendf(b, "%s:%s:*:%s:%s\n", strings.ReplaceAll(host, ":", `\:`), port, user, token)
}
