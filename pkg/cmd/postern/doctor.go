package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

// errWeak is the answer of doctor where something is not as it should be.
var errWeak = fail(exitWeak, "", "a level does not hold, or is weakened")

func (a *app) doctorCmd() *cobra.Command {
	return &cobra.Command{
		Use: "doctor TASK|RESOURCE|TASK.RESOURCE", Short: "Which level of guarantee holds for each permit, and what weakens it", Args: cobra.ExactArgs(1),
		Long: `Doctor prints the level that holds for each permit of a task, what weakens it at the
resource, and what keeps nodes from that. A postern-wall looks at the target; this command
does not.

L3 native: the target's own privileges. L2 source: masked in the statement that is sent.
L1 result: masked on the way back. L0: recorded only. none: the task is not served.
Of a host it tells what the host itself holds sessions to, which rests on what is lent.

Exit code 0: every level holds and nothing was found that weakens it. Exit code 6: a level
does not hold, is weakened, or could not be looked into, or nobody can get in.`,
		Example: "  postern doctor sales-report\n  postern doctor warehouse --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := a.doctor(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := a.print(resp, func(w io.Writer) { health(w, resp) }); err != nil {
				return err
			}
			if weak(resp) {
				return errWeak
			}
			return nil
		},
	}
}

// doctor asks about a task, or about a resource where there is no such task.
func (a *app) doctor(ctx context.Context, name string) (*apiv1.DoctorResponse, error) {
	api, err := a.dial(ctx, false)
	if err != nil {
		return nil, err
	}
	task, resource, both := strings.Cut(name, ".")
	resp, err := api.access.Doctor(ctx, connect.NewRequest(&apiv1.DoctorRequest{Task: task, Resource: resource}))
	if !both && connect.CodeOf(err) == connect.CodeNotFound {
		other, otherErr := api.access.Doctor(ctx, connect.NewRequest(&apiv1.DoctorRequest{Resource: name}))
		if connect.CodeOf(otherErr) == connect.CodeNotFound {
			return nil, fmt.Errorf("there is no task and no resource %q", name)
		}
		resp, err = other, otherErr
	}
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

// weak reports whether anything is not as it should be.
func weak(r *apiv1.DoctorResponse) bool {
	for _, h := range r.GetResources() {
		for _, f := range h.GetFindings() {
			// What is not known of a target weakens only a level that rests on the target.
			if f.GetSeverity() == "broken" || f.GetSeverity() == "weakens" || f.GetSeverity() == "unknown" && f.GetCheck() == "wall" {
				return true
			}
		}
		for _, t := range h.GetTasks() {
			if t.GetProblem() != "" {
				return true
			}
		}
	}
	return false
}

func health(w io.Writer, r *apiv1.DoctorResponse) {
	for i, h := range r.GetResources() {
		if i > 0 {
			fmt.Fprintln(w)
		}
		switch {
		case h.GetWall() != "":
			fmt.Fprintf(w, "resource %s: %s is wanted; PostgreSQL %s, as wall %s found it\n\n", h.GetResource(), h.GetWant(), h.GetServer(), h.GetWall())
		case h.GetWant() != "":
			fmt.Fprintf(w, "resource %s: %s is wanted; no wall looked at it\n\n", h.GetResource(), h.GetWant())
		default:
			fmt.Fprintf(w, "resource %s\n\n", h.GetResource())
		}
		var rows [][]string
		for _, t := range h.GetTasks() {
			for _, p := range t.GetPermits() {
				rows = append(rows, []string{p.GetRule(), p.GetLevel(), p.GetAllows(), strings.Join(p.GetRemains(), ", ")})
			}
		}
		table(w, "permit level allows gateway-alone-keeps", rows)
		for _, t := range h.GetTasks() {
			if t.GetProblem() != "" {
				fmt.Fprintf(w, "\ntask %s is not served: %s\n", t.GetTask(), t.GetProblem())
			}
		}
		for _, f := range h.GetFindings() {
			fmt.Fprintf(w, "\n%s: %s %s  [%s]\n", f.GetSeverity(), f.GetObject(), f.GetText(), f.GetCheck())
			if f.GetFix() != "" {
				fmt.Fprintf(w, "  mend: %s\n", f.GetFix())
			}
		}
		if len(h.GetVisible()) > 0 {
			fmt.Fprintf(w, "\nwhoever may connect sees, beside what their task names:\n")
		}
		for _, v := range h.GetVisible() {
			fmt.Fprintf(w, "  - %s\n", v)
		}
	}
}
