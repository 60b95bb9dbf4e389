package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

func (a *app) accountsCmd() *cobra.Command {
	var from string
	c := &cobra.Command{
		Use: "accounts RESOURCE", Short: "A server's accounts: which Postern lends, and which are used around it", Args: cobra.ExactArgs(1),
		Long: `Accounts lists who may log in at a resource's server, as its postern-wall sees it: which of
them Postern lends, and who uses those without Postern. Each such use is an event of the
audit log (account.around) within a minute.

With --refused also who was refused a login with a wrong password, such as an old one. That
takes a server that collects its log as JSON or CSV, and an admin credential that may read it.`,
		Example: "  postern accounts warehouse\n  postern accounts warehouse --refused 1h",
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &apiv1.ListAccountsRequest{Resource: args[0]}
			var err error
			if req.RefusedSince, err = since(from); err != nil {
				return err
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.accounts.ListAccounts(cmd.Context(), connect.NewRequest(req))
			if err != nil {
				return err
			}
			return a.print(resp.Msg, func(w io.Writer) { showAccounts(w, resp.Msg) })
		},
	}
	c.Flags().StringVar(&from, "refused", "", "also who was refused a login since: a duration before now, or an RFC 3339 time")
	return c
}

func showAccounts(w io.Writer, r *apiv1.ListAccountsResponse) {
	var rows [][]string
	for _, a := range r.GetAccounts() {
		kind := a.GetSource()
		if kind == "" {
			kind = "not Postern's"
		}
		if a.GetSuperuser() {
			kind += " (superuser)"
		}
		live := 0
		for _, u := range a.GetAround() {
			if u.GetLive() {
				live++
			}
		}
		rows = append(rows, []string{a.GetAccount(), kind, strings.Join(a.GetPurposes(), ", "), strconv.FormatInt(a.GetLeases(), 10), when(a.GetLastLeased()),
			fmt.Sprintf("%d (%d now)", len(a.GetAround()), live)})
	}
	table(w, "account from for leases last-leased around-postern", rows)
	for _, a := range r.GetAccounts() {
		for _, u := range a.GetAround() {
			fmt.Fprintf(w, "around Postern: %s\n", around(a.GetAccount(), u))
		}
		for _, u := range a.GetRefused() {
			fmt.Fprintf(w, "refused %d times: %s\n", u.GetCount(), around(a.GetAccount(), u))
		}
	}
	if r.GetRefusedUnknown() != "" {
		fmt.Fprintf(w, "who was refused is not known: %s\n", r.GetRefusedUnknown())
	}
}

// around is one user of an account, such as "app from 10.0.0.9 with psql, last at ...".
func around(account string, u *apiv1.AroundUse) string {
	host, program := u.GetHost(), u.GetProgram()
	if host == "" {
		host = "the server itself, or an address that the admin credential may not see"
	}
	if program == "" {
		program = "a program that says no name"
	}
	last := "last at " + when(u.GetLastTime())
	if u.GetLive() {
		last = "connected now"
	}
	return fmt.Sprintf("%s from %s with %s, since %s, %s", account, host, program, when(u.GetFirstTime()), last)
}
