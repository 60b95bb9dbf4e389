package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

const locks = `
kind: Lock
metadata: {name: by-subject}
spec: {subject: mallory, reason: left the company}
---
kind: Lock
metadata: {name: by-grant}
spec: {grant: g-bad, reason: token leaked}
---
kind: Lock
metadata: {name: by-resource}
spec: {resource: lake, reason: under repair, expires: 2026-11-25T13:00:00Z}
---
kind: Lock
metadata: {name: by-node}
spec: {node: n-7, reason: stolen}
---
kind: Lock
metadata: {name: by-workload}
spec: {workload: ci, reason: runs wild}
---
kind: Lock
metadata: {name: gone}
spec: {subject: alice, reason: holiday, expires: 2026-11-25T11:00:00Z}
`

func TestLocked(t *testing.T) {
	s := compiled(t, parse(t, []byte(locks)))
	for _, c := range []struct {
		subject, workload string
		grant             postern.GrantID
		resource          postern.ResourceName
		node              postern.NodeName
		at                time.Time
		lock, reason      string
	}{
		{subject: "mallory", at: noon, lock: "by-subject", reason: `subject "mallory" is locked: left the company`},
		{subject: "Mallory", at: noon, lock: "by-subject", reason: `subject "Mallory" is locked: left the company`},
		{subject: "MALLORY", at: noon, lock: "by-subject"},
		{subject: "mallory2", at: noon},
		{subject: "alice", at: noon},
		{subject: "alice", at: noon.Add(-2 * time.Hour), lock: "gone", reason: "holiday"},
		{subject: "alice", workload: "ci", at: noon, lock: "by-workload", reason: `workload "ci" is locked`},
		{subject: "ci", at: noon},
		{subject: "bob", grant: "g-bad", at: noon, lock: "by-grant", reason: "this grant is locked: token leaked"},
		{subject: "bob", grant: "g-good", resource: "lake", at: noon, lock: "by-resource", reason: `resource "lake" is locked`},
		{subject: "bob", resource: "lake", at: noon.Add(time.Hour)},
		{subject: "bob", node: "n-7", at: noon, lock: "by-node", reason: "this node is locked"},
		{at: noon},
	} {
		reason, lock, ok := s.Locked(c.subject, c.workload, c.grant, c.resource, c.node, c.at)
		if ok != (c.lock != "") || lock != c.lock || !strings.Contains(reason, c.reason) {
			t.Errorf("%+v: %q, %q, %v", c, reason, lock, ok)
		}
	}
}

// TestBarred: a lock that names nothing bars everybody, and nobody is locked by it.
func TestBarred(t *testing.T) {
	s := compiled(t, parse(t, []byte(locks)))
	if _, _, ok := s.Barred(&postern.Subject{Name: "alice"}, "", "", "", noon); ok {
		t.Error("alice is barred by nothing")
	}
	broken := append(parse(t, []byte(locks)), object.Bare("lock", "broken"))
	s, _ = s.WithLocks(s.Version(), broken)
	if reason, lock, ok := s.Barred(&postern.Subject{Name: "alice"}, "", "", "", noon); !ok || lock != "broken" || !strings.Contains(reason, "cannot be read") {
		t.Errorf("%q, %q, %v", reason, lock, ok)
	}
	if reason, lock, ok := s.Barred(&postern.Subject{Name: "mallory"}, "", "", "", noon); !ok || lock != "by-subject" {
		t.Errorf("%q, %q, %v", reason, lock, ok)
	}
	if _, lock, ok := s.Locked("alice", "", "", "", "", noon); ok {
		t.Errorf("alice is locked by %s", lock)
	}
}

// TestLocksLookAtActors: a lock on whoever acts, at whichever place of the chain, is one
// on what they do.
func TestLocksLookAtActors(t *testing.T) {
	s := compiled(t, parse(t, []byte(locks)))
	for name, c := range map[string]struct {
		sub  postern.Subject
		lock string
	}{
		"an actor":                {postern.Subject{Name: "bob", Actor: "mallory"}, "by-subject"},
		"a workload":              {postern.Subject{Name: "bob", Actor: "ci"}, "by-workload"},
		"behind another":          {postern.Subject{Name: "bob", Actor: "bot", Via: []string{"other", "ci"}}, "by-workload"},
		"a person behind another": {postern.Subject{Name: "bob", Actor: "bot", Via: []string{"mallory"}}, "by-subject"},
		"the person":              {postern.Subject{Name: "mallory", Actor: "bot"}, "by-subject"},
		"nobody":                  {postern.Subject{Name: "bob", Actor: "bot", Via: []string{"other"}}, ""},
	} {
		if _, lock, ok := s.LockedFor(&c.sub, "", "", "", noon); lock != c.lock || ok != (c.lock != "") {
			t.Errorf("%s: lock %q", name, lock)
		}
	}
}

func TestLocksWinOverEverything(t *testing.T) {
	s := compiled(t, append(worldObjects(t), parse(t, []byte(locks))...))
	good := Query{
		Grant:    &postern.Grant{ID: "g-1", Subject: alice, Task: "sales-report", End: noon.Add(time.Hour)},
		Resource: "warehouse", Node: "n-1", Request: Request{Time: noon}, Facts: &sql.Facts{Complete: true},
	}
	if d := s.Decide(good); d.Verdict != postern.VerdictAllow || d.Deps.Time {
		t.Fatalf("without a lock: %+v", d)
	}
	locked := good
	locked.Node = "n-7"
	for _, d := range []postern.Decision{s.Decide(locked), s.DecideConnect(locked)} {
		if d.Verdict != postern.VerdictDeny || d.Rule != "lock/by-node" || d.Deps.Time {
			t.Errorf("on a locked node: %+v", d)
		}
	}
	early := good
	early.Request.Time = noon.Add(-2 * time.Hour)
	if d := s.Decide(early); d.Verdict != postern.VerdictDeny || d.Rule != "lock/gone" || !d.Deps.Time {
		t.Errorf("under a lock that will end: %+v", d)
	}
}

func TestALockThatIsBrokenStands(t *testing.T) {
	s, rejected := Compile(version, parse(t, []byte(`{kind: Lock, metadata: {name: both}, spec: {subject: alice, node: n-1}}`)))
	if len(rejected) != 1 {
		t.Errorf("rejected %v", rejected)
	}
	if _, _, ok := s.Locked("alice", "", "", "", "", noon); !ok {
		t.Error("alice is not locked")
	}
	if _, _, ok := s.Locked("bob", "", "", "", "n-1", noon); !ok {
		t.Error("the node is not locked")
	}
}
