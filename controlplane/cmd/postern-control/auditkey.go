package main

import (
	"flag"
	"fmt"
	"io"

	"github.com/posterngate/postern/controlplane"
	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/pkg/daemon"
)

// auditKey makes the key of the audit log anew, where the file is lost for good.
func auditKey(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("postern-control audit-key", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "/etc/postern/control.yaml", "configuration file")
	flags.Usage = func() {
		fmt.Fprint(stderr, "usage: postern-control audit-key [--config FILE]\n\nRun it where the file with the key of the audit log is lost, and no backup and no other replica has it.\n\n")
		flags.PrintDefaults()
	}
	if code, done := daemon.Parse(flags, args); done {
		return code
	}
	cfg, err := config.Load(*file)
	if err != nil {
		fmt.Fprintln(stderr, "postern-control audit-key:", err)
		return 2
	}
	verifier, err := controlplane.NewAuditKey(cfg)
	if err != nil {
		fmt.Fprintln(stderr, "postern-control audit-key:", err)
		return 1
	}
	fmt.Fprintf(stdout, "checkpoints from now on verify by %s\nTell whoever verifies the log; copy %s to every replica before one starts.\n", verifier, cfg.AuditKey)
	return 0
}
