package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
)

func (a *app) requestCmd() *cobra.Command {
	var reason string
	var ttl time.Duration
	var wait, extend bool
	c := &cobra.Command{
		Use: "request TASK", Short: "Ask people for a task", Args: cobra.ExactArgs(1),
		Example: `  postern request schema-change --reason "INC-42: add an index" --for 30m --wait`,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.grants.RequestGrant(cmd.Context(), connect.NewRequest(&apiv1.RequestGrantRequest{Task: args[0], Reason: reason, Ttl: ttlOf(ttl), Extend: extend}))
			if err != nil {
				return err
			}
			g, h := resp.Msg.GetGrant(), resp.Msg.GetHold()
			if h != nil && wait {
				a.say("waiting for %s to approve %s", strings.Join(h.GetApproverGroups(), " and "), h.GetId())
				if g, err = a.waitForGrant(cmd.Context(), api, g.GetId()); err != nil {
					return err
				}
				h = nil
			}
			resp.Msg.Grant, resp.Msg.Hold = g, h
			if err := a.print(resp.Msg, func(w io.Writer) {
				if h != nil {
					fmt.Fprintf(w, "%s asked for: %s must approve %s before %s\n", g.GetTask(), strings.Join(h.GetApproverGroups(), " and "), h.GetId(), when(h.GetExpireTime()))
					return
				}
				fmt.Fprintf(w, "%s granted until %s (%s)\n", g.GetTask(), when(g.GetEndTime()), g.GetId())
			}); err != nil {
				return err
			}
			if h != nil {
				return fail(exitApproval, "postern requests "+h.GetId()+", or ask with --wait", "approval pending: %s", h.GetId())
			}
			return nil
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why; shown to those who approve")
	forFlag(c, &ttl, "how long; at most the task's duration")
	c.Flags().BoolVar(&wait, "wait", false, "wait for the answer")
	c.Flags().BoolVar(&extend, "extend", false, "ask for more time: anew, while what I have goes on until its end")
	return c
}

// forFlag is --for: how long something is good. It was --ttl in some commands, and is taken
// as that everywhere.
func forFlag(c *cobra.Command, ttl *time.Duration, text string) {
	f := c.Flags()
	f.Var((*span)(ttl), "for", text+" (--ttl is the same)")
	f.Var((*span)(ttl), "ttl", "the same as --for")
	_ = f.MarkHidden("ttl")
}

// A span is a flag for how long something lasts, with the units that tasks have: 30d, 8h.
type span time.Duration

func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return time.Duration(*s).String()
}

func (s *span) Set(text string) error {
	d, err := policy.ParseDuration(text)
	*s = span(d)
	return err
}

func (s *span) Type() string { return "duration" }

func ttlOf(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// pollEvery is how often a waiting command looks again.
const pollEvery = time.Second

func (a *app) waitForGrant(ctx context.Context, api *api, id string) (*typesv1.Grant, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		resp, err := api.grants.GetGrant(ctx, connect.NewRequest(&apiv1.GetGrantRequest{Id: id}))
		if err != nil {
			return nil, err
		}
		switch g := resp.Msg.GetGrant(); g.GetState() {
		case typesv1.GrantState_GRANT_STATE_ACTIVE:
			return g, nil
		case typesv1.GrantState_GRANT_STATE_ASKED:
		default:
			return nil, fail(exitApproval, "", "refused: %s", g.GetEndReason())
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

func (a *app) grantCmd() *cobra.Command {
	var reason, tokenFile, forFile, dir, sshDir string
	var reuse bool
	var ttl time.Duration
	c := &cobra.Command{
		Use: "grant TASK", Short: "Take a task now, and print a short-lived token for it", Args: cobra.ExactArgs(1),
		Long: `Take a task now, and print a short-lived token that is good for it alone. Automation
gives its own OIDC token in --token-file and needs no login. An agent that was given
somebody's token (postern token, or a grant token) gives that in --for-file: the grant is
theirs, and says in every record that the agent acts for them.

With --cert a client certificate takes the token's place: its key is made here and never
leaves, the folder gets TASK.key, TASK.crt and ca.crt, which only you can read, and what
is printed is where libpq finds them.

With --ssh it is an SSH certificate: the folder gets TASK, TASK-cert.pub and a known_hosts
by which all nodes are trusted, and what is printed are the options of ssh.`,
		Annotations: map[string]string{formatsOf: "env exec-credential pgpass"},
		Example:     "  postern grant nightly-load --for 15m --token-file $CI_TOKEN --format env\n  PGPASSWORD=$(postern grant sales-report) psql ...\n  psql \"host=node dbname=warehouse sslmode=verify-full $(postern grant sales-report --cert ~/.postern)\"\n  ssh $(postern grant web-status --ssh ~/.postern/ssh) -p 2222 node uptime",
		RunE: func(cmd *cobra.Command, args []string) error {
			signal.Ignore(syscall.SIGPIPE) // nobody would be told of the grant
			req := &apiv1.CreateGrantRequest{Task: args[0], Ttl: ttlOf(ttl), Reason: reason}
			if tokenFile != "" {
				b, err := os.ReadFile(tokenFile)
				if err != nil {
					return err
				}
				req.WorkloadToken = strings.TrimSpace(string(b))
			}
			if forFile != "" {
				b, err := os.ReadFile(forFile)
				if err != nil {
					return err
				}
				req.SubjectToken = strings.TrimSpace(string(b))
			}
			api, err := a.dial(cmd.Context(), tokenFile != "")
			if err != nil {
				return err
			}
			switch {
			case dir != "" && sshDir != "":
				return usage("--cert and --ssh are different certificates: take one")
			case sshDir != "":
				return a.grantSSH(cmd.Context(), api, req, sshDir, reuse)
			case dir != "":
				return a.grantCert(cmd.Context(), api, req, dir)
			}
			resp, err := api.grants.CreateGrant(cmd.Context(), connect.NewRequest(req))
			if err != nil {
				return err
			}
			return made(resp.Msg, a.printGrant(resp.Msg))
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why")
	forFlag(c, &ttl, "how long; at most the task's duration")
	c.Flags().StringVar(&tokenFile, "token-file", "", "file with the workload's own OIDC token")
	c.Flags().StringVar(&forFile, "for-file", "", "with --token-file: file with the token of the person for whom the workload acts")
	c.Flags().StringVar(&dir, "cert", "", "folder for a client certificate, which is made instead of a token")
	c.Flags().StringVar(&sshDir, "ssh", "", "folder for an SSH certificate, which is made instead of a token")
	c.Flags().BoolVar(&reuse, "reuse", false, "with --ssh: do nothing while the certificate that is there is good for two minutes")
	return c
}

// made tells of a grant what came of which could not be handed over: it goes on.
func made(r *apiv1.CreateGrantResponse, err error) error {
	if err == nil || r == nil {
		return err
	}
	id := r.GetGrant().GetId()
	return fail(exitFailed, "postern revoke "+id+" --reason \"not received\"; it ends by itself at "+when(r.GetGrant().GetEndTime()), "grant %s was made, and could not be handed over: %w", id, err)
}

// grantCert takes a task for a certificate, whose key is made here.
func (a *app) grantCert(ctx context.Context, api *api, req *apiv1.CreateGrantRequest, dir string) (err error) {
	if a.format == "pgpass" || a.format == "exec-credential" {
		return usage("--format %s is for tokens, and --cert makes none", a.format)
	}
	files, err := filesIn(dir, req.GetTask())
	if err != nil {
		return err
	}
	resp, err := a.certify(ctx, api, req, files)
	defer func() { err = made(resp, err) }()
	if err != nil {
		return err
	}
	switch a.format {
	case "env":
		_, err := fmt.Fprintf(a.env.Stdout, "export POSTERN_TASK='%s'\nexport PGUSER='%s'\nexport PGSSLCERT=%s\nexport PGSSLKEY=%s\nexport PGSSLROOTCERT=%s\n",
			req.GetTask(), permission(resp), shellQuote(files.cert), shellQuote(files.key), shellQuote(files.root))
		return err
	case "text":
		words := []string{"user=" + permission(resp)}
		for _, kv := range append(files.conninfo(), [2]string{"sslrootcert", files.root}) {
			words = append(words, kv[0]+"="+quote(kv[1]))
		}
		_, err := fmt.Fprintln(a.env.Stdout, strings.Join(words, " "))
		return err
	}
	return a.print(resp, nil)
}

// certify takes a task for a certificate and writes what it takes to show it.
func (a *app) certify(ctx context.Context, api *api, req *apiv1.CreateGrantRequest, files certFiles) (*apiv1.CreateGrantResponse, error) {
	key, err := newClientKey()
	if err != nil {
		return nil, err
	}
	req.Csr = key.csr
	resp, err := api.grants.CreateGrant(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg, a.write(files, key, resp.Msg.GetCertificate())
}

// shellQuote writes a value as one word of a shell.
func shellQuote(v string) string { return "'" + strings.ReplaceAll(v, "'", `'\''`) + "'" }

func (a *app) printGrant(r *apiv1.CreateGrantResponse) error {
	g := r.GetGrant()
	switch a.format {
	case "text":
		_, err := fmt.Fprintln(a.env.Stdout, r.GetToken())
		return err
	case "env":
		_, err := fmt.Fprintf(a.env.Stdout, "export POSTERN_TASK='%s'\nexport PGUSER='%s'\nexport PGPASSWORD='%s'\n", g.GetTask(), permission(r), r.GetToken())
		return err
	case "pgpass":
		host, port := "*", "*"
		if h, p, err := net.SplitHostPort(a.env.Getenv("POSTERN_PG")); err == nil {
			host, port = h, p
		}
		_, err := a.env.Stdout.Write(appendPassword(nil, host, port, permission(r), r.GetToken()))
		return err
	case "exec-credential":
		js, err := json.MarshalIndent(map[string]any{
			"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
			"status": map[string]any{"token": r.GetToken(), "expirationTimestamp": g.GetEndTime().AsTime().Format(time.RFC3339)},
		}, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.env.Stdout, string(js))
		return err
	}
	return a.print(r, nil)
}

// permission is what a client gives as its user: TASK, or TASK.RESOURCE where a task
// reaches several and the first is meant.
func permission(r *apiv1.CreateGrantResponse) string {
	if len(r.GetResources()) == 1 {
		return r.GetGrant().GetTask() + "." + r.GetResources()[0]
	}
	return r.GetGrant().GetTask()
}

func (a *app) grantsCmd() *cobra.Command {
	var subject string
	var all bool
	c := &cobra.Command{
		Use: "grants", Short: "My grants; everybody's for operators", Example: "  postern grants\n  postern grants --subject alice --all", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.grants.ListGrants(cmd.Context(), connect.NewRequest(&apiv1.ListGrantsRequest{Subject: subject, Active: !all}))
			if err != nil {
				return err
			}
			return printAll(a, resp.Msg.GetGrants(), func(w io.Writer) {
				var rows [][]string
				for _, g := range resp.Msg.GetGrants() {
					rows = append(rows, []string{g.GetId(), g.GetSubject().GetName(), g.GetTask(), grantState(g), when(g.GetStartTime()), when(g.GetEndTime()), g.GetReason()})
				}
				table(w, "id subject task state from until reason", rows)
			})
		},
	}
	c.Flags().StringVar(&subject, "subject", "", "only this subject's")
	c.Flags().BoolVar(&all, "all", false, "also those that are over")
	return c
}

func grantState(g *typesv1.Grant) string {
	return strings.ToLower(strings.TrimPrefix(g.GetState().String(), "GRANT_STATE_"))
}

func (a *app) revokeCmd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "revoke GRANT", Short: "End a grant and every session under it", Args: cobra.ExactArgs(1),
		Example: `  postern revoke g-3f9a... --reason "contract ended"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.grants.RevokeGrant(cmd.Context(), connect.NewRequest(&apiv1.RevokeGrantRequest{Id: args[0], Reason: reason}))
			if err != nil {
				return err
			}
			err = a.print(resp.Msg, func(w io.Writer) { fmt.Fprintf(w, "%s ended\n", resp.Msg.GetGrant().GetId()) })
			if err != nil {
				return err
			}
			receipt, err := a.receipt(cmd.Context(), api, resp.Msg.GetVersion())
			showReceipt(&tame{w: a.env.Stderr}, receipt)
			return err
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why; shown to the person who is cut off")
	_ = c.MarkFlagRequired("reason")
	return c
}
