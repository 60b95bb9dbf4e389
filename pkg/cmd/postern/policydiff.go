package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

func (a *app) policyCmd() *cobra.Command {
	c := group("policy", "What policy means: compare a change, run its tests")
	c.AddCommand(a.policyDiffCmd(), a.policyTestCmd())
	return c
}

// errBroken is the answer of policy diff where the change does not compile.
var errBroken = errors.New("something of the change would be denied, for it does not compile")

func (a *app) policyDiffCmd() *cobra.Command {
	var files, remove []string
	c := &cobra.Command{
		Use: "diff -f FILE...", Short: "What a change of policy newly allows or denies, and to whom", Args: cobra.NoArgs,
		Long: `The policy that is in force and the policy with the change are both compiled, and compared
in what they let people do: for each subject that bindings pick, task, resource and object.
Masks, filters, conditions, approvals, limits, roles and locks are compared as well.`,
		Example: "  postern policy diff -f tasks/\n  postern policy diff -f new.yaml --remove binding/contractors-report",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var objects []*typesv1.Object
			var err error
			if len(files) > 0 || len(remove) == 0 {
				if objects, err = a.readObjects(files); err != nil {
					return err
				}
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			resp, err := api.policy.Compare(cmd.Context(), connect.NewRequest(&apiv1.CompareRequest{Objects: objects, Remove: remove}))
			if err != nil {
				return err
			}
			if err := a.print(resp.Msg, func(w io.Writer) { showChanges(w, resp.Msg) }); err != nil {
				return err
			}
			if len(resp.Msg.GetRejections()) > 0 {
				return errBroken
			}
			return nil
		},
	}
	c.Flags().StringArrayVarP(&files, "file", "f", nil, "YAML file or folder; - is standard input")
	c.Flags().StringArrayVar(&remove, "remove", nil, "an object that would be deleted, as kind/name")
	return c
}

func showChanges(w io.Writer, r *apiv1.CompareResponse) {
	signs := map[string]string{"allowed": "+", "denied": "-", "changed": "~"}
	for _, c := range r.GetChanges() {
		fmt.Fprintf(w, "%s %s\n", signs[c.GetEffect()], changeText(c))
		for _, t := range c.GetBefore() {
			if c.GetEffect() != "denied" || t != "at once" {
				fmt.Fprintf(w, "    was: %s\n", t)
			}
		}
		for _, t := range c.GetAfter() {
			if c.GetEffect() != "allowed" || t != "at once" {
				fmt.Fprintf(w, "    now: %s\n", t)
			}
		}
	}
	if len(r.GetChanges()) == 0 {
		fmt.Fprintln(w, "nobody may do more, less, or on other terms")
	}
	for _, x := range r.GetRejections() {
		fmt.Fprintf(w, "! %s does not compile: %s\n", x.GetObject(), x.GetReason())
	}
}

// changeText is one line, such as "group analysts: select sales.orders(id, note) on
// warehouse by sales-report".
func changeText(c *apiv1.PolicyChange) string {
	what := c.GetVerb()
	if c.GetObject() != "" {
		what += " " + c.GetObject()
	}
	if len(c.GetColumns()) > 0 {
		what += " (" + strings.Join(c.GetColumns(), ", ") + ")"
	}
	switch {
	case c.GetWho() == "" && c.GetTask() != "":
		return "task " + c.GetTask()
	case c.GetWho() == "":
		return "resource " + c.GetResource()
	case c.GetTask() != "":
		what += " on " + c.GetResource() + " by " + c.GetTask()
	}
	return c.GetWho() + ": " + what
}
