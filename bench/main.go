// Command bench measures Postern against the server itself, against pools and proxies,
// and against its goals.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/posterngate/postern/bench/parts"
	"github.com/posterngate/postern/pkg/sql/worker"
)

func main() {
	worker.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

const usage = `usage: bench COMMAND
  run [flags]        measure; --help lists the flags
  compare OLD NEW    two result files, with the 95 % interval of each ratio
  report FILE        a result file as text; its Markdown and its plot are written anew beside it
  readme FILE        write the README's table from a result file; --check only compares
exit: 0 every goal that was measured is met, 1 one is missed, 2 inconclusive
`

// The exit codes.
const (
	pass         = 0
	missed       = 1
	inconclusive = 2
	wrong        = 64 // usage, or the suite itself failed
)

func command(ctx context.Context, args []string) int {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return wrong
	}
	var code int
	var err error
	switch args[0] {
	case "part":
		if len(args) == 2 {
			err = parts.Main(ctx, args[1], os.Stdin, os.Stdout)
		}
	case "run":
		code, err = measure(ctx, args[1:])
	case "report":
		code, err = again(args[1:])
	case "compare":
		code, err = compare(args[1:])
	case "readme":
		code, err = readme(args[1:])
	default:
		fmt.Fprint(os.Stderr, usage)
		return wrong
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return max(code, 1)
	}
	return code
}
