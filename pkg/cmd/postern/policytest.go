package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/cases"
	"github.com/posterngate/postern/pkg/postern"
)

// caseResult is what came of one case, as it is printed.
type caseResult struct {
	File   string   `json:"file"`
	Name   string   `json:"name"`
	Result string   `json:"result"` // ok, failed, or not run
	Why    []string `json:"why,omitempty"`
}

func (a *app) policyTestCmd() *cobra.Command {
	var files []string
	var without bool
	c := &cobra.Command{
		Use: "test FILE...", Short: "Run the tests of policy", Args: cobra.MinimumNArgs(1),
		Long: `Each case says who does what, and which answer is wanted:

  cases:
  - name: analysts see e-mail addresses masked
    subject: {name: alice, groups: [analysts]}
    can: select warehouse:sales.customers.email
    want: {verdict: allow, mask: email, rule: "sales-report/permit[1]"}
  - subject: {name: alice, groups: [analysts]}
    task: purge-order
    statement: DELETE FROM sales.orders WHERE id = 7
    want: {verdict: hold, approval: leads}

Without -f the policy that is in force is tested. With -f the objects of the files are all
there is, and no server is asked; statements of SQL need a catalogue and so a server, and
fail there unless --without-statements leaves them out.

Exit code 0: every case came out as wanted. Exit code 1: one did not, or was not run.`,
		Example: "  postern policy test deploy/dev/world/tests/\n  postern policy test -f policy/ tests/sales.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			results, err := a.policyTest(cmd.Context(), files, args, without)
			if err != nil {
				return err
			}
			bad := 0
			for _, r := range results {
				if r.Result != "ok" {
					bad++
				}
			}
			if err := a.printValue(results, func(w io.Writer) { showCases(w, results) }); err != nil {
				return err
			}
			if bad > 0 {
				return fmt.Errorf("%d of %d cases did not come out as wanted", bad, len(results))
			}
			return nil
		},
	}
	c.Flags().StringArrayVarP(&files, "file", "f", nil, "YAML file or folder of the policy to test, instead of the one in force")
	c.Flags().BoolVar(&without, "without-statements", false, "leave out cases that need a server, where there is none")
	return c
}

// policyTest runs the cases of files and folders.
func (a *app) policyTest(ctx context.Context, policyFiles, caseFiles []string, without bool) ([]caseResult, error) {
	files, err := yamlFiles(caseFiles)
	if err != nil {
		return nil, err
	}
	var objects []*typesv1.Object
	var explain cases.Explain
	if len(policyFiles) > 0 {
		objects, err = a.readObjects(policyFiles)
	} else {
		objects, explain, err = a.inForce(ctx)
	}
	if err != nil {
		return nil, err
	}
	s, rejected := policy.Compile(postern.Version{Epoch: "test", Revision: 1}, objects)
	for _, r := range rejected {
		a.say("note: %s does not compile, and so is denied: %s", r.Object, r.Reason)
	}
	var out []caseResult
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f, err := cases.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for i := range f.Cases {
			c := &f.Cases[i]
			r := caseResult{File: name, Name: c.Name, Result: "ok"}
			_, differs, err := c.Run(ctx, s, time.Now(), explain)
			switch {
			case errors.Is(err, cases.ErrNotRun) && without:
				continue
			case errors.Is(err, cases.ErrNotRun):
				r.Result, r.Why = "not run", []string{err.Error()}
			case err != nil:
				r.Result, r.Why = "failed", []string{err.Error()}
			case len(differs) > 0:
				r.Result, r.Why = "failed", differs
			}
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no case was run")
	}
	return out, nil
}

// inForce is the policy of the server, and nodes that tell what a statement would come to.
func (a *app) inForce(ctx context.Context) ([]*typesv1.Object, cases.Explain, error) {
	api, err := a.dial(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	var objects []*typesv1.Object
	for _, kind := range []string{"resource", "task", "binding", "mask", "approvalrule", "workload", "lock"} {
		all, err := list(ctx, api, kind)
		if err != nil {
			return nil, nil, err
		}
		objects = append(objects, all...)
	}
	return objects, func(ctx context.Context, c *cases.Case, task postern.TaskName, resource postern.ResourceName) (cases.Outcome, error) {
		sub, err := noun.Subject(c.Subject.Subject())
		if err != nil {
			return cases.Outcome{}, err
		}
		resp, err := api.access.Explain(ctx, connect.NewRequest(&apiv1.ExplainRequest{Task: string(task) + "." + string(resource), Statement: c.Statement, Subject: sub}))
		if err != nil {
			return cases.Outcome{}, err
		}
		e := resp.Msg.GetExplanation()
		return cases.Outcome{Verdict: e.GetVerdict(), Rule: e.GetRule(), Reason: e.GetReason(), Approval: e.GetApproval(), Masked: e.GetMasked()}, nil
	}, nil
}

func showCases(w io.Writer, results []caseResult) {
	ok := 0
	for _, r := range results {
		if r.Result == "ok" {
			ok++
			continue
		}
		fmt.Fprintf(w, "%s: %s: %s\n", r.Result, r.File, r.Name)
		for _, why := range r.Why {
			fmt.Fprintf(w, "    %s\n", why)
		}
	}
	fmt.Fprintf(w, "%d of %d cases came out as wanted\n", ok, len(results))
}
