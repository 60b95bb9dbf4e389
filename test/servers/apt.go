package servers

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
)

// withApt installs packages of Debian, one process at a time, where they are not there.
func withApt(ctx context.Context, log func(string), what string, there func() bool, do func(install func(packages ...string) error) error) error {
	cache, err := CacheDir()
	if err != nil {
		return err
	}
	unlock, err := lockFile(ctx, filepath.Join(cache, "apt.lock"), func() { log("waiting for another process that installs packages") })
	if err != nil {
		return err
	}
	defer unlock()
	if there() {
		return nil
	}
	log("installing " + what + " with apt-get (once)")
	apt := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		return runLogged(ctx, "apt-get "+args[0], cmd, filepath.Join(cache, "apt.log"), log)
	}
	if err := apt("update", "-q"); err != nil {
		return err
	}
	return do(func(packages ...string) error {
		return apt(append([]string{"install", "-q", "-y", "--no-install-recommends"}, packages...)...)
	})
}
