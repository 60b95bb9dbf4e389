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
		Use: use + " [ID]", Short: short, Example: example, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				resp, err := api.approvals.GetHold(cmd.Context(), connect.NewRequest(&apiv1.GetHoldRequest{Id: args[0]}))
				if err != nil {
					return err
				}
				return a.print(resp.Msg, func(w io.Writer) { showHold(w, resp.Msg) })
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

// showHold shows what somebody must know who is to answer.
func showHold(w io.Writer, r *apiv1.GetHoldResponse) {
	h := r.GetHold()
	line := func(name, format string, args ...any) {
		field(w, 10, name, tamed(fmt.Sprintf(format, args...)))
	}
	line("who", "%s asks for %s under task %s (%s)", h.GetSubject(), what(h), h.GetTask(), holdState(h))
	line("why", "%s", h.GetReason())
	line("statement", "%s", strings.TrimSpace(h.GetStatement()))
	if h.EstimatedRows != nil {
		line("rows", "about %d, as %s estimates", h.GetEstimatedRows(), h.GetResource())
	}
	line("masked", "%s", strings.Join(h.GetMasked(), ", "))
	p := r.GetHistory()
	more := ""
	if p.GetTruncated() {
		more = " or more"
	}
	line("before", "%d%s sessions with this task, %d statements, %d of them denied; asked %d times: %d yes, %d no", p.GetSessions(), more, p.GetStatements(), p.GetDenied(), p.GetAsked(), p.GetApproved(), p.GetRefused())
	line("asks", "%s by rule %s", strings.Join(h.GetApproverGroups(), " and "), h.GetRule())
	for _, a := range h.GetApprovals() {
		word := "no"
		if a.GetApproved() {
			word = "yes"
		}
		line("answer", "%s: %s %s", a.GetSubject(), word, a.GetReason())
	}
	line("until", "%s", when(h.GetExpireTime()))
}

func (a *app) withdrawCmd() *cobra.Command {
	return &cobra.Command{
		Use: "withdraw ID", Short: "Take back what I asked people for", Args: cobra.ExactArgs(1),
		Example: "  postern requests\n  postern withdraw h-91c2...",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.approvals.WithdrawHold(cmd.Context(), connect.NewRequest(&apiv1.WithdrawHoldRequest{Id: args[0]}))
			if err != nil {
				return err
			}
			return a.print(resp.Msg, func(w io.Writer) { fmt.Fprintf(w, "%s %s\n", args[0], holdState(resp.Msg.GetHold())) })
		},
	}
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
	if a.format == "text" {
		showHold(a.env.Stderr, got.Msg)
	}
	resp, err := api.approvals.ReviewHold(cmd.Context(), connect.NewRequest(&apiv1.ReviewHoldRequest{Id: id, Approve: approve, Reason: reason, Digest: h.GetDigest()}))
	if err != nil {
		return err
	}
	return a.print(resp.Msg, func(w io.Writer) { fmt.Fprintf(w, "%s %s\n", id, holdState(resp.Msg.GetHold())) })
}
