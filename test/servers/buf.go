package servers

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

// Buf is the path of buf, at the version that generates the code; a package of npm brings
// it where it is not there. Its wrapper of JavaScript is left out, so that who ends the
// program ends all of it.
func Buf(t testing.TB) string {
	t.Helper()
	Program(t, "npm", "npm")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	modules, err := npm(ctx, "buf", logTo(t))
	if err != nil {
		t.Fatalf("no buf: %v", err)
	}
	found, err := filepath.Glob(filepath.Join(modules, "@bufbuild", "buf-*", "bin", "buf"))
	if err != nil || len(found) != 1 {
		t.Fatalf("npm brought no buf for this machine: %v %v", found, err)
	}
	return found[0]
}
