package drivers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// debianPython is the interpreter that Debian's python3-* packages belong to; another
// one that comes first on PATH would not see them.
const debianPython = "/usr/bin/python3"

// debianRuby is the interpreter that Debian's ruby-* packages belong to.
const debianRuby = "/usr/bin/ruby"

// odbcDriver is the name by which Debian's odbc-postgresql registers itself.
const odbcDriver = "PostgreSQL Unicode"

// postgresJar is where Debian's libpostgresql-jdbc-java puts the driver.
const postgresJar = "/usr/share/java/postgresql.jar"

// installTime bounds one installation.
const installTime = 5 * time.Minute

// A part is something stock that a driver needs, and the Debian packages that have it.
type part struct {
	packages string
	there    func() bool
}

func file(path string) func() bool {
	return func() bool { _, err := os.Stat(path); return err == nil }
}

func program(name string) func() bool {
	return func() bool { _, err := exec.LookPath(name); return err == nil }
}

func runs(program string, args ...string) func() bool {
	return func() bool { return exec.Command(program, args...).Run() == nil }
}

func pythonModule(name string) func() bool {
	return func() bool { return exec.Command(debianPython, "-I", "-c", "import "+name).Run() == nil }
}

var (
	psycopg2   = part{"python3-psycopg2", pythonModule("psycopg2")}
	psycopg3   = part{"python3-psycopg", pythonModule("psycopg")}
	asyncpg    = part{"python3-asyncpg", pythonModule("asyncpg")}
	sqlalchemy = part{"python3-sqlalchemy", pythonModule("sqlalchemy")}
	djangoORM  = part{"python3-django", pythonModule("django")}
	// activeRecord is Rails' ORM, and the driver that it uses.
	activeRecord = part{"ruby ruby-pg ruby-activerecord", runs(debianRuby, "-e", "require 'pg'; require 'active_record'")}
	perlDBI      = part{"perl libdbd-pg-perl", runs("perl", "-MDBD::Pg", "-e", "1")}
	odbc         = part{"unixodbc odbc-postgresql", func() bool { return program("isql")() && runs("odbcinst", "-q", "-d", "-n", odbcDriver)() }}
	jdbc         = part{"libpostgresql-jdbc-java", file(postgresJar)}
	// java runs a single source file only where the compiler is there too.
	jdk  = part{"default-jdk-headless", func() bool { return program("java")() && program("javac")() }}
	node = part{"nodejs npm", func() bool { return program("node")() && program("npm")() }}
)

// need makes sure that the parts are there: what is missing is installed by root, and
// otherwise fails the test with the name of the package.
func need(t *testing.T, parts ...part) {
	t.Helper()
	for _, p := range parts {
		if p.there() {
			continue
		}
		if os.Geteuid() != 0 || !program("apt-get")() {
			t.Fatalf("missing: install the packages %s", p.packages)
		}
		install(t, p)
		if !p.there() {
			t.Fatalf("installing %s did not help: what it should bring is still not there", p.packages)
		}
	}
}

func install(t *testing.T, p part) {
	t.Helper()
	unlock := lock(t, "apt.lock")
	defer unlock()
	if p.there() {
		return
	}
	t.Logf("installing %s with apt-get (once)", p.packages)
	apt := func(args ...string) error {
		ctx, cancel := context.WithTimeout(t.Context(), installTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, "apt-get", append(args, "-q", "-o", "DPkg::Lock::Timeout=120")...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Logf("apt-get %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return err
	}
	args := append([]string{"install", "-y", "--no-install-recommends"}, strings.Fields(p.packages)...)
	if apt(args...) == nil {
		return
	}
	// The lists may be missing or too old.
	if err := errors.Join(apt("update"), apt(args...)); err != nil {
		t.Fatalf("missing: apt-get cannot install %s: %v", p.packages, err)
	}
}

// cache is where what was installed is kept between runs.
func cache(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("POSTERN_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			t.Fatalf("no cache folder: set POSTERN_CACHE: %v", err)
		}
		dir = filepath.Join(user, "postern")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// lock keeps other processes from installing at the same time; it ends with ours.
func lock(t *testing.T, name string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(cache(t), name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		t.Fatalf("lock %s: %v", f.Name(), err)
	}
	return func() { _ = f.Close() }
}

// nodeModules is a folder with the packages of test/tools/node-pg, installed once for
// each lock file.
func nodeModules(t *testing.T) string {
	t.Helper()
	source := filepath.Join("..", "..", "tools", "node-pg")
	pinned, err := os.ReadFile(filepath.Join(source, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(pinned)
	dir := filepath.Join(cache(t), "node-pg-"+hex.EncodeToString(sum[:8]))
	modules := filepath.Join(dir, "node_modules")
	unlock := lock(t, "node-pg.lock")
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return modules
	}
	t.Log("installing node-postgres with npm ci (once)")
	fresh, err := os.MkdirTemp(cache(t), "node-pg-new-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	for _, name := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join(source, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(fresh, name), b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), installTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = fresh
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci of test/tools/node-pg: %v\n%s", err, out)
	}
	if err := os.Rename(fresh, dir); err != nil {
		t.Fatal(err)
	}
	return modules
}
