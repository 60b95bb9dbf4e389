package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/indextest"
	"github.com/posterngate/postern/controlplane/recording/index/sqlite"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

func open(t *testing.T, path string) *sqlite.Index {
	t.Helper()
	x, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func TestIndex(t *testing.T) {
	indextest.Run(t, func(t *testing.T) index.Index { return open(t, filepath.Join(t.TempDir(), "a folder?", "index#1.db")) })
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	open(t, path)
	open(t, path) // beside the first, with the schema as it is
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestCloseLeavesOneFile, which has all that was written: whoever copies it needs no other.
func TestCloseLeavesOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	x, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	now := timestamppb.Now()
	err = x.Commit(t.Context(), &index.Update{
		Session: &typesv1.Session{Id: "s", Recording: "open", StartTime: now, LastTime: now},
		Head:    index.Head{Next: 1, Previous: record.Hash{1}, Node: "n1"}, Chunks: []index.Stored{{Hash: record.Hash{1}, Size: 1}},
	})
	if err = errors.Join(err, x.Close()); err != nil {
		t.Fatal(err)
	}
	if files, err := filepath.Glob(path + "*"); err != nil || !slices.Equal(files, []string{path}) {
		t.Errorf("%v, %v", files, err)
	}
}

// TestForgetLeavesNothing of what was said in the file.
func TestForgetLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	ctx := t.Context()
	with := func(fn func(x *sqlite.Index)) {
		x, err := sqlite.Open(ctx, path)
		if err != nil {
			t.Fatal(err)
		}
		fn(x)
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// What is in the log of writes is brought to the file, as it is from time to time.
	said := func() (n int) {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(path + "*")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			n += bytes.Count(text, []byte("zebra"))
		}
		return n
	}
	began := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	with(func(x *sqlite.Index) {
		for i, day := range []time.Time{began, began.Add(48 * time.Hour)} {
			u := &index.Update{
				Session: &typesv1.Session{Id: fmt.Sprint("s-", i), Protocol: "postgres", Recording: "sealed",
					StartTime: timestamppb.New(day), LastTime: timestamppb.New(day), EndTime: timestamppb.New(day)},
				Head:   index.Head{Next: 1, Previous: record.Hash{1}, Sealed: true, Node: "n1"},
				Chunks: []index.Stored{{Hash: record.Hash{1}, Size: 1}},
			}
			for n := range uint64(200) {
				text := "SELECT now() -- day 2"
				if i == 0 {
					text = fmt.Sprintf("SELECT * FROM streets WHERE note = 'zebra crossing %d' -- %0500d", n, n)
				}
				u.Statements = append(u.Statements, index.Statement{Number: n + 1, Seq: n + 2, Time: day, Text: text, Verdict: postern.VerdictAllow})
				if n >= 100 { // it ended, and shares a row with others
					u.Outcomes = append(u.Outcomes, index.Outcome{Number: n + 1, Verdict: postern.VerdictAllow})
				}
			}
			if err := x.Commit(ctx, u); err != nil {
				t.Fatal(err)
			}
		}
	})
	if said() < 200 {
		t.Fatalf("%d texts are in the file", said())
	}
	with(func(x *sqlite.Index) {
		if gone, err := x.Forget(ctx, []postern.SessionID{"s-0"}); err != nil || len(gone) != 1 {
			t.Fatalf("%v went, %v", gone, err)
		}
	})
	if n := said(); n > 0 {
		t.Errorf("%d texts are left in the file", n)
	}
}
