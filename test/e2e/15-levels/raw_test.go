package levels

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

// rawWorld are tasks that want to be recorded what their masks hide.
const rawWorld = `
apiVersion: postern/v1
kind: Task
metadata: {name: raw-report}
spec:
  purpose: figures whose every look must be accounted for
  resources: {names: [warehouse]}
  permit: [{table: sales.customers, verbs: [select], columns: [id, name, email, card], mask: {email: email, card: card}}]
  duration: 1h
  record: {resultRows: 20, storeRaw: true}
---
apiVersion: postern/v1
kind: Task
metadata: {name: raw-orders}
spec:
  purpose: the same of orders
  resources: {names: [orders-api]}
  permit: [{methods: [GET], path: /api/orders/*, mask: {/customer/email: email, /customer/phone: email, /note: email}}]
  duration: 1h
  record: {storeRaw: true}
---
apiVersion: postern/v1
kind: Binding
metadata: {name: raw}
spec: {subjects: [{group: analysts}], tasks: [raw-report, raw-orders]}
`

const rawReader = `
apiVersion: postern/v1
kind: RoleBinding
metadata: {name: leads-raw}
spec: {role: rawreader, subjects: [{group: leads}]}
`

// sessionOf is the newest session of a task whose recording is sealed, or says what it is
// to say.
func sessionOf(t *testing.T, h *house.House, task, says string) string {
	t.Helper()
	return house.Poll(t, "the recording of "+task+" has "+says, func() (string, bool) {
		var sessions []struct{ ID string }
		r := h.CLI(t, "bob", "sessions", "list", "--task", task, "--format", "json")
		if err := json.Unmarshal([]byte(r.Out), &sessions); err != nil {
			t.Fatalf("%v\n%s", err, r.All())
		}
		for _, s := range sessions {
			if strings.Contains(s.ID, "_") {
				t.Fatalf("what is raw is listed as a session: %s", s.ID)
			}
			if strings.Contains(h.CLI(t, "bob", "sessions", "replay", s.ID).All(), says) {
				return s.ID, true
			}
		}
		return "", false
	})
}

// raw shows what masks hide to those who have the right and the key, and to nobody else.
func raw(t *testing.T, h *house.House) {
	key, other := h.RawKey, filepath.Join(t.TempDir(), "other.key")
	house.RawKey(t, other)
	report := h.Psql(t, "alice", "raw-report", query)
	if report.Code != 0 || !strings.Contains(report.Out, "***") || strings.Contains(report.All(), house.CanaryEmail) {
		t.Fatalf("psql: %s", report.All())
	}
	orders := house.Finish(t, exec.Command("curl", "--silent", "--show-error", "--max-time", "60", "--compressed", "--cacert", h.CAFile,
		"--header", "Authorization: Bearer "+h.DataToken(t, "alice"), "https://raw-orders--orders-api."+h.Nodes[0].HTTPDomain+"/api/orders/"+house.CanaryID))
	if orders.Code != 0 || !strings.Contains(orders.Out, `"note":"***"`) {
		t.Fatalf("curl: %s", orders.All())
	}
	reported := sessionOf(t, h, "raw-report", "Canary")
	verify := func(what string, says []string, args ...string) {
		t.Helper()
		house.Poll(t, what, func() (string, bool) { // seals are shipped by themselves
			r := h.CLI(t, "bob", append([]string{"sessions", "verify", reported}, args...)...)
			if found := house.Leaks(r.All()); len(found) > 0 {
				t.Fatalf("verifying shows %v", found)
			}
			return r.All(), !slices.ContainsFunc(says, func(s string) bool { return !strings.Contains(r.All(), s) })
		})
	}
	verify("who may not read what masks hid is told that it was not verified", []string{"chain and signature hold", "NOT verified"})
	hidden := map[string][]string{ // by session
		reported:                                {house.CanaryEmail, house.CanaryCard},
		sessionOf(t, h, "raw-orders", "Canary"): {house.CanaryEmail, house.CanaryPhone, house.CanaryNote},
	}
	for id := range hidden {
		if masked := h.CLI(t, "bob", "sessions", "replay", id).All(); len(house.Leaks(masked)) > 0 {
			t.Errorf("the record has what was masked:\n%s", masked)
		}
		for who, why := range map[string]string{"bob": "rawreader", "ada": "rawreader", "alice": "rawreader", "carol": "not yours"} {
			if r := h.CLI(t, who, "sessions", "replay", id, "--raw-key", key); r.Code == 0 || !strings.Contains(r.All(), why) || len(house.Leaks(r.All())) > 0 {
				t.Errorf("%s reads what masks hid: %d, %s", who, r.Code, r.All())
			}
		}
	}
	h.Apply(t, "ada", rawReader)
	for id, values := range hidden {
		shown := house.Poll(t, "what masks hid from "+id, func() (string, bool) { // it is shipped by itself
			r := h.CLI(t, "bob", "sessions", "replay", id, "--raw-key", key)
			return r.All(), r.Code == 0 && strings.Contains(r.All(), values[0])
		})
		for _, v := range values {
			if !strings.Contains(shown, v) {
				t.Errorf("%q is not kept of %s:\n%s", v, id, shown)
			}
		}
		if !strings.Contains(shown, "before its masks") || !strings.Contains(shown, "***") {
			t.Errorf("it does not say what is raw and what was seen:\n%s", shown)
		}
		if r := h.CLI(t, "bob", "sessions", "replay", id, "--raw-key", other); r.Code == 0 || !strings.Contains(r.All(), "none of the files has") {
			t.Errorf("with another key: %s", r.All())
		}
		if r := h.CLI(t, "bob", "sessions", "replay", id+"_raw"); r.Code == 0 {
			t.Errorf("what is raw is replayed as a session: %s", r.All())
		}
	}
	verify("what masks hid is verified", []string{reported + " sealed", reported + "_raw sealed", "not opened"})
	verify("with the key it is opened for that", []string{reported + "_raw sealed", "of what masks hid, opened"}, "--raw-key", key)
	log := h.CLI(t, "bob", "audit", "log", "--format", "json", "--limit", "1000")
	if n := strings.Count(log.Out, `\"raw\":true`); log.Code != 0 || n < 10 { // allowed or not
		t.Errorf("the audit log tells of raw reading %d times: %s", n, log.All())
	}
	stored(t, filepath.Join(h.Dir, "control", "recordings"))
	house.Must(0, exec.Command("find", filepath.Join(h.Dir, "control", "recordings"), "-path", "*/"+reported+"_raw/*", "-delete").Run())(t)
	if r := h.CLI(t, "bob", "sessions", "verify", reported); r.Code == 0 || !strings.Contains(r.Out, reported+" sealed") || strings.Contains(r.Out, "_raw sealed") {
		t.Errorf("after what masks hid was taken away: %s", r.All())
	}
}

// stored looks for what masks hid in all that the control plane keeps of recordings.
func stored(t *testing.T, dir string) {
	t.Helper()
	var files, below int
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if found := house.Leaks(string(b)); len(found) > 0 {
			t.Errorf("%s has %v in clear", name, found)
		}
		files++
		if raw := strings.Contains(filepath.ToSlash(name), "/chunks/raw/v1/"); raw {
			below++
		} else if strings.Contains(name, "_raw") {
			t.Errorf("what is raw lies at %s", name)
		}
		return nil
	})
	if err != nil || below == 0 || below == files {
		t.Errorf("%d files, %d of them raw: %v", files, below, err)
	}
}
