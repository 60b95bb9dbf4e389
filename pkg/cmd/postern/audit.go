package main

import "github.com/spf13/cobra"

func (a *app) auditCmd() *cobra.Command {
	c := group("audit", "Who used what, from recordings; and what people did to Postern itself")
	c.AddCommand(a.searchCmd(), a.whoCmd(), a.auditLogCmd(), a.auditVerifyCmd())
	return c
}
