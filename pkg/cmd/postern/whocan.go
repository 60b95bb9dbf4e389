package main

import (
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

func (a *app) whoCanCmd() *cobra.Command {
	return &cobra.Command{
		Use: "who-can VERB RESOURCE:OBJECT[.COLUMN]", Short: "Who may do something, by which task and on what terms", Args: cobra.ExactArgs(2),
		Long: `Who-can lists every binding, task and permit by which something can be done. It is exact in
the data: what is not listed nobody can do. What else must be so (approvals, conditions,
filters of rows) stands in the terms. Groups are as the issuer says them.

In databases: select, insert and update of schema.table or schema.table.column; delete and
truncate of schema.table; call of schema.function; a DDL command in a schema. On hosts:
exec of a command line; shell; read, write and delete of a file; connect and listen. Of
services: a method and a path; websocket and a path; call of package.Service/Method; of
servers of MCP tool, resource or prompt and a name, after a path where there are several.`,
		Example: "  postern who-can select warehouse:sales.customers.email\n  postern who-can 'alter table' warehouse:sales\n  postern who-can exec 'web-1:/usr/bin/systemctl restart shop'\n  postern who-can patch orders-api:/api/orders/7\n  postern who-can tool tickets:refund",
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.Contains(args[1], ".") && !strings.Contains(args[1], ":") { // which no resource's name has
				return fail(exitUsage, "such as warehouse:"+args[1], "%q does not say of which resource", args[1])
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.policy.WhoCan(cmd.Context(), connect.NewRequest(&apiv1.WhoCanRequest{Verb: args[0], Object: args[1]}))
			if err != nil {
				return err
			}
			return a.print(resp.Msg, func(w io.Writer) { showAccess(w, resp.Msg) })
		},
	}
}

func showAccess(w io.Writer, r *apiv1.WhoCanResponse) {
	var rows [][]string
	for _, x := range r.GetAccess() {
		terms := x.GetTerms()
		switch {
		case x.GetUnrestricted():
			terms = append(terms, "everything is allowed, unmasked")
		case x.GetMask() != "":
			terms = append(terms, "masked by "+x.GetMask())
		}
		if x.GetExpireTime() != nil {
			terms = append(terms, "until "+when(x.GetExpireTime()))
		}
		if len(terms) == 0 {
			terms = []string{"at once, unmasked"}
		}
		rows = append(rows, []string{strings.Join(x.GetSubjects(), ", "), x.GetTask(), x.GetBinding(), x.GetRule(), strings.Join(terms, "; "), strings.Join(x.GetHolders(), ", ")})
	}
	if len(rows) == 0 {
		fmt.Fprintln(w, "nobody")
	} else {
		table(w, "who task binding rule terms holds-it-now", rows)
	}
	for _, n := range r.GetNotes() {
		fmt.Fprintf(w, "note: %s\n", n)
	}
}
