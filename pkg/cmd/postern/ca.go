package main

import (
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

func (a *app) caCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "ca", Short: "The keys with which the control plane signs: list, bundle, rotate, retire", Example: "  postern ca", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listKeys(cmd, false) },
	}
	c.AddCommand(
		&cobra.Command{Use: "list", Short: "Which keys there are, and which of them sign", Example: "  postern ca list", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.listKeys(cmd, false) }},
		&cobra.Command{Use: "bundle", Short: "The CAs to trust, PEM: the file that POSTERN_CA names", Example: "  postern ca bundle > ca.pem", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.listKeys(cmd, true) }},
		a.rotateCmd(), a.retireCmd())
	return c
}

func (a *app) listKeys(cmd *cobra.Command, bundle bool) error {
	api, err := a.dial(cmd.Context(), false)
	if err != nil {
		return err
	}
	resp, err := api.keys.ListKeys(cmd.Context(), connect.NewRequest(&apiv1.ListKeysRequest{}))
	if err != nil {
		return err
	}
	if bundle {
		_, err := a.env.Stdout.Write(resp.Msg.GetCa())
		return err
	}
	return printAll(a, resp.Msg.GetKeys(), func(w io.Writer) {
		var rows [][]string
		for _, k := range resp.Msg.GetKeys() {
			rows = append(rows, []string{k.GetName(), k.GetUse(), k.GetState(), when(k.GetCreateTime()), when(k.GetSignTime()), k.GetFingerprint()[:min(16, len(k.GetFingerprint()))]})
		}
		table(w, "name use state made signs fingerprint", rows)
	})
}

func (a *app) rotateCmd() *cobra.Command {
	var lead time.Duration
	c := &cobra.Command{
		Use: "rotate nodes|grants|identity|certificates|ssh-certificates|ssh-hosts", Short: "Make a key's successor: trusted at once, signing later",
		Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs), ValidArgs: []string{"nodes", "grants", "identity", "certificates", "ssh-certificates", "ssh-hosts"},
		Long: "nodes is the CA of control plane and nodes, grants the key that signs grants, identity the one that\n" +
			"tells resources who asks, certificates and ssh-certificates the CAs of grants as certificates, ssh-hosts\n" +
			"the CA of the nodes' SSH host keys. The new key is trusted at once, and signs after --lead (30 days for\n" +
			"nodes and ssh-hosts, else 10 minutes). Nodes fetch what to trust by themselves; whoever else has a copy needs a new one before that: of the CAs by\n" +
			"postern ca bundle, of the SSH hosts' CA by the known_hosts file that postern grant --ssh writes.\n" +
			"The old key goes once nothing that it signed is good any more, or with: postern ca retire NAME.",
		Example: "  postern ca rotate nodes && postern ca bundle > ca.pem\n  postern ca rotate grants --lead 1m",
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &apiv1.RotateKeyRequest{Use: args[0]}
			if cmd.Flags().Changed("lead") {
				req.Lead = durationpb.New(lead)
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.keys.RotateKey(cmd.Context(), connect.NewRequest(req))
			if err != nil {
				return err
			}
			k := resp.Msg.GetKey()
			a.say("%s is trusted now, and signs from %s on", k.GetName(), when(k.GetSignTime()))
			switch k.GetUse() {
			case "nodes":
				a.say("give a new copy to those who verify by one: postern ca bundle")
			case "ssh-hosts":
				a.say("known_hosts files that are copies need the new key: postern grant TASK --ssh DIR writes one")
			}
			return a.print(k, func(w io.Writer) { fmt.Fprintln(w, k.GetName()) })
		},
	}
	c.Flags().Var((*span)(&lead), "lead", "how long the new key is trusted before it signs")
	return c
}

func (a *app) retireCmd() *cobra.Command {
	return &cobra.Command{
		Use: "retire NAME", Short: "End the trust in a key that does not sign", Args: cobra.ExactArgs(1),
		Long: "What the key signed is refused from then on. A node whose certificate it signed and that has not renewed\n" +
			"since must enrol again.",
		Example: "  postern ca retire ca",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.keys.RetireKey(cmd.Context(), connect.NewRequest(&apiv1.RetireKeyRequest{Name: args[0]}))
			if err != nil {
				return err
			}
			return a.done(resp.Msg, "%s is trusted no more", args[0])
		},
	}
}
