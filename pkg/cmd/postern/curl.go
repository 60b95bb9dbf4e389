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

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

func (a *app) curlCmd() *cobra.Command {
	cl := client{speaks: "http"}
	c := &cobra.Command{
		Use: "curl TASK[.RESOURCE] [-- CURL ARGS]", Short: "Run curl at an HTTP resource through the nearest node", Args: cobra.MinimumNArgs(2),
		Long: `Takes the task and runs the stock curl through the nearest node. An argument that begins
with a slash is the path of a request. The token is in a file that only curl reads. curl's
exit code is passed through.`,
		Example: "  postern curl read-orders /api/orders/7\n  postern curl read-orders.orders-api -- -i '/api/orders?status=open'",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.connect(cmd.Context(), args[0], args[1:], cl)
		},
	}
	c.Flags().BoolVar(&cl.print, "print", false, "print what would be run, and run nothing")
	forFlag(c, &cl.ttl, "how long the grant lasts; at most the task's duration")
	return c
}

// curl runs curl with args at an HTTP resource.
func (a *app) curl(ctx context.Context, api *api, to target, args []string, cl client) error {
	if len(args) == 0 {
		return fail(exitUsage, "postern connect "+to.user()+" -- /PATH", "%s speaks http: say what of it", to.resource)
	}
	nodes, err := a.nearest(ctx, api, to.resource, to.protocol)
	if err != nil {
		return err
	}
	words, err := a.curlWords(to, nodes[0].addr)
	if err != nil {
		return err
	}
	base := words[len(words)-1]
	words = words[:len(words)-1]
	for _, arg := range args {
		if strings.HasPrefix(arg, "/") {
			arg = base + arg
		}
		words = append(words, arg)
	}
	if cl.print {
		for i, w := range words {
			words[i] = shellQuote(w)
		}
		_, err := fmt.Fprintln(a.env.Stdout, "curl "+strings.Join(words, " "))
		return err
	}
	program, err := stockClient("curl", "curl")
	if err != nil {
		return err
	}
	dir, done, err := a.clientFolder()
	if err != nil {
		return err
	}
	defer done()
	resp, err := api.grants.CreateGrant(ctx, connect.NewRequest(&apiv1.CreateGrantRequest{Task: to.task, Ttl: ttlOf(cl.ttl)}))
	if err != nil {
		return err
	}
	defer a.giveBack(ctx, api, resp.Msg.GetGrant().GetId())
	file := filepath.Join(dir, "curlrc")
	if err := replace(file, fmt.Appendf(nil, "oauth2-bearer = \"%s\"\n", resp.Msg.GetToken())); err != nil {
		return err
	}
	// Not bound to ctx: an interrupt is for the client.
	cmd := exec.Command(program, append([]string{"--disable", "--config", file}, words...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), notForClients)
	return a.run(cmd)
}

// curlWords are what curl needs to know of a node, and last the address below which the
// resource's paths are. A node with a name has one for each task below it.
func (a *app) curlWords(to target, addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	var words []string
	if a.ca != "" {
		words = append(words, "--cacert", a.ca)
	}
	if net.ParseIP(host) != nil {
		return append(words, "--header", "Postern-Task: "+to.user(), "https://"+addr), nil
	}
	return append(words, "https://"+net.JoinHostPort(to.task+"--"+to.resource+"."+host, port)), nil
}
