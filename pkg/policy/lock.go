package policy

import (
	"fmt"
	"strings"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
)

// lockTarget is what a lock stands on.
type lockTarget struct{ kind, name string }

// folded is the target whatever the case of its letters: who is to be shut out must not come in
// by another spelling of their name, which some issuers let people choose.
func (t lockTarget) folded() lockTarget { return lockTarget{t.kind, strings.ToLower(t.name)} }

// lockTargets lists every target that a lock names.
func lockTargets(s *typesv1.LockSpec) []lockTarget {
	var out []lockTarget
	for _, t := range []lockTarget{
		{"subject", s.GetSubject()}, {"workload", s.GetWorkload()}, {"grant", s.GetGrant()},
		{"resource", s.GetResource()}, {"node", s.GetNode()},
	} {
		if t.name != "" {
			out = append(out, t)
		}
	}
	return out
}

// Aimless reports whether a lock names nothing that this release knows, as one of a later
// release may, and one of which nothing can be read.
func Aimless(l *typesv1.Lock) bool { return len(lockTargets(l.GetSpec())) == 0 }

func (c *checker) lock(s *typesv1.LockSpec) {
	if n := len(lockTargets(s)); n != 1 {
		c.fail("spec", "names %d targets, want just one of subject, grant, resource, node and workload", n)
	}
	if s.GetReason() == "" {
		c.fail("spec.reason", "is required: it is shown to the person who is cut off")
	}
	c.text("spec.reason", s.GetReason())
	if s.GetExpires() != nil {
		if err := s.GetExpires().CheckValid(); err != nil {
			c.fail("spec.expires", "is not a time: %s", err)
		}
	}
}

// Locked reports whether a lock stands on any of these; empty names are not asked for.
// The reason is for the subject; lock is the lock's name.
func (s *Snapshot) Locked(subject, workload string, g postern.GrantID, r postern.ResourceName, n postern.NodeName, now time.Time) (reason, lock string, ok bool) {
	return s.LockedFor(&postern.Subject{Name: subject, Workload: workload}, g, r, n, now)
}

// LockedFor is Locked of a subject, of whoever acts for it, and of the others: a lock on
// an agent ends what it does for people, and one on a person what agents do for them.
func (s *Snapshot) LockedFor(sub *postern.Subject, g postern.GrantID, r postern.ResourceName, n postern.NodeName, now time.Time) (reason, lock string, ok bool) {
	l, t := s.locked(sub, g, r, n, now)
	if l == nil {
		return "", "", false
	}
	reason = fmt.Sprintf("%s %q is locked", t.kind, t.name)
	if t.kind == "grant" || t.kind == "node" {
		reason = "this " + t.kind + " is locked" // ids say nothing to people
	}
	if why := l.GetSpec().GetReason(); why != "" && checkText(why, MaxText) == nil {
		reason += ": " + why
	}
	return reason, l.GetMetadata().GetName(), true
}

// Barred is LockedFor of who is about to be let do something: it is also true under a lock of
// which it is not known whom it shuts out.
func (s *Snapshot) Barred(sub *postern.Subject, g postern.GrantID, r postern.ResourceName, n postern.NodeName, now time.Time) (reason, lock string, ok bool) {
	if reason, lock, ok = s.LockedFor(sub, g, r, n, now); ok || s.aimless == "" {
		return reason, lock, ok
	}
	return fmt.Sprintf("lock %q cannot be read, and bars everybody until an admin deletes it", s.aimless), s.aimless, true
}

// locked returns the first lock that stands, and on what.
func (s *Snapshot) locked(sub *postern.Subject, g postern.GrantID, r postern.ResourceName, n postern.NodeName, now time.Time) (*typesv1.Lock, lockTarget) {
	if len(s.locks) == 0 || hole.Is("policy-lock") {
		return nil, lockTarget{}
	}
	for _, t := range [...]lockTarget{
		{"subject", sub.Name}, {"workload", sub.Workload}, {"grant", string(g)}, {"resource", string(r)}, {"node", string(n)},
		{"subject", sub.Actor}, {"workload", sub.Actor},
	} {
		if l := s.standing(t, now); l != nil {
			return l, t
		}
	}
	for _, name := range sub.Via {
		for _, t := range [...]lockTarget{{"subject", name}, {"workload", name}} {
			if l := s.standing(t, now); l != nil {
				return l, t
			}
		}
	}
	return nil, lockTarget{}
}

// standing is the first lock that stands on a target; nil where none does.
func (s *Snapshot) standing(t lockTarget, now time.Time) *typesv1.Lock {
	if t.name == "" {
		return nil
	}
	for _, l := range s.locks[t.folded()] {
		if Stands(l, now) {
			return l
		}
	}
	return nil
}

// Stands reports whether the lock has not expired; one whose expiry is no time stays.
func Stands(l *typesv1.Lock, now time.Time) bool {
	e := l.GetSpec().GetExpires()
	return e == nil || !e.IsValid() || now.Before(e.AsTime())
}
