// Command postern-wall keeps tasks as privileges of the targets themselves: roles,
// views, and a login for each session at level native.
package main

import (
	"context"
	"time"

	"github.com/posterngate/postern/dataplane/wall"
	"github.com/posterngate/postern/pkg/daemon"
	"github.com/posterngate/postern/pkg/telemetry"
)

func main() { daemon.Main(program.Run) }

var program = daemon.Program[wall.Config]{
	Name: "postern-wall", File: "/etc/postern/wall.yaml", Usage: "usage: postern-wall [--config FILE]\n\n", Load: wall.Load,
	Telemetry: func(cfg wall.Config) (telemetry.Config, string) { return cfg.Telemetry, cfg.Name },
	Serve: func(ctx context.Context, cfg wall.Config, tel *telemetry.T) error {
		w, err := wall.New(ctx, cfg, tel)
		if err != nil {
			return err
		}
		return w.Run(ctx)
	},
	Stop: func(wall.Config) time.Duration { return 25 * time.Second },
}
