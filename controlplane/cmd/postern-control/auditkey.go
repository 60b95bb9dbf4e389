package main

import (
	"fmt"
	"io"

	"github.com/posterngate/postern/controlplane"
)

// auditKey makes the key of the audit log anew, where the file is lost for good.
func auditKey(args []string, stdout, stderr io.Writer) int {
	cfg, code, done := configured("audit-key", "Run it where the file with the key of the audit log is lost, and no backup and no other replica has it.", args, stderr)
	if done {
		return code
	}
	verifier, err := controlplane.NewAuditKey(cfg)
	if err != nil {
		fmt.Fprintln(stderr, "postern-control audit-key:", err)
		return 1
	}
	fmt.Fprintf(stdout, "checkpoints from now on verify by %s\nTell whoever verifies the log; copy %s to every replica before one starts.\n", verifier, cfg.AuditKey)
	return 0
}
