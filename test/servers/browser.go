package servers

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

// A Browser is Debian's Chromium, and what drives it.
type Browser struct {
	Chromium string // the program
	Modules  string // the folder with playwright-core, for NODE_PATH
}

// Chromium finds the browser, and for root installs it where it is not there. A machine
// that can have neither fails the test.
func Chromium(t testing.TB) Browser {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	log := func(s string) { t.Log(s) }
	there := func() bool { return onPath("chromium") != "" && onPath("node") != "" && onPath("npm") != "" }
	if !there() {
		if os.Geteuid() != 0 || onPath("apt-get") == "" {
			t.Fatal("no browser: install the packages chromium, nodejs and npm")
		}
		err := withApt(ctx, log, "chromium", there, func(install func(...string) error) error {
			packages := []string{"chromium"}
			if onPath("node") == "" || onPath("npm") == "" {
				packages = append(packages, "nodejs", "npm")
			}
			return install(packages...)
		})
		if err == nil && !there() {
			err = errors.New("installing it did not help")
		}
		if err != nil {
			t.Fatalf("no browser: %v", err)
		}
	}
	modules, err := npm(ctx, "browser", log)
	if err != nil {
		t.Fatalf("nothing to drive the browser: %v", err)
	}
	return Browser{Chromium: onPath("chromium"), Modules: modules}
}
