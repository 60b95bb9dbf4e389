package sqlite_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/indextest"
	"github.com/posterngate/postern/controlplane/recording/index/sqlite"
)

func BenchmarkCommit(b *testing.B) {
	indextest.Benchmark(b, openBench, func() time.Duration { return 0 })
}

func BenchmarkAnswers(b *testing.B) {
	indextest.BenchmarkAnswers(b, openBench)
}

func openBench(b *testing.B) index.Index {
	x, err := sqlite.Open(context.Background(), filepath.Join(b.TempDir(), "index.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = x.Close() })
	return x
}
