package servers

import (
	"context"
	"os"
	"testing"
	"time"
)

const programInstallTime = 10 * time.Minute

// Program is the path of a program, which a package of Debian brings where it is not
// there.
func Program(t testing.TB, name, pkg string) string {
	t.Helper()
	if path := onPath(name); path != "" {
		return path
	}
	if os.Geteuid() != 0 || onPath("apt-get") == "" {
		t.Fatalf("no %s: install the package %s", name, pkg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), programInstallTime)
	defer cancel()
	err := withApt(ctx, logTo(t), name, func() bool { return onPath(name) != "" }, func(install func(...string) error) error { return install(pkg) })
	if err != nil {
		t.Fatal(err)
	}
	path := onPath(name)
	if path == "" {
		t.Fatalf("installing %s did not bring %s", pkg, name)
	}
	return path
}
