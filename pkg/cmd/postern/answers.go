package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

func plural(n int, what string) string { return strconv.Itoa(n) + " " + what }

func (a *app) searchCmd() *cobra.Command {
	req := &apiv1.SearchStatementsRequest{}
	var within period
	var table string
	var limit int
	c := &cobra.Command{
		Use: "search [WORD...]", Short: "Recorded statements, newest first",
		Long: "Recorded statements, newest first. All words must be in the text, in any order; word* stands for all\n" +
			"that begin so. Literals that could tell what a mask hides are not searched: replay the session.",
		Example: "  postern audit search customers --subject carol --since 2d\n  postern audit search --column sales.customers.email --verdict deny",
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Text = strings.Join(args, " ")
			switch {
			case table != "" && req.GetColumn() != "":
				return usage("give --column or --table")
			case table != "":
				req.Column = table
			}
			var err error
			if req.Since, req.Until, err = within.read(); err != nil {
				return err
			}
			return a.statements(cmd.Context(), req, limit)
		},
	}
	f := c.Flags()
	f.StringVar(&req.Subject, "subject", "", "only this subject's")
	f.StringVar(&req.Task, "task", "", "only of this task")
	f.StringVar(&req.Resource, "resource", "", "only on this resource")
	f.StringVar(&req.Account, "account", "", "only with this login on the resource")
	f.StringVar(&req.Node, "node", "", "only through this node")
	f.StringVar(&req.Session, "session", "", "only of this session")
	f.StringVar(&req.Column, "column", "", "only those that used schema.table.column")
	f.StringVar(&table, "table", "", "only those that used schema.table")
	f.StringVar(&req.Role, "role", "", "only where it was used so: out, predicate or write")
	f.StringVar(&req.Verdict, "verdict", "", "only those that ended so: allow, deny or hold")
	within.flags(c)
	f.IntVar(&limit, "limit", 100, "at most this many")
	return c
}

// statements prints recorded statements, the newest first.
func (a *app) statements(ctx context.Context, req *apiv1.SearchStatementsRequest, limit int) error {
	api, err := a.dial(ctx, false)
	if err != nil {
		return err
	}
	var all []*apiv1.RecordedStatement
	err = a.pages(ctx, "searching", limit, func(ctx context.Context, size int32, token string) (int, string, error) {
		req.PageSize, req.PageToken = size, token
		resp, err := api.answers.SearchStatements(ctx, connect.NewRequest(req))
		if err != nil {
			return 0, "", err
		}
		all = append(all, resp.Msg.GetStatements()...)
		return len(resp.Msg.GetStatements()), resp.Msg.GetNextPageToken(), nil
	})
	if err != nil {
		return err
	}
	return printAll(a, all, func(w io.Writer) { showStatements(w, all) })
}

func showStatements(w io.Writer, all []*apiv1.RecordedStatement) {
	var rows [][]string
	for _, s := range all {
		end := s.GetVerdict()
		if s.GetCode() != "" {
			end += ", error " + s.GetCode()
		}
		rows = append(rows, []string{when(s.GetTime()), acting(s), s.GetTask(), s.GetResource(), s.GetSession() + "/" + strconv.FormatInt(s.GetNumber(), 10),
			end, strconv.FormatInt(s.GetRows(), 10), oneLine(s.GetText(), 100)})
	}
	table(w, "when who task resource session verdict rows statement", rows)
}

func (a *app) whoCmd() *cobra.Command {
	req := &apiv1.WhoUsedRequest{}
	var within period
	var limit int
	var statements bool
	c := &cobra.Command{
		Use: "who COLUMN|TABLE|PATH|RESOURCE", Short: "Who used a column, a table, a path of a service, a tool or a resource", Args: cobra.ExactArgs(1),
		Long: "Who used schema.table.column, schema.table or a resource, one line a session, by the last use. What * stands\n" +
			"for and what conditions look at counts; a view counts under its own name. RESOURCE:COLUMN asks about one resource.\n" +
			"Of services it is the path, with ? for each part that may be a value; a call of gRPC has its own name, and a tool\n" +
			"or prompt of MCP stands behind the path of its server. What nothing on record has ever used is an error, for\n" +
			"the name may be wrong.",
		Example: "  postern audit who sales.customers.email --since 2026-01-06T00:00:00Z --until 2026-01-07T00:00:00Z\n" +
			"  postern audit who warehouse:sales.customers.email --role predicate --statements\n" +
			"  postern audit who orders-api:/orders/?\n" +
			"  postern audit who 'tickets:/mcp refund'",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if resource, rest, ok := strings.Cut(name, ":"); ok && !strings.HasPrefix(name, "/") {
				req.Resource, name = resource, rest
			}
			if strings.Contains(name, ".") || strings.HasPrefix(name, "/") {
				req.Name = name
			} else if req.GetResource() == "" {
				req.Resource = name
			} else if name != "" {
				return usage("%q is neither schema.table.column, schema.table nor a path", name)
			}
			var err error
			if req.Since, req.Until, err = within.read(); err != nil {
				return err
			}
			if statements {
				return a.statements(cmd.Context(), &apiv1.SearchStatementsRequest{Column: req.GetName(), Resource: req.GetResource(),
					Subject: req.GetSubject(), Role: req.GetRole(), Since: req.GetSince(), Until: req.GetUntil()}, limit)
			}
			return a.who(cmd.Context(), req, limit)
		},
	}
	f := c.Flags()
	f.StringVar(&req.Subject, "subject", "", "only this subject")
	f.StringVar(&req.Resource, "resource", "", "only on this resource")
	f.StringVar(&req.Role, "role", "", "only where it was used so: out, predicate or write")
	f.BoolVar(&statements, "statements", false, "show each statement")
	within.flags(c)
	f.IntVar(&limit, "limit", maxPage, "at most this many")
	return c
}

func (a *app) who(ctx context.Context, req *apiv1.WhoUsedRequest, limit int) error {
	api, err := a.dial(ctx, false)
	if err != nil {
		return err
	}
	var all []*apiv1.SessionUse
	err = a.pages(ctx, "searching", limit, func(ctx context.Context, size int32, token string) (int, string, error) {
		req.PageSize, req.PageToken = size, token
		resp, err := api.answers.WhoUsed(ctx, connect.NewRequest(req))
		if err != nil {
			return 0, "", err
		}
		all = append(all, resp.Msg.GetUses()...)
		return len(resp.Msg.GetUses()), resp.Msg.GetNextPageToken(), nil
	})
	if err != nil {
		return err
	}
	return printAll(a, all, func(w io.Writer) {
		var rows [][]string
		for _, u := range all {
			rows = append(rows, []string{acting(u), u.GetTask(), u.GetResource(), strings.Join(u.GetRoles(), ","), masks(u.GetMasks()),
				strconv.FormatInt(u.GetStatements(), 10), when(u.GetFirstTime()), when(u.GetLastTime()), u.GetAccount(), u.GetClientAddress(), u.GetClientProgram(), u.GetNode(), u.GetSession()})
		}
		table(w, "who task resource used masks statements first last account from program node session", rows)
	})
}

// masks tells how a column was read; a relation has none.
func masks(all []string) string {
	out := make([]string, len(all))
	for i, m := range all {
		if out[i] = m; m == "" {
			out[i] = "unmasked"
		}
	}
	return strings.Join(out, ",")
}

func (a *app) usageCmd() *cobra.Command {
	req := &apiv1.GetUsageRequest{}
	var from, unused string
	c := &cobra.Command{
		Use: "usage [NAME]", Short: "By what and from where a subject, resource, account or workload is used", Args: cobra.MaximumNArgs(1),
		Long: "By what and from where a subject, resource, account or workload is used: every task, resource, account,\n" +
			"node, source address and client program, with the first and the last use. What the workloads of a person\n" +
			"do is told of the person too. --unused lists standing bindings that nobody has taken for so long.",
		Example: "  postern usage svc-x\n  postern usage --account app_rw --since 30d\n  postern usage --unused 90d",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				req.Name = args[0]
			}
			var err error
			if req.Since, err = since(from); err != nil {
				return err
			}
			if unused != "" {
				t, err := since(unused)
				if err != nil {
					return err
				}
				req.Unused = durationpb.New(time.Since(t.AsTime()))
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			var resp *connect.Response[apiv1.GetUsageResponse]
			err = a.busy(cmd.Context(), "looking", nil, func(ctx context.Context) (err error) {
				resp, err = api.answers.GetUsage(ctx, connect.NewRequest(req))
				return err
			})
			if err != nil {
				return err
			}
			if resp.Msg.GetTruncated() {
				a.say("there is more than can be told at once: narrow the question")
			}
			if unused != "" {
				return printAll(a, resp.Msg.GetUnused(), func(w io.Writer) { showUnused(w, resp.Msg.GetUnused()) })
			}
			return printAll(a, resp.Msg.GetUsage(), func(w io.Writer) { showUsage(w, resp.Msg.GetUsage()) })
		},
	}
	f := c.Flags()
	f.StringVar(&req.Subject, "subject", "", "only this subject")
	f.StringVar(&req.Task, "task", "", "only this task")
	f.StringVar(&req.Resource, "resource", "", "only this resource")
	f.StringVar(&req.Account, "account", "", "only this login on resources")
	f.StringVar(&req.Workload, "workload", "", "only this workload")
	f.StringVar(&from, "since", "", "only sessions that lived since: a duration before now, or an RFC 3339 time")
	f.StringVar(&unused, "unused", "", "bindings that nobody has taken for so long, such as 90d")
	return c
}

func showUsage(w io.Writer, all []*apiv1.Usage) {
	var rows [][]string
	for _, u := range all {
		who := u.GetSubject()
		if u.GetWorkload() != "" && u.GetWorkload() != who {
			who += " (" + u.GetWorkload() + ")"
		}
		if u.GetOwner() != "" {
			who += ", " + u.GetOwner() + "'s"
		}
		rows = append(rows, []string{questioned(who, u.GetDoubted()), u.GetTask(), u.GetResource(), u.GetAccount(), u.GetNode(), u.GetClientHost(), u.GetClientProgram(),
			fmt.Sprintf("%d", u.GetSessions()), fmt.Sprintf("%d", u.GetStatements()), when(u.GetFirstTime()), when(u.GetLastTime())})
	}
	table(w, "who task resource account node from program sessions statements first last", rows)
}

func showUnused(w io.Writer, all []*apiv1.UnusedBinding) {
	var rows [][]string
	for _, u := range all {
		last := "never, as far as recordings tell"
		if u.GetLastTime() != nil {
			last = when(u.GetLastTime())
		}
		rows = append(rows, []string{u.GetBinding(), u.GetTask(), last})
	}
	table(w, "binding task last", rows)
}
