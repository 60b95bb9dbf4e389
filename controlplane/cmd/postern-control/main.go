// Command postern-control is the control plane: it keeps policy, lends credentials, and takes
// records in. With "init" it writes a first configuration, with "epoch" it marks a store
// that was restored from a backup.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/posterngate/postern/controlplane"
	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/pkg/release"
	"github.com/posterngate/postern/pkg/telemetry"
)

const usage = `usage: postern-control [--config FILE]
       postern-control init --issuer URL --admin-group GROUP [--dir DIR]
       postern-control epoch [--config FILE]

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0 ok, 1 failed, 2 wrong usage or configuration.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch args[0] {
		case "init":
			return initialise(args[1:], stdout, stderr)
		case "epoch":
			return epoch(ctx, args[1:], stdout, stderr)
		}
	}
	flags := flag.NewFlagSet("postern-control", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	file := flags.String("config", "/etc/postern/control.yaml", "configuration file")
	check := flags.Bool("check-config", false, "check the configuration and exit")
	version := flags.Bool("version", false, "print the release and exit")
	if !parse(flags, args) {
		return 2
	}
	if *version {
		fmt.Fprintln(stdout, "postern-control", release.Version)
		return 0
	}
	cfg, err := config.Load(*file)
	if err != nil {
		fmt.Fprintln(stderr, "postern-control:", err)
		return 2
	}
	if *check {
		fmt.Fprintln(stdout, "the configuration is good")
		return 0
	}
	tel, err := telemetry.Setup(ctx, cfg.Telemetry, "postern-control", cfg.API.Addr, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "postern-control:", err)
		return 2
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = tel.Shutdown(ctx)
	}()
	server, err := controlplane.New(ctx, cfg, tel)
	if err == nil {
		// For those who set up clients: POSTERN_CA is a copy of this file.
		if err := os.WriteFile(filepath.Join(cfg.DataDir, "ca.pem"), server.CA(), 0o644); err != nil { //nolint:gosec // a certificate is public
			tel.Logger.Warn("the CA for clients could not be written", "error", err)
		}
		err = server.Run(ctx)
	}
	if err != nil {
		tel.Logger.Error("control plane failed", "error", err)
		return 1
	}
	return 0
}

// parse reads flags; what is wrong has been told once it returns false.
func parse(flags *flag.FlagSet, args []string) bool {
	if flags.Parse(args) != nil {
		return false
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(flags.Output(), "%s: what is %q?\n", flags.Name(), flags.Arg(0))
		flags.Usage()
		return false
	}
	return true
}
