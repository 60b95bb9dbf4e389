package parts

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/posterngate/postern/bench/door"
	"github.com/posterngate/postern/dataplane/engine/postgres"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/sql/worker"
)

// Engine is the node's engine without the node. Policy empty: nothing is judged.
type Engine struct {
	Host, Account, Password, Database string
	Port                              int
	Resource                          string
	Policy                            string // YAML
}

// engineOnly answers any line with a door.Counts.
func engineOnly(ctx context.Context, g *run.Group, settings json.RawMessage) (any, func(string) (any, error), error) {
	var s Engine
	if err := json.Unmarshal(settings, &s); err != nil {
		return nil, nil, err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg := door.Config{Host: s.Host, Port: s.Port, Account: s.Account, Password: s.Password, Database: s.Database, Resource: postern.ResourceName(s.Resource), Logger: log}
	if s.Policy != "" {
		objects, err := object.ParseYAML(strings.NewReader(s.Policy))
		if err != nil {
			return nil, nil, err
		}
		snapshot, rejected := policy.Compile(postern.Version{Epoch: "bench", Revision: 1}, objects)
		if len(rejected) > 0 {
			return nil, nil, fmt.Errorf("the policy does not compile: %v", rejected)
		}
		cfg.Judge = snapshot
	}
	parser := worker.New(worker.Config{Logger: log})
	g.Go("parser", parser.Run)
	d, e := door.New(cfg), postgres.New(postgres.Config{AllowPlaintext: true, Parser: parser, Logger: log})
	hello, err := serve(g, func(_ context.Context, c *net.TCPConn) {
		if err := e.Serve(ctx, c, d); err != nil {
			log.Debug("session ended", "error", err)
		}
	})
	return hello, func(string) (any, error) { return d.Counts(), nil }, err
}
