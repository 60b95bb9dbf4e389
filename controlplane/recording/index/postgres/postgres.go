// Package postgres is the index in a PostgreSQL database, which replicas share. Each
// day's rows have partitions of their own, made when the first session of a day comes
// and dropped with its last.
package postgres

import (
	"context"
	"database/sql"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/query"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Config says where the database is.
type Config struct {
	// URL as libpq takes it, with sslmode and sslrootcert.
	URL string
	// Password of the user; empty where the URL, a file of libpq or the server asks for
	// none.
	Password string
	// Connections at most, half of them for questions; 0 is 8, and less than 3 is 3.
	Connections int
}

// Index is an index.Index in a database.
type Index struct {
	query.Reader
	batch index.Batcher
	pool  *pgxpool.Pool

	mu       sync.Mutex
	days     map[index.Day]bool // that have partitions
	wordings map[wordingKey]struct{}
}

var _ index.Index = (*Index)(nil)

const connections = 8

var dialect = query.Dialect{
	Numbered:      true,
	StatementOf:   " AND st.day = s.day",
	PackOf:        " AND k.day = s.day",
	WordingOf:     "w.id = st.wording AND w.day = st.day",
	ID:            func(id index.WordingID) any { return hex.EncodeToString(id[:]) },
	Matching:      "SELECT id FROM wording WHERE words @@ CAST(? AS tsquery)",
	MatchingIDs:   "SELECT id FROM wording WHERE words @@ CAST(? AS tsquery)",
	MatchingPacks: "SELECT * FROM pack WHERE words @@ CAST(? AS tsquery)",
	Match:         match,
}

// match is a tsquery: all terms, each in quotes, which no term has in it.
func match(terms []string, prefix []bool) string {
	out := make([]string, len(terms))
	for i, t := range terms {
		out[i] = "'" + t + "'"
		if prefix[i] {
			out[i] += ":*"
		}
	}
	return strings.Join(out, " & ")
}

// Open connects and brings the schema up to date; of several replicas one does.
func Open(ctx context.Context, c Config) (_ *Index, err error) {
	cfg, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err) // pgx leaves the password out
	}
	if c.Password != "" {
		cfg.ConnConfig.Password = c.Password
	}
	most := connections
	if c.Connections > 0 {
		most = max(3, min(c.Connections, 1000))
	}
	looking := max(1, most/8) // for what statements say, on behalf of questions
	asking := max(1, most/2-looking)
	cfg.MaxConns = int32(most - asking - looking)
	cfg.ConnConfig.RuntimeParams["application_name"] = "postern-control"
	cfg.ConnConfig.RuntimeParams["jit"] = "off"
	x := &Index{days: map[index.Day]bool{}, wordings: map[wordingKey]struct{}{}}
	if x.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("index: open %s at %s: %w", cfg.ConnConfig.Database, cfg.ConnConfig.Host, err), x.Close())
		}
	}()
	x.DB, x.Dialect = stdlib.OpenDB(*reading(cfg.ConnConfig)), dialect
	x.DB.SetMaxOpenConns(asking)
	x.Words = stdlib.OpenDB(*reading(cfg.ConnConfig))
	x.Words.SetMaxOpenConns(looking)
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60))
	if err != nil {
		return nil, err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, x.DB, sub, goose.WithSessionLocker(locker))
	if err != nil {
		return nil, err
	}
	if _, err := p.Up(ctx); err != nil {
		return nil, err
	}
	x.batch.Commit = x.commit
	return x, nil
}

// reading is a configuration for questions. Each is written to be answered by walking
// indexes from marks, in the order in which it joins; of a day that was just filled the
// planner knows nothing, and would rather read and hash all of it: minutes for a search of
// ten million statements instead of milliseconds.
func reading(c *pgx.ConnConfig) *pgx.ConnConfig {
	c = c.Copy()
	for name, value := range map[string]string{
		"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
		"join_collapse_limit": "1", "max_parallel_workers_per_gather": "0",
	} {
		c.RuntimeParams[name] = value
	}
	return c
}

// Close closes the connections.
func (x *Index) Close() error {
	var errs []error
	for _, db := range []*sql.DB{x.DB, x.Words} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	x.pool.Close()
	return errors.Join(errs...)
}

// Commit implements index.Index.
func (x *Index) Commit(ctx context.Context, u *index.Update) error { return x.batch.Do(ctx, u) }

// partitioned are the tables that have partitions by day.
var partitioned = []string{"chunk", "wording", "statement", "pack", "span", "said", "touch"}

// Days further from now than this have no partition of their own.
const (
	pastDays   = 400
	futureDays = 2
)

// partitionLock is the advisory lock under which partitions are made and dropped.
const partitionLock = 0x706f7374

// partition makes the partitions of a day, if it is to have any.
func (x *Index) partition(ctx context.Context, day index.Day) error {
	today := index.DayOf(time.Now())
	if day < today-pastDays || day > today+futureDays {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.days[day] {
		return nil
	}
	tx, err := x.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, partitionLock); err != nil {
		return err
	}
	for _, table := range partitioned {
		if _, err := tx.Exec(ctx, fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s PARTITION OF %s FOR VALUES IN (%d)`, partitionOf(table, day), table, day)); err != nil {
			return fmt.Errorf("make the partition of day %d: %w", day, err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	x.days[day] = true
	return nil
}

func partitionOf(table string, day index.Day) string {
	return table + "_" + day.Start().Format("20060102")
}
