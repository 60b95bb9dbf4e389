package servers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// PostgreSQL refuses to run as root, so root hands its folder to nobody.
func unprivilegedIDs() (uid, gid int) {
	uid, gid = 65534, 65534
	if u, err := user.Lookup("nobody"); err == nil {
		if n, err := strconv.Atoi(u.Uid); err == nil {
			uid = n
		}
		if n, err := strconv.Atoi(u.Gid); err == nil {
			gid = n
		}
	}
	return uid, gid
}

func unprivileged(cmd *exec.Cmd) {
	if os.Geteuid() != 0 {
		return
	}
	uid, gid := unprivilegedIDs()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	cmd.Dir = "/"
}

func own(file string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid := unprivilegedIDs()
	return os.Lchown(file, uid, gid)
}

func writeOwned(file string, b []byte) error {
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return err
	}
	return own(file)
}

// dataHome is where the server's data are: dir/data, or, where root's folders keep
// nobody out, a place in /var/tmp that dir/data points to.
func dataHome(dir string, log func(string)) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	data := filepath.Join(dir, "data")
	if os.Geteuid() != 0 || searchable(dir) {
		return data, nil
	}
	if target, err := os.Readlink(data); err == nil {
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return "", err
		}
		return target, nil
	}
	home, err := os.MkdirTemp("/var/tmp", "postern-pg-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(home, 0o755); err != nil {
		return "", err
	}
	target := filepath.Join(home, "data")
	log(fmt.Sprintf("%s is closed to the user nobody: PostgreSQL's data go to %s", dir, target))
	return target, os.Symlink(target, data)
}

// RemoveData removes what StartPostgres put elsewhere because dir is closed to the user
// nobody; what is in dir itself goes with dir.
func RemoveData(dir string) error {
	target, err := os.Readlink(filepath.Join(dir, "data"))
	if err != nil {
		return nil // nothing is elsewhere
	}
	return os.RemoveAll(filepath.Dir(target))
}

// searchable reports whether everybody may walk down to dir.
func searchable(dir string) bool {
	for {
		st, err := os.Stat(dir)
		if err != nil || st.Mode()&0o001 == 0 {
			return false
		}
		up := filepath.Dir(dir)
		if up == dir {
			return true
		}
		dir = up
	}
}

// passwordFile lies beside the data, for whoever may read it.
func passwordFile(data string) string { return filepath.Join(filepath.Dir(data), "password") }

// ensureCluster makes the data folder, if it is not there, from a template, and returns
// the superuser's password.
func ensureCluster(ctx context.Context, bin, data string, log func(string)) (password string, err error) {
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
		b, err := os.ReadFile(passwordFile(data))
		return string(b), err
	}
	tmpl, err := template(ctx, bin, log)
	if err != nil {
		return "", err
	}
	if err := copyTree(filepath.Join(tmpl, "data"), data); err != nil {
		_ = os.RemoveAll(data)
		return "", fmt.Errorf("copy the data of a fresh PostgreSQL: %w", err)
	}
	b, err := os.ReadFile(passwordFile(filepath.Join(tmpl, "data")))
	if err != nil {
		return "", err
	}
	return string(b), os.WriteFile(passwordFile(data), b, 0o600)
}

// template is a folder with the data of a fresh server and its superuser's password,
// made once for each build of PostgreSQL.
func template(ctx context.Context, bin string, log func(string)) (string, error) {
	args := []string{"-U", "postgres", "-A", "scram-sha-256", "--no-sync", "--locale=C", "--encoding=UTF8"}
	version, err := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask PostgreSQL for its version: %w", err)
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %q", version, args))
	dir := filepath.Join(cache, "postgres-template-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	unlock, err := lockFile(ctx, dir+".lock", func() { log("waiting for another process that runs initdb") })
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	log("initdb, once: " + strings.TrimSpace(string(version)))
	// The server's user may not see the cache, so the work is done in a temporary folder.
	work, err := os.MkdirTemp("", "postern-initdb-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := errors.Join(os.Chmod(work, 0o755), own(work)); err != nil {
		return "", err
	}
	data := filepath.Join(work, "data")
	if err := writeOwned(passwordFile(data), []byte(randomHex())); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), append(args, "--pwfile", passwordFile(data), "-D", data)...)
	unprivileged(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("initdb: %w:\n%s", err, out)
	}
	if err := copyTree(work, dir+".new"); err != nil {
		return "", err
	}
	return dir, os.Rename(dir+".new", dir)
}

// copyTree copies a folder; what it makes belongs to the server's user.
func copyTree(from, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return errors.Join(os.MkdirAll(target, 0o700), own(target))
		}
		return errors.Join(copyFile(path, target), own(target))
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
