package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

// maxTokenFile bounds a file with a token, in bytes.
const maxTokenFile = 16 << 10

func (a *app) blastCmd() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "blast [NODE|GRANT|LEASE]", Short: "What a thief of a token, node or lease could do, until when, and what ends it", Args: cobra.MaximumNArgs(1),
		Long: `Blast lists everything that a stolen thing opens, and what must be so besides; what is not
listed does not work. The thing is a node or wall by its name, a grant (g-...) for the token
or certificate that opens it, a lease (l-...) for the credential on loan, or the token itself:
in a file or, with -, from standard input, never on the command line, where others see it.`,
		Example: "  postern blast --token-file leaked.txt\n  pbpaste | postern blast --token-file -\n  postern blast node-1\n  postern blast l-2c1f0a...",
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (file != "") {
				return usage("a node, grant or lease, or --token-file")
			}
			req := &apiv1.GetBlastRequest{}
			switch {
			case file != "":
				token, err := a.readToken(file)
				if err != nil {
					return err
				}
				req.Token = token
			case strings.HasPrefix(args[0], "pst_") || strings.Count(args[0], ".") == 2 && len(args[0]) > 100:
				return usage("a token on the command line can be seen by everybody on this machine: give --token-file FILE, or - for standard input")
			case strings.HasPrefix(args[0], "g-"):
				req.Grant = args[0]
			case strings.HasPrefix(args[0], "l-"):
				req.Lease = args[0]
			default:
				req.Node = args[0]
			}
			api, err := a.dial(cmd.Context(), false)
			if err != nil {
				return err
			}
			var resp *connect.Response[apiv1.GetBlastResponse]
			err = a.busy(cmd.Context(), "looking", nil, func(ctx context.Context) (err error) {
				resp, err = api.locks.GetBlast(ctx, connect.NewRequest(req))
				return err
			})
			if err != nil {
				return err
			}
			return a.print(resp.Msg, func(w io.Writer) { showBlast(w, resp.Msg) })
		},
	}
	c.Flags().StringVar(&file, "token-file", "", "file with the token; - is standard input")
	return c
}

// readToken reads the one token that a file holds.
func (a *app) readToken(file string) (string, error) {
	in := a.env.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxTokenFile+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if token == "" || len(text) > maxTokenFile || strings.ContainsAny(token, " \t\r\n") {
		return "", errors.New("this is not one token")
	}
	return token, nil
}

func showBlast(w io.Writer, r *apiv1.GetBlastResponse) {
	if r.GetDead() != "" {
		fmt.Fprintf(w, "%s: of no use to anybody: %s\n", r.GetThing(), r.GetDead())
		return
	}
	until := "until it is stopped: nothing of it ends by itself"
	if r.GetEndTime() != nil {
		until = "until " + when(r.GetEndTime()) + " at the latest"
	}
	fmt.Fprintf(w, "%s: %s\n", r.GetThing(), until)
	for _, one := range r.GetReaches() {
		fmt.Fprintf(w, "\n%s\n", reachTitle(one))
		for _, right := range one.GetRights() {
			fmt.Fprintf(w, "  %s\n", rightText(right))
		}
		for _, term := range one.GetTerms() {
			fmt.Fprintf(w, "  if: %s\n", term)
		}
	}
	fmt.Fprintln(w)
	for _, n := range r.GetNotes() {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	for _, stop := range r.GetStops() {
		fmt.Fprintf(w, "ends it: %s\n", stop)
	}
}

// acts say in words what a reach is.
var acts = map[string]string{
	"connect": "connect to", "take": "take a grant for", "call": "call the API", "policy": "be told the policy of the node",
	"pose": "pose as the node to clients", "borrow": "borrow the login of", "record": "write recordings",
	"renew": "renew the node's certificate", "login": "log in, past the gateway, at",
}

func reachTitle(r *apiv1.Reach) string {
	act, ok := acts[r.GetAct()]
	if !ok {
		act = r.GetAct()
	}
	parts := []string{act}
	add := func(format, text string) {
		if text != "" {
			parts = append(parts, fmt.Sprintf(format, text))
		}
	}
	switch {
	case r.GetTask() != "" && r.GetResource() != "":
		add("%s", r.GetTask()+"."+r.GetResource())
	default:
		add("%s", r.GetTask()+r.GetResource())
	}
	add("as %s", r.GetSubject())
	add("with account %s", r.GetAccount())
	add("by lease %s", r.GetLease())
	add("at %s", strings.Join(r.GetAddresses(), ", "))
	if r.GetEndTime() != nil {
		add("until %s", when(r.GetEndTime()))
	}
	return strings.Join(parts, " ")
}

func rightText(r *apiv1.BlastRight) string {
	text := r.GetVerb()
	if r.GetObject() != "" {
		text += " " + r.GetObject()
	} else if r.GetVerb() == "anything" {
		text = "whatever the account may"
	}
	if len(r.GetColumns()) > 0 {
		columns := make([]string, len(r.GetColumns()))
		for i, c := range r.GetColumns() {
			if columns[i] = c; r.GetMasks()[c] != "" {
				columns[i] += " masked: " + r.GetMasks()[c]
			}
		}
		text += " (" + strings.Join(columns, ", ") + ")"
	}
	if len(r.GetTerms()) > 0 {
		text += ", " + strings.Join(r.GetTerms(), ", ")
	}
	return text
}
