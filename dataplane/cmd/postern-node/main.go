// Command postern-node is a data-plane node: it terminates protocols, enforces tasks,
// and ships what it recorded.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/posterngate/postern/dataplane"
	"github.com/posterngate/postern/dataplane/config"
	"github.com/posterngate/postern/pkg/release"
	"github.com/posterngate/postern/pkg/sql/worker"
	"github.com/posterngate/postern/pkg/telemetry"
)

func main() {
	worker.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0 ok, 1 failed, 2 wrong usage or configuration.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("postern-node", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "/etc/postern/node.yaml", "configuration file")
	check := flags.Bool("check-config", false, "check the configuration and exit")
	version := flags.Bool("version", false, "print the release and exit")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *version {
		fmt.Fprintln(stdout, "postern-node", release.Version)
		return 0
	}
	cfg, err := config.Load(*file)
	if err != nil {
		fmt.Fprintln(stderr, "postern-node:", err)
		return 2
	}
	if *check {
		fmt.Fprintln(stdout, "the configuration is good")
		return 0
	}
	tel, err := telemetry.Setup(ctx, cfg.Telemetry, "postern-node", cfg.Name, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "postern-node:", err)
		return 2
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = tel.Shutdown(ctx)
	}()
	node, err := dataplane.New(ctx, cfg, tel)
	if err == nil {
		err = node.Run(ctx)
	}
	if err != nil {
		tel.Logger.Error("node failed", "error", err)
		return 1
	}
	return 0
}
