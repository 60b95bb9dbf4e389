// Package sqlite is the index in one SQLite file, for a single control-plane process.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/query"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Index is an index.Index in a file.
type Index struct {
	query.Reader
	batch  index.Batcher
	writer *sql.DB // of one connection, since SQLite has one writer
	commit *committer
}

var _ index.Index = (*Index)(nil)

// readers is how many queries may run at a time, and how many looks at what statements
// say, on behalf of these.
const (
	readers = 4
	lookers = 2
)

// pageCache bounds the pages that one connection keeps in memory, in KiB: the kernel keeps
// them, too. Taking in a million statements costs as much with sixteen times of it.
const pageCache = 2 << 10

// Open opens the file at path, makes it if it is missing, and brings its schema up to
// date.
func Open(ctx context.Context, path string) (_ *Index, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	// The driver would make it readable for others.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	x := &Index{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("index: open %s: %w", path, err), x.Close())
		}
	}()
	if x.writer, err = sql.Open("sqlite", dsn(path)); err != nil {
		return nil, err
	}
	x.writer.SetMaxOpenConns(1)
	x.Dialect = dialect
	if x.DB, err = sql.Open("sqlite", dsn(path)); err != nil {
		return nil, err
	}
	x.DB.SetMaxOpenConns(readers)
	if x.Words, err = sql.Open("sqlite", dsn(path)); err != nil {
		return nil, err
	}
	x.Words.SetMaxOpenConns(lookers)
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, x.writer, sub)
	if err != nil {
		return nil, err
	}
	if _, err := p.Up(ctx); err != nil {
		return nil, err
	}
	if x.commit, err = newCommitter(ctx, x.writer); err != nil {
		return nil, err
	}
	x.batch.Commit = x.commit.do
	return x, nil
}

// dsn is how a connection is opened. In WAL mode synchronous=NORMAL may lose the newest
// commits with the power, whole; the recordings themselves are synced, and are read again at
// the next start. What rows leave behind in a page when it is parted is to be gone with them.
func dsn(path string) string {
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: url.Values{
		"_pragma": {
			"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)", "secure_delete(FAST)", "foreign_keys(ON)",
			fmt.Sprintf("cache_size(-%d)", pageCache), "wal_autocheckpoint(4000)",
		},
		"_txlock": {"immediate"},
	}.Encode()}).String()
}

// Close closes the file.
func (x *Index) Close() error {
	var errs []error
	if x.commit != nil {
		errs = append(errs, x.commit.close())
	}
	for _, db := range []*sql.DB{x.writer, x.DB, x.Words} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Commit implements index.Index.
func (x *Index) Commit(ctx context.Context, u *index.Update) error { return x.batch.Do(ctx, u) }
