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
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Index is an index.Index in a file.
type Index struct {
	writer *sql.DB // of one connection, since SQLite has one writer
	reader *sql.DB
}

var _ index.Index = (*Index)(nil)

// readers is how many queries may run at a time.
const readers = 4

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
	// In WAL mode synchronous=NORMAL may lose the newest commits with the power, whole;
	// the recordings themselves are synced, and are read again at the next start.
	dsn := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: url.Values{
		"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)", "foreign_keys(ON)"},
		"_txlock": {"immediate"},
	}.Encode()}).String()
	x := &Index{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("index: open %s: %w", path, err), x.Close())
		}
	}()
	if x.writer, err = sql.Open("sqlite", dsn); err != nil {
		return nil, err
	}
	x.writer.SetMaxOpenConns(1)
	if x.reader, err = sql.Open("sqlite", dsn); err != nil {
		return nil, err
	}
	x.reader.SetMaxOpenConns(readers)
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
	return x, nil
}

// Close closes the file.
func (x *Index) Close() error {
	var errs []error
	for _, db := range []*sql.DB{x.writer, x.reader} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Head implements index.Index.
func (x *Index) Head(ctx context.Context, id postern.SessionID) (index.Head, error) {
	var h index.Head
	var previous []byte
	err := x.reader.QueryRowContext(ctx, `SELECT next, previous, span_first, span_last, span_open, open_from, sealed, shipper,
		events, statements, denied, row_count, bytes, last_statement, node_key FROM session WHERE id = ?`, string(id)).Scan(
		&h.Next, &previous, &h.Span.First, &h.Span.Last, &h.Span.Open, &h.OpenFrom, &h.Sealed, &h.Node,
		&h.Tally.Events, &h.Tally.Statements, &h.Tally.Denied, &h.Tally.Rows, &h.Tally.Bytes, &h.Tally.Statement, &h.NodeKey)
	if errors.Is(err, sql.ErrNoRows) {
		return index.Head{}, nil
	}
	if err == nil {
		h.Previous, err = hash(previous)
	}
	if err != nil {
		return index.Head{}, fmt.Errorf("index: head of session %s: %w", id, err)
	}
	return h, nil
}

func hash(b []byte) (record.Hash, error) {
	if len(b) != len(record.Hash{}) {
		return record.Hash{}, fmt.Errorf("a hash of %d bytes", len(b))
	}
	return record.Hash(b), nil
}

// Chunk implements index.Index.
func (x *Index) Chunk(ctx context.Context, id postern.SessionID, number uint32) (record.Hash, error) {
	var b []byte
	err := x.reader.QueryRowContext(ctx, `SELECT hash FROM chunk WHERE session = ? AND number = ?`, string(id), number).Scan(&b)
	if errors.Is(err, sql.ErrNoRows) {
		return record.Hash{}, index.ErrNotFound
	}
	if err != nil {
		return record.Hash{}, fmt.Errorf("index: chunk %d of session %s: %w", number, id, err)
	}
	return hash(b)
}
