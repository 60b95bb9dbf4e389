package tree

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, dir string, key Key) *Tree {
	t.Helper()
	tr, err := Open(t.Context(), dir, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestACheckpointThatIsNotMade: where no checkpoint comes, who appends is told, instead of waiting
// for ever. A clock that was put back is a reason for it, and none once the tree is opened anew.
func TestACheckpointThatIsNotMade(t *testing.T) {
	dir := t.TempDir()
	key, err := OpenKey(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	tr := open(t, dir, key)
	if err := tr.Append(t.Context(), 0, [][]byte{[]byte("a")}); err != nil {
		t.Fatal(err)
	}
	ahead := time.Now().AddDate(1, 0, 0)
	if err := os.Chtimes(filepath.Join(dir, "checkpoint"), ahead, ahead); err != nil {
		t.Fatal(err)
	}
	tr.wait = 10 * time.Millisecond
	if err := tr.Append(t.Context(), 1, [][]byte{[]byte("b")}); err == nil || !strings.Contains(err.Error(), "none tells of leaf 1") {
		t.Errorf("appended, and no checkpoint was made: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.Close(over); err == nil {
		t.Error("closed, with a leaf of which no checkpoint tells")
	}

	again := open(t, dir, key)
	defer again.Close(t.Context())
	if size, err := again.Size(t.Context()); err != nil || size != 2 {
		t.Fatalf("%d leaves, %v", size, err)
	}
	if err := again.Append(t.Context(), 2, [][]byte{[]byte("c")}); err != nil {
		t.Errorf("opened anew: %v", err)
	}
}

// TestWhatCannotBeWritten: a folder into which nothing can be written says so, and a good one has
// nothing left of the trial.
func TestWhatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	if err := (&Tree{dir: dir}).writable(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	if err := (&Tree{dir: filepath.Join(dir, "gone")}).writable(); err == nil {
		t.Error("a folder that is gone can be written")
	}
}
