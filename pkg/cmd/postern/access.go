package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

func (a *app) tasksCmd() *cobra.Command {
	return &cobra.Command{
		Use: "tasks [TASK]", Short: "What I may do here and now, and on what terms", Args: cobra.MaximumNArgs(1),
		Example: "  postern tasks\n  postern tasks sales-report --format yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			offers, err := offers(cmd.Context(), api)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				offers = slices.DeleteFunc(offers, func(o *apiv1.TaskOffer) bool { return o.GetTask() != args[0] })
				if len(offers) == 0 {
					return notOffered(args[0])
				}
			}
			return printAll(a, offers, func(w io.Writer) {
				var rows [][]string
				for _, o := range offers {
					held := ""
					if o.GetGrant() != nil {
						held = "until " + when(o.GetGrant().GetEndTime())
					}
					rows = append(rows, []string{o.GetTask(), strings.Join(o.GetResources(), ","), o.GetTerms(), o.GetDuration(), held, o.GetPurpose()})
				}
				table(w, "task resources terms for held purpose", rows)
			})
		},
	}
}

// offers are the tasks that the caller may take.
func offers(ctx context.Context, api *api) ([]*apiv1.TaskOffer, error) {
	resp, err := api.access.ListTasks(ctx, connect.NewRequest(&apiv1.ListTasksRequest{}))
	if err != nil {
		return nil, err
	}
	return resp.Msg.GetTasks(), nil
}

func (a *app) explainCmd() *cobra.Command {
	return &cobra.Command{
		Use: "explain TASK[.RESOURCE] STATEMENT", Short: "Say what would happen to a statement, and why", Args: cobra.ExactArgs(2),
		Long: `Explain asks a node what would happen to a statement, without letting it through: SQL, or
for a service METHOD PATH and a JSON body where there is one, such as a message of MCP.`,
		Example: `  postern explain sales-report 'SELECT email FROM customers'
  postern explain read-orders 'GET /api/orders/7?expand=lines'
  postern explain helpdesk 'POST /mcp {"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.access.Explain(cmd.Context(), connect.NewRequest(&apiv1.ExplainRequest{Task: args[0], Statement: args[1]}))
			if err != nil {
				return err
			}
			return a.print(resp.Msg, func(w io.Writer) { explanation(w, resp.Msg) })
		},
	}
}

func explanation(w io.Writer, r *apiv1.ExplainResponse) {
	e := r.GetExplanation()
	line := func(name, value string) { field(w, 10, name, value) }
	line("verdict", e.GetVerdict())
	line("rule", e.GetRule())
	line("because", e.GetReason())
	line("detail", e.GetDetail())
	line("next", e.GetHint())
	line("level", e.GetLevel())
	line("relations", strings.Join(e.GetRelations(), ", "))
	line("columns", strings.Join(e.GetColumns(), ", "))
	var masked []string
	for _, c := range slices.Sorted(maps.Keys(e.GetMasked())) {
		masked = append(masked, c+" by "+e.GetMasked()[c])
	}
	line("masked", strings.Join(masked, ", "))
	line("sent", e.GetForward())
	line("policy", fmt.Sprintf("%s/%d at node %s", e.GetVersion().GetEpoch(), e.GetVersion().GetRevision(), r.GetNode()))
}
