package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/posterngate/postern/controlplane"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/telemetry"
)

// epochWait bounds the whole command.
const epochWait = time.Minute

// epoch gives a restored store a new epoch. Without it, nodes that have seen more than
// the backup would wait for revisions that never come. It tells what the audit log has and
// the backup has not: a lock that was lost is no lock.
func epoch(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, code, done := configured("epoch", "Run it once after etcd was restored from a backup, before the control plane starts.", args, stderr)
	if done {
		return code
	}
	log, err := telemetry.NewLogger(cfg.Telemetry, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "postern-control epoch:", err)
		return 2
	}
	ctx, cancel := context.WithTimeout(ctx, epochWait)
	defer cancel()
	undone := 0
	name, err := controlplane.NewEpoch(ctx, cfg, log, func(e *apiv1.AuditEntry) error {
		// Keys are no objects that people know, and what was sealed to a lost one stays shut.
		if len(e.GetChanges()) == 0 && !strings.Contains(e.GetObject(), "key/") {
			return nil
		}
		if undone++; undone == 1 {
			fmt.Fprintln(stdout, "The backup knows nothing of what was done since. Grants and locks are as they were then: do again what must hold.")
		}
		_, err := fmt.Fprintln(stdout, " ", e.GetTime().AsTime().Format(time.RFC3339), e.GetActor(), e.GetAction(), e.GetObject())
		return err
	})
	if err != nil {
		fmt.Fprintln(stderr, "postern-control epoch:", err)
		return 1
	}
	fmt.Fprintf(stdout, "the store has the new epoch %s; start the control plane\n", name)
	return 0
}
