package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) configCmd() *cobra.Command {
	c := group("config", "Configuration for stock clients")
	var file, dir string
	pg := &cobra.Command{
		Use: "pg", Short: "A pg_service.conf entry for each of my PostgreSQL tasks", Args: cobra.NoArgs,
		Long: `Prints a pg_service.conf entry for each PostgreSQL task: every node that reaches the
resource, nearest first, so that libpq goes on to the next when one is down. The password
is a token: PGPASSWORD=$(postern token). With --cert each entry shows the certificate that
postern grant TASK --cert makes in the same folder, and needs no password.`,
		Example: "  postern config pg --file ~/.postern.conf\n  PGSERVICEFILE=~/.postern.conf PGPASSWORD=$(postern token) psql service=sales-report.warehouse",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.configPG(cmd.Context(), file, dir) },
	}
	pg.Flags().StringVar(&file, "file", "", "write to this file; standard output where it is not given")
	pg.Flags().StringVar(&dir, "cert", "", "folder of client certificates")
	c.AddCommand(pg, a.configSSHCmd())
	return c
}

func (a *app) configPG(ctx context.Context, file, dir string) error {
	var out strings.Builder
	err := a.eachTarget(ctx, "postgres", func(to target, purpose string, nodes []near) error {
		fmt.Fprintf(&out, "# %s\n[%s]\n", purpose, to.user())
		pairs := a.conninfo(to.user(), nodes)
		if dir != "" {
			files, err := filesIn(dir, to.task)
			if err != nil {
				return err
			}
			pairs = append(pairs, files.conninfo()...)
		}
		for _, kv := range pairs {
			fmt.Fprintf(&out, "%s=%s\n", kv[0], kv[1]) // a service file takes values as they are
		}
		fmt.Fprintln(&out)
		return nil
	})
	if err != nil {
		return err
	}
	return a.writeConfig(file, out.String())
}

// eachTarget calls fn with what the caller's tasks reach by a protocol, what for, in a
// line, and the nodes that answer. Of targets that no node reaches it tells.
func (a *app) eachTarget(ctx context.Context, protocol string, fn func(to target, purpose string, nodes []near) error) error {
	api, err := a.dial(ctx, false)
	if err != nil {
		return err
	}
	offers, err := offers(ctx, api)
	if err != nil {
		return err
	}
	found := false
	for _, o := range offers {
		for _, r := range o.GetResources() {
			to := target{o.GetTask(), r, protocolOf(o, r)}
			if to.protocol != protocol {
				continue
			}
			found = true
			nodes, err := a.nearest(ctx, api, to.resource, to.protocol)
			if unreachable(err) {
				a.say("%s: %s", to.user(), err)
				continue
			}
			if err == nil {
				err = fn(to, tamed(oneLine(o.GetPurpose(), 70)), nodes)
			}
			if err != nil {
				return err
			}
		}
	}
	if !found {
		a.say("no task of yours reaches anything by %s: postern tasks", protocol)
	}
	return nil
}

// ours is how a file begins that writeConfig has written.
const ours = "# Written by postern config, and anew each time.\n"

// writeConfig writes a configuration to a file that only the user can read, or to
// standard output. A file in which people keep entries of their own stays as it is.
func (a *app) writeConfig(file, text string) error {
	if file == "" {
		_, err := fmt.Fprint(a.env.Stdout, text)
		return err
	}
	if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Size() > 0 {
		there, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(string(there), ours) {
			return fail(exitUsage, "give a file of its own, or add to it what postern config prints without --file", "%s was not written by postern config, and is left as it is", file)
		}
	}
	return os.WriteFile(file, []byte(ours+"\n"+text), 0o600)
}
