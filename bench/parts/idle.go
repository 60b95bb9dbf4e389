package parts

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/bench/load"
	"github.com/posterngate/postern/pkg/run"
)

// Idle is sessions that ran one statement and then do nothing.
type Idle struct {
	Where    load.Where
	Sessions int
	SQL      string
}

// Connect logs in.
func Connect(ctx context.Context, w load.Where) (*pgconn.PgConn, error) {
	mode := "sslmode=disable"
	if w.CA != "" {
		mode = "sslmode=verify-full sslrootcert=" + w.CA
	}
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s connect_timeout=30 %s", w.Host, w.Port, w.User, w.Database, mode))
	if err != nil {
		return nil, err
	}
	cfg.Password = w.Password
	return pgconn.ConnectConfig(ctx, &cfg.Config)
}

func idle(ctx context.Context, _ *run.Group, settings json.RawMessage) (any, func(string) (any, error), error) {
	var s Idle
	if err := json.Unmarshal(settings, &s); err != nil {
		return nil, nil, err
	}
	held := make([]*pgconn.PgConn, 0, s.Sessions)
	for range s.Sessions {
		c, err := Connect(ctx, s.Where)
		if err != nil {
			return nil, nil, err
		}
		if _, err := c.Exec(ctx, s.SQL).ReadAll(); err != nil {
			return nil, nil, err
		}
		held = append(held, c)
	}
	return struct{}{}, func(string) (any, error) { return len(held), nil }, nil
}
