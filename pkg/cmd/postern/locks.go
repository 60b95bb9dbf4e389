package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

func (a *app) lockCmd() *cobra.Command {
	var spec typesv1.LockSpec
	var ttl time.Duration
	c := &cobra.Command{
		Use: "lock", Short: "A standing no that ends live sessions and lets no new one in", Args: cobra.NoArgs,
		Example: `  postern lock --subject carol --reason "contract ended"`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n := 0
			for _, t := range []string{spec.Subject, spec.Grant, spec.Resource, spec.Node, spec.Workload} {
				if t != "" {
					n++
				}
			}
			if n != 1 {
				return usage("exactly one of --subject, --grant, --resource, --node and --workload")
			}
			if ttl > 0 {
				spec.Expires = timestamppb.New(time.Now().Add(ttl))
			}
			o := newLock()
			o.GetLock().Spec = &spec
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.policy.Apply(cmd.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: []*typesv1.Object{o}}))
			if err != nil {
				return err
			}
			receipt, err := a.receipt(cmd.Context(), api, resp.Msg.GetVersion())
			if spec.Subject != "" && err == nil {
				a.misspelt(cmd.Context(), api, spec.Subject)
			}
			if a.format == "text" { // the name alone on standard output, for unlock
				_, werr := fmt.Fprintln(a.env.Stdout, object.Name(o))
				showReceipt(&tame{w: a.env.Stderr}, receipt)
				return errors.Join(err, werr)
			}
			return errors.Join(err, a.print(&apiv1.OffboardResponse{Locks: []*typesv1.Object{resp.Msg.GetApplied()[0].GetObject()}, Receipt: receipt}, nil))
		},
	}
	f := c.Flags()
	f.StringVar(&spec.Subject, "subject", "", "a subject by name")
	f.StringVar(&spec.Grant, "grant", "", "a grant by id")
	f.StringVar(&spec.Resource, "resource", "", "a resource by name")
	f.StringVar(&spec.Node, "node", "", "a node by name")
	f.StringVar(&spec.Workload, "workload", "", "a workload by name")
	f.StringVar(&spec.Reason, "reason", "", "why; shown to the person who is cut off")
	forFlag(c, &ttl, "how long; for ever where it is not given")
	_ = c.MarkFlagRequired("reason")
	return c
}

// newLock is a lock with a name of its own.
func newLock() *typesv1.Object {
	o := object.Bare("lock", "lock-"+strings.ToLower(rand.Text()[:12]))
	o.GetLock().Spec = &typesv1.LockSpec{}
	return o
}

func (a *app) unlockCmd() *cobra.Command {
	return &cobra.Command{
		Use: "unlock LOCK", Short: "Take a lock away", Args: cobra.ExactArgs(1),
		Example: "  postern get locks\n  postern unlock lock-k2v7...",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.policy.Delete(cmd.Context(), connect.NewRequest(&apiv1.DeleteRequest{Kind: "lock", Name: args[0]}))
			if err != nil {
				return err
			}
			a.say("%s taken away", args[0])
			receipt, err := a.receipt(cmd.Context(), api, resp.Msg.GetVersion())
			if err != nil {
				return err
			}
			if a.format == "text" {
				showReceipt(&tame{w: a.env.Stderr}, receipt)
				return nil
			}
			return a.print(&apiv1.GetReceiptResponse{Receipt: receipt}, nil)
		},
	}
}
