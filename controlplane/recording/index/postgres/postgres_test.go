package postgres_test

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/bench/account"
	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/indextest"
	"github.com/posterngate/postern/controlplane/recording/index/postgres"
	"github.com/posterngate/postern/test/servers"
)

// open makes a new database for each index.
func open(t testing.TB, pg *servers.PG) *postgres.Index {
	t.Helper()
	return openIn(t, pg, newDatabase(t, pg))
}

func newDatabase(t testing.TB, pg *servers.PG) string {
	t.Helper()
	name := "index_" + strings.ToLower(rand.Text())
	pg.SQL(t, `CREATE DATABASE `+name)
	return name
}

func openIn(t testing.TB, pg *servers.PG, name string) *postgres.Index {
	t.Helper()
	x, err := postgres.Open(context.Background(), postgres.Config{URL: pg.SuperDSN(name)})
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
	pg := servers.Postgres(t)
	indextest.Run(t, func(t *testing.T) index.Index { return open(t, pg) })
}

// TestReplicas opens a new database from many sides at once.
func TestReplicas(t *testing.T) {
	pg := servers.Postgres(t)
	pg.SQL(t, `CREATE DATABASE replicas`)
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() {
			x, err := postgres.Open(context.Background(), postgres.Config{URL: pg.SuperDSN("replicas"), Connections: 2})
			if err == nil {
				err = x.Close()
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkCommit takes in with the indexes of words, as it is (tsvector), and without them
// (btree), for what they cost.
func BenchmarkCommit(b *testing.B) {
	pg := servers.Postgres(b)
	dir := strings.TrimSpace(pg.SQL(b, `SHOW data_directory`)[0][0])
	text, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		b.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	postmaster, err := strconv.Atoi(first)
	if err != nil {
		b.Fatal(err)
	}
	used := func() time.Duration { return account.Sum(account.Children(postmaster)) }
	b.Run("tsvector", func(b *testing.B) {
		indextest.Benchmark(b, func(b *testing.B) index.Index { return open(b, pg) }, used)
	})
	b.Run("btree", func(b *testing.B) {
		indextest.Benchmark(b, func(b *testing.B) index.Index {
			name := newDatabase(b, pg)
			x := openIn(b, pg, name)
			pg.SQLIn(b, name, `DROP INDEX wording_words, pack_words`)
			return x
		}, used)
	})
}

func BenchmarkAnswers(b *testing.B) {
	pg := servers.Postgres(b)
	indextest.BenchmarkAnswers(b, func(b *testing.B) index.Index { return open(b, pg) })
}
