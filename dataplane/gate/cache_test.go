package gate

import (
	"context"
	"fmt"
	"testing"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// TestACacheHasSoManyBytes: of a short text much may be known.
func TestACacheHasSoManyBytes(t *testing.T) {
	c, snap := NewCache(), policytest.CompileAt(t, postern.Version{Epoch: "e", Revision: 1}, world)
	wide := &sql.Facts{Complete: true, Statements: []sql.Statement{{Outputs: make([]sql.Output, 1600)}}}
	for i := range maxCachedEntries {
		c.put(snap, cacheKey{text: fmt.Sprint(i)}, &engine.Admission{Gate: &admitted{facts: wide}})
	}
	if n := (len(c.young) + len(c.old)) * wide.Size(); n > 2*maxCachedBytes {
		t.Errorf("%d bytes are kept, of %d that may be", n, 2*maxCachedBytes)
	}
	last := cacheKey{text: fmt.Sprint(maxCachedEntries - 1)}
	if c.get(snap, last) == nil {
		t.Error("what was judged last is gone")
	}
}

// shedding is an Analysis that tells when it was made to forget.
type shedding struct {
	understood
	asked, shed, late bool
}

func (s *shedding) Canonical() string {
	s.asked, s.late = true, s.late || s.shed
	return s.canonical
}

func (s *shedding) Shed() { s.shed = true }

// TestWhatIsKeptHasShed: an admission is kept for long, and its statement's tree is not; what
// people are shown was made before.
func TestWhatIsKeptHasShed(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		facts sql.Facts
		held  bool
	}{"let through": {reading("regions", "code"), false}, "held": {deleting(), true}} {
		s := &shedding{understood: understood{facts: c.facts, plain: true, canonical: "C"}}
		a, err := r.Prepare(t.Context(), &engine.Statement{Text: name, Context: "c", Analyse: func(context.Context) (engine.Analysis, error) { return s, nil }})
		if err != nil {
			t.Fatal(err)
		}
		if !s.shed || s.late || s.asked != c.held || (a.Decision.Verdict == postern.VerdictHold) != c.held {
			t.Errorf("%s: %s, shed %t, asked %t (late: %t)", name, a.Decision.Verdict, s.shed, s.asked, s.late)
		}
	}
}
