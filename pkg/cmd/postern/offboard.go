package main

import (
	"context"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/object"
)

func (a *app) offboardCmd() *cobra.Command {
	req := &apiv1.OffboardRequest{}
	c := &cobra.Command{
		Use: "offboard SUBJECT", Short: "End everything that a person has, and say what that was and where it holds", Args: cobra.ExactArgs(1),
		Long: "End everything that a person has: the subject is locked; grants end, with the tokens and certificates that\n" +
			"use them; what was asked is withdrawn; sessions end at every node, and leases with them. The person's\n" +
			"workloads go on under who is named by --transfer-to, or are locked. Running it again goes on where an\n" +
			"earlier run was cut short, and gives the workloads to whom they are transferred now.",
		Example: `  postern offboard carol --transfer-to bob --reason "contract ended"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Subject = args[0]
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			var resp *connect.Response[apiv1.OffboardResponse]
			err = a.busy(cmd.Context(), "offboarding", nil, func(ctx context.Context) (err error) {
				resp, err = api.locks.Offboard(ctx, connect.NewRequest(req))
				return err
			})
			if err != nil {
				return err
			}
			if len(resp.Msg.GetWorkloads()) == 0 {
				a.misspelt(cmd.Context(), api, req.GetSubject())
			}
			return a.print(resp.Msg, func(w io.Writer) { showOffboarded(w, req.GetSubject(), resp.Msg) })
		},
	}
	c.Flags().StringVar(&req.TransferTo, "transfer-to", "", "the subject who takes over the workloads; locked where it is not given")
	c.Flags().StringVar(&req.Reason, "reason", "", "why; shown to the person who is cut off")
	return c
}

func showOffboarded(w io.Writer, subject string, r *apiv1.OffboardResponse) {
	for _, l := range r.GetLocks() {
		what := "subject " + l.GetLock().GetSpec().GetSubject()
		if n := l.GetLock().GetSpec().GetWorkload(); n != "" {
			what = "workload " + n
		}
		fmt.Fprintf(w, "%s locked by %s\n", what, object.Name(l))
	}
	for _, v := range r.GetWorkloads() {
		if !v.GetLocked() {
			fmt.Fprintf(w, "workload %s goes on, and is %s's now\n", v.GetName(), v.GetOwner())
		}
	}
	part(w, "grants ended, with their tokens and certificates", "id of task state", len(r.GetGrants()), func(i int) []string {
		g := r.GetGrants()[i]
		was := "asked for"
		if g.GetStartTime() != nil {
			was = "since " + when(g.GetStartTime())
		}
		return []string{g.GetId(), g.GetSubject().GetName(), g.GetTask(), was}
	})
	part(w, "asks withdrawn", "id scope task statement", len(r.GetHolds()), func(i int) []string {
		h := r.GetHolds()[i]
		return []string{h.GetId(), h.GetScope(), h.GetTask(), oneLine(h.GetStatement(), 60)}
	})
	part(w, "sessions ended", "id of task resource node from program since", len(r.GetSessions()), func(i int) []string {
		s := r.GetSessions()[i]
		return []string{s.GetId(), s.GetSubject(), s.GetTask(), s.GetResource(), s.GetNode(), s.GetClientAddress(), s.GetClientProgram(), when(s.GetStartTime())}
	})
	part(w, "leases", "id resource account node state", len(r.GetLeases()), func(i int) []string {
		l := r.GetLeases()[i]
		return []string{l.GetId(), l.GetResource(), l.GetAccount(), l.GetNode(), l.GetState()}
	})
	for _, n := range r.GetNamedIn() {
		fmt.Fprintf(w, "%s still names %s: the lock wins over it\n", n, subject)
	}
	fmt.Fprintln(w)
	showReceipt(w, r.GetReceipt())
}

// part is one list of an inventory, with a title that says how many.
func part(w io.Writer, title, head string, n int, row func(i int) []string) {
	fmt.Fprintf(w, "\n%s: %d\n", title, n)
	if n == 0 {
		return
	}
	rows := make([][]string, n)
	for i := range rows {
		rows[i] = row(i)
	}
	table(w, head, rows)
}
