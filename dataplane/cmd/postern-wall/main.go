// Command postern-wall keeps tasks as privileges of the targets themselves: roles,
// views, and a login for each session at level native.
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

	"github.com/posterngate/postern/dataplane/wall"
	"github.com/posterngate/postern/pkg/release"
	"github.com/posterngate/postern/pkg/telemetry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0 ok, 1 failed, 2 wrong usage or configuration.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("postern-wall", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "/etc/postern/wall.yaml", "configuration file")
	check := flags.Bool("check-config", false, "check the configuration and exit")
	version := flags.Bool("version", false, "print the release and exit")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *version {
		fmt.Fprintln(stdout, "postern-wall", release.Version)
		return 0
	}
	cfg, err := wall.Load(*file)
	if err != nil {
		fmt.Fprintln(stderr, "postern-wall:", err)
		return 2
	}
	if *check {
		fmt.Fprintln(stdout, "the configuration is good")
		return 0
	}
	tel, err := telemetry.Setup(ctx, cfg.Telemetry, "postern-wall", cfg.Name, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "postern-wall:", err)
		return 2
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = tel.Shutdown(ctx)
	}()
	w, err := wall.New(ctx, cfg, tel)
	if err == nil {
		err = w.Run(ctx)
	}
	if err != nil {
		tel.Logger.Error("wall failed", "error", err)
		return 1
	}
	return 0
}
