// Command postern-control is the control plane: it keeps policy, lends credentials, and takes
// records in. With "init" it writes a first configuration, with "epoch" it marks a store
// that was restored from a backup, and with "audit-key" it replaces a key that is lost.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/posterngate/postern/controlplane"
	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/pkg/daemon"
	"github.com/posterngate/postern/pkg/telemetry"
)

const usage = `usage: postern-control [--config FILE]
       postern-control init --issuer URL --admin-group GROUP [--dir DIR]
       postern-control epoch [--config FILE]
       postern-control audit-key [--config FILE]

`

func main() { daemon.Main(run) }

// run returns the exit code: 0 ok, 1 failed, 2 wrong usage or configuration.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch args[0] {
		case "init":
			return initialise(args[1:], stdout, stderr)
		case "epoch":
			return epoch(ctx, args[1:], stdout, stderr)
		case "audit-key":
			return auditKey(args[1:], stdout, stderr)
		}
	}
	return program.Run(ctx, args, stdout, stderr)
}

// configured reads the arguments of a command of its own, which takes a configuration and no
// more. Where it is done the command ends with code.
func configured(command, about string, args []string, stderr io.Writer) (cfg config.Config, code int, done bool) {
	flags := flag.NewFlagSet("postern-control "+command, flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", program.File, "configuration file")
	flags.Usage = func() {
		fmt.Fprintf(stderr, "usage: postern-control %s [--config FILE]\n\n%s\n\n", command, about)
		flags.PrintDefaults()
	}
	if code, done := daemon.Parse(flags, args); done {
		return cfg, code, true
	}
	cfg, err := config.Load(*file)
	if err != nil {
		fmt.Fprintf(stderr, "postern-control %s: %v\n", command, err)
		return cfg, 2, true
	}
	return cfg, 0, false
}

var program = daemon.Program[config.Config]{
	Name: "postern-control", File: "/etc/postern/control.yaml", Usage: usage, Load: controlplane.Load,
	// What it takes in of recordings is garbage a moment later, and what lives is little.
	Garbage:   200,
	Telemetry: func(cfg config.Config) (telemetry.Config, string) { return cfg.Telemetry, cfg.API.Addr },
	Serve: func(ctx context.Context, cfg config.Config, tel *telemetry.T) error {
		server, err := controlplane.New(ctx, cfg, tel)
		if err != nil {
			return err
		}
		// For those who set up clients: POSTERN_CA is a copy of this file.
		if err := os.WriteFile(filepath.Join(cfg.DataDir, "ca.pem"), server.CA(), 0o644); err != nil { //nolint:gosec // a certificate is public
			tel.Logger.Warn("the CA for clients could not be written", "error", err)
		}
		return server.Run(ctx)
	},
	Stop: func(config.Config) time.Duration { return 45 * time.Second },
}
