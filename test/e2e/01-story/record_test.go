package story

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/test/e2e/house"
)

func lines(s string) []string { return strings.Split(strings.TrimSpace(s), "\n") }

// session is what `sessions list --format json` says of one.
type session struct{ ID, Subject, Task, Recording, EndReason string }

// sealed waits for the newest session of a task to be stored.
func sealed(t *testing.T, h *house.House, task string) session {
	t.Helper()
	return house.Poll(t, "the recording is stored", func() (session, bool) {
		r := h.CLI(t, "bob", "sessions", "list", "--task", task, "--format", "json", "--since", "1h")
		var all []session
		if err := json.Unmarshal([]byte(r.Out), &all); err != nil {
			t.Fatalf("%v in %s", err, r.All())
		}
		if len(all) == 0 || all[0].Recording != "sealed" {
			return session{}, false
		}
		return all[0], true
	})
}

// TestRecording: a session is replayed as it was, proved, and a change of it is seen.
func TestRecording(t *testing.T) {
	t.Parallel()
	h := house.Start(t)
	s := h.StartPsql(t, "alice", "purge-order")
	s.Say("SELECT id, status FROM orders WHERE id = 51;")
	s.Expect("51|")
	s.Say("DROP TABLE orders;")
	s.Expect("42501")
	s.Say("DELETE FROM orders WHERE id = 51;")
	hold := pending(t, h)
	if err := answer(t, h, hold, true); err != nil {
		t.Fatal(err)
	}
	s.Expect("DELETE 1")
	s.End()
	if r := h.Psql(t, "alice", "sales-report", "SELECT name, email, card FROM customers WHERE id = 900001;"); r.Code != 0 {
		t.Fatal(r.All())
	}

	id := sealed(t, h, "purge-order").ID
	r := h.CLI(t, "bob", "sessions", "replay", id)
	if r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	house.Has(t, r.Out, "alice", "purge-order", "warehouse", "SELECT id, status FROM orders WHERE id = 51", "DROP TABLE", "does not allow DROP TABLE",
		"DELETE FROM orders WHERE id = 51", hold.GetId(), "bob", "DELETE 1")
	t.Logf("the replay:\n%s", r.Out)
	r = h.CLI(t, "bob", "sessions", "replay", id, "--format", "json")
	for _, line := range lines(r.Out) {
		if !json.Valid([]byte(line)) && !json.Valid([]byte(r.Out)) {
			t.Fatalf("not JSON: %s", r.Out)
		}
	}
	// What was masked for alice is masked in the record.
	report := sealed(t, h, "sales-report").ID
	r = h.CLI(t, "bob", "sessions", "replay", report)
	house.Has(t, r.Out, "Canary", "***", "2222")
	if leaks := house.Leaks(r.Out); len(leaks) > 0 {
		t.Errorf("the recording holds %v:\n%s", leaks, r.Out)
	}
	if r := h.CLI(t, "carol", "sessions", "replay", id); r.Code == 0 || strings.Contains(r.Out, "DELETE") {
		t.Errorf("carol looked into alice's session: %+v", r)
	}
	if r := h.CLI(t, "bob", "sessions", "show", id); r.Code != 0 || !strings.Contains(r.Out, "alice") {
		t.Errorf("%+v", r)
	}

	if r := h.CLI(t, "bob", "sessions", "verify", id); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	// One byte is changed at a time, over the whole of each stored chunk.
	chunks := files(t, filepath.Join(h.Dir, "control", "recordings", "chunks"), id)
	if len(chunks) == 0 {
		t.Fatal("no chunk of the session was found")
	}
	for _, file := range chunks {
		was := house.Must(os.ReadFile(file))(t)
		if err := os.Chmod(file, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, len(was) / 3, len(was) / 2, len(was) - 1} {
			b := append([]byte(nil), was...)
			b[at] ^= 1
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if r := h.CLI(t, "bob", "sessions", "verify", id); r.Code == 0 || r.Code == 5 {
				t.Errorf("byte %d of %d of %s was changed, and verify said: %+v", at, len(was), filepath.Base(file), r)
			}
		}
		if err := os.WriteFile(file, was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := h.CLI(t, "bob", "sessions", "verify", id); r.Code != 0 {
		t.Errorf("put back: %+v", r)
	}
	// From files alone, with the public half of the audit log's key.
	control := filepath.Join(h.Dir, "control")
	offline := func() house.Result {
		return h.CLI(t, "bob", "sessions", "verify", "--dir", filepath.Join(control, "recordings", "chunks"),
			"--log", filepath.Join(control, "audit"), "--key", filepath.Join(control, "audit.key.pub"))
	}
	house.Poll(t, "the audit log tells of both recordings", func() (house.Result, bool) {
		r := offline()
		return r, r.Code == 0 && strings.Contains(r.Out, "2 sealed")
	})
	r = h.CLI(t, "bob", "audit", "verify", "--dir", filepath.Join(control, "audit"), "--key", filepath.Join(control, "audit.key.pub"))
	if r.Code != 0 || !strings.Contains(r.Out, "chain, tree and signature hold") {
		t.Errorf("%+v", r)
	}
	// The last file has the last chunk, and the seal behind it.
	end, seal := record.Split(house.Must(os.ReadFile(chunks[len(chunks)-1]))(t))
	if len(seal) == 0 {
		t.Errorf("the seal is in a file of its own: %v", chunks)
	}
	if err := os.WriteFile(chunks[len(chunks)-1], end, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := h.CLI(t, "bob", "sessions", "verify", id); r.Code == 0 {
		t.Errorf("a chunk is gone, and verify said: %+v", r)
	}
	if r := offline(); r.Code == 0 || !strings.Contains(r.Out, "its end is missing") {
		t.Errorf("the seal is gone, and verify said: %+v", r)
	}
	for _, file := range chunks {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	if r := offline(); r.Code == 0 || !strings.Contains(r.Out, id+": all of it is missing") {
		t.Errorf("a whole recording is gone, and verify said: %+v", r)
	}
}

// files lists what is below dir and has part in its path.
func files(t *testing.T, dir, part string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(p, part) {
			found = append(found, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
