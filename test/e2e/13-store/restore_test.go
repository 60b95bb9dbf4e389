package store_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/trail"
	"github.com/posterngate/postern/test/e2e/fleet"
)

// TestRestore goes back to an older copy of the embedded etcd's data.
func TestRestore(t *testing.T) {
	f := fleet.Start(t, fleet.Options{Embedded: true, Sealed: true, LeaseTTL: "12s", World: open() + "---" + binding})
	data := filepath.Join(f.ControlData(), "etcd")
	backup := filepath.Join(t.TempDir(), "etcd")
	restore(t, f, func() {
		stop(t, f)
		copyTree(t, data, backup)
		start(t, f)
		f.AwaitConverged(t, 40*time.Second, 0)
	}, func() {
		if err := os.RemoveAll(data); err != nil {
			t.Fatal(err)
		}
		copyTree(t, backup, data)
	})
	if r := epoch(t, f); r.Code != 1 || !strings.Contains(r.Stderr, "in use by another process") {
		t.Errorf("postern-control epoch beside a running control plane: code %d: %s", r.Code, r.Stderr)
	}
}

// restore: the cluster goes back to an older snapshot, which was taken while it worked.
func (s *disturbed) restore(t *testing.T) {
	snapshot := filepath.Join(t.TempDir(), "snapshot.db")
	s.settled(t, 10*time.Second, s.Apply(t, open()), true)
	restore(t, s.Fleet, func() {
		r, err := s.etcd.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		file, err := os.Create(snapshot)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(file, r); err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}, func() {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if err := s.Etcd.Restore(ctx, snapshot); err != nil {
			t.Fatal(err)
		}
	})
}

// restore goes back to an older backup of etcd, as an operator would: stop, put the data
// back, "postern-control epoch", start. The probe is open when it begins.
func restore(t *testing.T, f *fleet.Fleet, save, putBack func()) {
	eu, us := f.Nodes["eu-1-a"], f.Nodes["us-1-a"]
	early := f.Must(t, "alice", "grant", "probe")
	save()

	// The hour that will be lost: the task is narrowed, and somebody takes it.
	var narrowed int64
	for range 10 {
		narrowed = f.Apply(t, closed())
	}
	lost := f.Must(t, "alice", "grant", "probe", "--reason", "in the hour that is lost")
	lock := f.Must(t, "ada", "lock", "--subject", "mallory", "--reason", "in the hour that is lost")
	logged(t, f, "lock/"+lock)
	before, _ := f.AwaitConverged(t, 10*time.Second, narrowed)
	conn := f.Connect(t, eu, "probe.warehouse", lost)
	want(t, "before the restore", conn, false)

	stop(t, f)
	putBack()
	unsaid := f.Exec(t, f.Dir, "", nil, "postern-control", "--config", f.ControlConfig())
	if unsaid.Code != 1 || !strings.Contains(unsaid.Stderr, "run postern-control epoch") {
		t.Errorf("a control plane that was put back and not told so: code %d: %s", unsaid.Code, unsaid.Stderr)
	}
	r := epoch(t, f)
	if r.Code != 0 {
		t.Fatalf("postern-control epoch: code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if !strings.Contains(r.Stdout, "lock/"+lock) || !strings.Contains(r.Stdout, "PolicyService/Apply task/probe") {
		t.Errorf("what was lost is not told: %s", r.Stdout)
	}
	start(t, f)
	began := time.Now()
	after, revision := f.AwaitConverged(t, 60*time.Second, 0)
	t.Logf("both nodes at %s/%s %s after the control plane was ready", after, revision, time.Since(began).Round(time.Millisecond))
	if after == before || !strings.Contains(r.Stdout, after) {
		t.Errorf("epoch %s after %s; the command said %s", after, before, r.Stdout)
	}

	for _, n := range []*fleet.Node{eu, us} {
		restored := f.Connect(t, n, "probe.warehouse", early)
		want(t, "the policy of the backup at "+n.Name, restored, true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := f.Dial(ctx, n, "probe.warehouse", lost); fleet.Code(err) != "28P01" {
			t.Errorf("a grant of the lost hour at %s: %v", n.Name, err)
		}
	}
	if told := f.Must(t, "ada", "audit", "log", "--format", "json"); !strings.Contains(told, "store.restore") {
		t.Errorf("the audit log does not tell of the restore: %s", told)
	}
	// The session of the lost hour has a lease that nobody knows of any more.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	_, err := conn.WaitForNotification(ctx)
	if fleet.Code(err) != "57P01" {
		t.Errorf("a session of the lost hour ended with %v", err)
	}
	t.Logf("the session of the lost hour ended %s after the restore: %v", time.Since(began).Round(time.Millisecond), err)
}

// logged waits until the audit log's folder tells of an object.
func logged(t *testing.T, f *fleet.Fleet, object string) {
	t.Helper()
	log, err := trail.Open(filepath.Join(f.ControlData(), "audit"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	fleet.Eventually(t, 10*time.Second, "the audit log tells of "+object, func() error {
		size, err := log.Size()
		if err != nil {
			return err
		}
		for leaf, err := range log.Leaves(0, size) {
			if err != nil {
				return err
			}
			if bytes.Contains(leaf, []byte(object)) {
				return nil
			}
		}
		return fmt.Errorf("it does not, in %d entries", size)
	})
}

func epoch(t *testing.T, f *fleet.Fleet) fleet.Result {
	t.Helper()
	return f.Exec(t, f.Dir, "", nil, "postern-control", "epoch", "--config", f.ControlConfig())
}

func stop(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	if code := f.Control.Stop(); code != 0 {
		t.Fatalf("the control plane ended with code %d", code)
	}
}

func start(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	if err := f.Control.Start(); err != nil {
		t.Fatal(err)
	}
	f.AwaitControl(t)
}

// copyTree copies regular files and folders with their owners.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		switch {
		case d.IsDir():
			err = os.MkdirAll(dst, 0o700)
		case d.Type().IsRegular():
			var b []byte
			if b, err = os.ReadFile(p); err == nil {
				err = os.WriteFile(dst, b, 0o600)
			}
		default:
			return nil // a socket
		}
		if err != nil {
			return err
		}
		return fleet.Give(dst)
	})
	if err != nil {
		t.Fatal(err)
	}
}
