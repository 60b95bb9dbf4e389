package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

func (a *app) rotateAccountCmd() *cobra.Command {
	var watch time.Duration
	c := &cobra.Command{
		Use: "rotate ACCOUNT", Short: "Give a static account a new password; the old one fails at once", Args: cobra.ExactArgs(1),
		Long: `ACCOUNT is where the password lies: the name of a Secret, or in Vault MOUNT/PATH of KV or
MOUNT/ROLE of a static role; or the account, or the resource that is logged in to with it. The
new password is made by the control plane and given to the server by the resource's
postern-wall, which sees its verifier alone; that of a static role Vault makes and gives.

Sessions that are logged in live on, or end where the resource says so (rotatedSessions: end).
What is printed says who used the account around Postern, and so has the old password still;
with --watch also who tries it from now on.`,
		Example: "  postern rotate warehouse-app\n  postern rotate secret/warehouse\n  postern rotate warehouse --watch 1m",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.accounts.RotateAccount(cmd.Context(), connect.NewRequest(&apiv1.RotateAccountRequest{Account: args[0]}))
			if err != nil {
				return err
			}
			if err := a.print(resp.Msg, func(w io.Writer) { showRotation(w, resp.Msg) }); err != nil || watch == 0 {
				return err
			}
			return a.watchRefused(cmd.Context(), api, resp.Msg, watch)
		},
	}
	c.Flags().Var((*span)(&watch), "watch", "say for so long who tries the old password")
	return c
}

func showRotation(w io.Writer, r *apiv1.RotateAccountResponse) {
	fmt.Fprintf(w, "account %s of secret %s (%s) has a new password since %s; the old one fails\n", r.GetAccount(), r.GetSecret(), strings.Join(r.GetResources(), ", "), when(r.GetTime()))
	if n := len(r.GetKept()); n > 0 {
		fmt.Fprintf(w, "%s live on: %s\n", plural(n, "sessions"), strings.Join(r.GetKept(), ", "))
	}
	if n := len(r.GetEnded()); n > 0 {
		fmt.Fprintf(w, "%s were ended: %s\n", plural(n, "sessions"), strings.Join(r.GetEnded(), ", "))
	}
	for _, u := range r.GetAround() {
		fmt.Fprintf(w, "has the old password: %s\n", around(r.GetAccount(), u))
	}
	if len(r.GetAround()) == 0 {
		fmt.Fprintln(w, "nobody was seen who used it around Postern")
	}
}

// watchRefused says who tries the old password, as it is tried.
func (a *app) watchRefused(ctx context.Context, api *api, r *apiv1.RotateAccountResponse, long time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	told := map[string]int64{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		resp, err := api.accounts.ListAccounts(ctx, connect.NewRequest(&apiv1.ListAccountsRequest{Resource: r.GetResources()[0], RefusedSince: r.GetTime()}))
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			return err
		}
		if why := resp.Msg.GetRefusedUnknown(); why != "" {
			return fmt.Errorf("who tries the old password is not known: %s", why)
		}
		for _, st := range resp.Msg.GetAccounts() {
			for _, u := range st.GetRefused() {
				if st.GetAccount() == r.GetAccount() && u.GetCount() > told[u.GetHost()] {
					told[u.GetHost()] = u.GetCount()
					a.say("tries the old password (%d times): %s", u.GetCount(), around(r.GetAccount(), u))
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}
