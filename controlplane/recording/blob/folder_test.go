package blob_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/controlplane/recording/blob/blobtest"
)

func openFolder(t *testing.T, dir string) *blob.Folder {
	t.Helper()
	f, err := blob.OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func TestFolder(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Blobs { return openFolder(t, filepath.Join(t.TempDir(), "blobs")) })
}

// Nothing stays of what was deleted, and what is beside it does.
func TestFolderDeletesFolders(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blobs")
	f := openFolder(t, dir)
	ctx := context.Background()
	for _, name := range []string{"r/1/a/0", "r/1/a/1", "r/2/b/0"} {
		if err := f.Create(ctx, name, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ name, gone, stays string }{
		{"r/1/a/1", "r/1/a/1", "r/1/a/0"},
		{"r/1/a/0", "r/1", "r/2/b/0"},
		{"r/2/b/0", "r", ""},
	} {
		if err := f.Delete(ctx, c.name); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, c.gone)); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", c.gone, err)
		}
		if _, err := os.Stat(filepath.Join(dir, c.stays)); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"r/2/b/0", "r/2/c/0"} {
		if err := f.Create(ctx, name, []byte("x")); err != nil {
			t.Errorf("after its folder went: %v", err)
		}
	}
}

func TestFolderModesAndLeftovers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blobs")
	f := openFolder(t, dir)
	if err := f.Create(context.Background(), "a/b/0", []byte("x")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// What a process left that was killed while it wrote is no blob.
	if err := os.WriteFile(filepath.Join(dir, "a/b/.new-x"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	for name, err := range f.List(context.Background(), "") {
		if err != nil || name != "a/b/0" {
			t.Errorf("%s, %v", name, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d blobs", n)
	}
}
