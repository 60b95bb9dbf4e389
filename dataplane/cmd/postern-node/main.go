// Command postern-node is a data-plane node: it terminates protocols, enforces tasks,
// and ships what it recorded.
package main

import (
	"context"
	"time"

	"github.com/posterngate/postern/dataplane"
	"github.com/posterngate/postern/dataplane/config"
	"github.com/posterngate/postern/pkg/daemon"
	"github.com/posterngate/postern/pkg/sql/worker"
	"github.com/posterngate/postern/pkg/telemetry"
)

func main() {
	worker.Main()
	daemon.Main(program.Run)
}

var program = daemon.Program[config.Config]{
	Name: "postern-node", File: "/etc/postern/node.yaml", Usage: "usage: postern-node [--config FILE]\n\n", Load: dataplane.Load,
	Telemetry: func(cfg config.Config) (telemetry.Config, string) { return cfg.Telemetry, cfg.Name },
	Serve: func(ctx context.Context, cfg config.Config, tel *telemetry.T) error {
		node, err := dataplane.New(ctx, cfg, tel)
		if err != nil {
			return err
		}
		return node.Run(ctx)
	},
	Stop: func(cfg config.Config) time.Duration { return time.Duration(cfg.Drain) + 25*time.Second },
}
