package main

import (
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

func (a *app) requestsCmd() *cobra.Command {
	return a.holdsCmd("requests", "What I asked people for", "  postern requests", true)
}

func (a *app) approvalsCmd() *cobra.Command {
	return a.holdsCmd("approvals", "What waits for me to say yes or no", "  postern approvals\n  postern approvals --all", false)
}

func (a *app) holdsCmd(use, short, example string, mine bool) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.approvals.ListHolds(cmd.Context(), connect.NewRequest(&apiv1.ListHoldsRequest{Mine: mine, Pending: !all && !mine}))
			if err != nil {
				return err
			}
			return printAll(a, resp.Msg.GetHolds(), func(w io.Writer) {
				var rows [][]string
				for _, h := range resp.Msg.GetHolds() {
					rows = append(rows, []string{h.GetId(), h.GetSubject(), h.GetTask(), what(h), holdState(h), when(h.GetExpireTime()), h.GetReason()})
				}
				table(w, "id who task what state until reason", rows)
			})
		},
	}
	if !mine {
		c.Flags().BoolVar(&all, "all", false, "also those that are settled")
	}
	return c
}

func holdState(h *typesv1.Hold) string {
	return strings.ToLower(strings.TrimPrefix(h.GetState().String(), "HOLD_STATE_"))
}

// what says what a yes would let through.
func what(h *typesv1.Hold) string {
	switch h.GetScope() {
	case "statement":
		s := oneLine(h.GetStatement(), 60)
		for i, p := range h.GetParameters() {
			v := "NULL"
			if p.Value != nil {
				v = fmt.Sprintf("%q", p.GetValue())
			}
			s += fmt.Sprintf(" $%d=%s", i+1, v)
		}
		return s
	case "session":
		return "a session on " + h.GetResource()
	}
	return "the task for " + h.GetDuration()
}

func (a *app) approveCmd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "approve ID", Short: "Say yes", Args: cobra.ExactArgs(1),
		Example: "  postern approvals\n  postern approve h-91c2...",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.review(cmd, args[0], true, reason) },
	}
	c.Flags().StringVar(&reason, "reason", "", "why")
	return c
}

func (a *app) denyCmd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "deny ID", Short: "Say no", Args: cobra.ExactArgs(1),
		Example: `  postern deny h-91c2... --reason "wrong order"`,
		RunE:    func(cmd *cobra.Command, args []string) error { return a.review(cmd, args[0], false, reason) },
	}
	c.Flags().StringVar(&reason, "reason", "", "why; shown to the person who asked")
	_ = c.MarkFlagRequired("reason")
	return c
}

// review answers what was shown, and not something else that took its id.
func (a *app) review(cmd *cobra.Command, id string, approve bool, reason string) error {
	api, err := a.dial(cmd.Context(), false)
	if err != nil {
		return err
	}
	got, err := api.approvals.GetHold(cmd.Context(), connect.NewRequest(&apiv1.GetHoldRequest{Id: id}))
	if err != nil {
		return err
	}
	h := got.Msg.GetHold()
	a.say("%s asks for %s under %s", h.GetSubject(), what(h), h.GetTask())
	resp, err := api.approvals.ReviewHold(cmd.Context(), connect.NewRequest(&apiv1.ReviewHoldRequest{Id: id, Approve: approve, Reason: reason, Digest: h.GetDigest()}))
	if err != nil {
		return err
	}
	return a.print(resp.Msg, func(w io.Writer) { fmt.Fprintf(w, "%s %s\n", id, holdState(resp.Msg.GetHold())) })
}
