// Command postern-dev runs the whole house on one machine: both planes in one process
// but over the same mutual TLS as anywhere, an identity provider, and a sample company
// with real servers. It is the quickstart and the tutorial, not a way to deploy.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/posterngate/postern/pkg/sql/worker"
)

const usage = `usage: postern-dev COMMAND [--vault] [--dir DIR]

  run     in the foreground, until Ctrl-C
  up      in the background; returns once everything answers
  down    stop what up started
  reset   stop, and forget all state

--vault lends PostgreSQL users out of a real Vault instead of sealed secrets.
State is in DIR, .dev where it is not given.
`

func main() {
	worker.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func command(ctx context.Context, args []string) int {
	o := options{dir: ".dev", log: func(s string) { fmt.Fprintln(os.Stderr, s) }}
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	verb := args[0]
	if verb == "help" || verb == "-h" || verb == "--help" {
		fmt.Fprint(os.Stdout, usage)
		return 0
	}
	for i := 1; i < len(args); i++ {
		switch {
		case args[i] == "--vault":
			o.vault = true
		case args[i] == "--dir" && i+1 < len(args):
			i++
			o.dir = args[i]
		default:
			fmt.Fprint(os.Stderr, usage)
			return 2
		}
	}
	verbs := map[string]func(context.Context, options) error{"run": foreground, "up": up, "down": down, "reset": reset}
	do, ok := verbs[verb]
	if !ok {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	if err := do(ctx, o); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "postern-dev:", err)
		return 1
	}
	return 0
}
