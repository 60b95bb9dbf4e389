package main

import (
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

func (a *app) auditCmd() *cobra.Command {
	c := group("audit", "Who used what, from recordings; and what people did to Postern itself")
	c.AddCommand(a.searchCmd(), a.whoCmd(), a.auditLogCmd(), a.auditVerifyCmd())
	return c
}

func (a *app) auditLogCmd() *cobra.Command {
	req := &apiv1.ListAuditEntriesRequest{}
	var from string
	c := &cobra.Command{
		Use: "log", Short: "What people did to Postern itself, newest first", Args: cobra.NoArgs,
		Example: "  postern audit log --actor bob --since 2d\n  postern audit log --object task/sales-report",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if req.Since, err = since(from); err != nil {
				return err
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.audit.ListAuditEntries(cmd.Context(), connect.NewRequest(req))
			if err != nil {
				return err
			}
			return printAll(a, resp.Msg.GetEntries(), func(w io.Writer) {
				var rows [][]string
				for _, e := range resp.Msg.GetEntries() {
					rows = append(rows, []string{fmt.Sprint(e.GetSequence()), when(e.GetTime()), e.GetActor(), e.GetAction(), e.GetObject(), e.GetOutcome()})
				}
				table(w, "no when who did to outcome", rows)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&req.Actor, "actor", "", "only this subject's")
	f.StringVar(&req.Object, "object", "", "only about this object, such as task/sales-report")
	f.StringVar(&from, "since", "", "a duration before now, or an RFC 3339 time")
	f.Int32Var(&req.PageSize, "limit", 100, "at most this many")
	return c
}
