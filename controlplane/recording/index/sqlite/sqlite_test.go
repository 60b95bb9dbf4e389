package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/indextest"
	"github.com/posterngate/postern/controlplane/recording/index/sqlite"
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
