package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/posterngate/postern/controlplane"
	"github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/pkg/daemon"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/telemetry"
)

// epochWait bounds the whole command.
const epochWait = time.Minute

// epoch gives a restored store a new epoch. Without it, nodes that have seen more than
// the backup would wait for revisions that never come. It tells what the audit log has and
// the backup has not: a lock that was lost is no lock.
func epoch(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("postern-control epoch", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("config", "/etc/postern/control.yaml", "configuration file")
	flags.Usage = func() {
		fmt.Fprint(stderr, "usage: postern-control epoch [--config FILE]\n\nRun it once after etcd was restored from a backup, before the control plane starts.\n\n")
		flags.PrintDefaults()
	}
	if code, done := daemon.Parse(flags, args); done {
		return code
	}
	cfg, err := config.Load(*file)
	if err != nil {
		fmt.Fprintln(stderr, "postern-control epoch:", err)
		return 2
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
