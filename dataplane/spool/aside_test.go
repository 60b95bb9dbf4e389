package spool

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/test/wait"
)

// tooOld is an instant at which what is not stored by now is too old.
func tooOld(s *Spool) time.Time { return time.Now().Add(s.cfg.MaxUnshipped + time.Second) }

// late is what the node's look at its records says, in a while.
func late(s *Spool) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late(tooOld(s))
}

// judged reports whether there were streams enough over which a recording was not stored.
func judged(s *Spool, r *Recorder, passed bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if passed {
		return r.session.passed >= enough
	}
	return r.session.tried >= enough
}

func isBad(c Chunk) bool { return c.Session == "bad" && c.Index > 0 }

// A recording that the control plane cannot store, while it stores others, is put aside,
// and nobody else is kept from anything.
func TestOneIsNotStored(t *testing.T) {
	up := newShelf()
	up.fail = isBad
	cfg := testConfig(t, up)
	s, _, stop := start(t, cfg)
	bad, good := open(t, s, "bad"), open(t, s, "good")
	if err := errors.Join(bad.Record(intent(1), Remote), bad.Record(intent(2), Local)); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "what is bad is passed over", func() bool {
		if err := good.Record(intent(record.Next), Remote); err != nil {
			t.Fatal(err)
		}
		return judged(s, bad, true)
	})
	if err := bad.Record(intent(3), Async); err != nil {
		t.Errorf("it is not too old: %v", err)
	}
	if age := late(s); age != 0 || s.Aside() > 0 {
		t.Errorf("the node stops for a record that is %s old, or keeps nothing of what is held back; %d are aside", age, s.Aside())
	}
	if err := bad.Record(intent(4), Local); err == nil || !strings.Contains(err.Error(), "its recording") {
		t.Errorf("a recording that is about to be put aside goes on: %v", err)
	}
	s.flushHeld()
	if age := late(s); age != 0 || !s.IsAside("bad") {
		t.Errorf("the node stops for a record that is %s old, and does not put it aside", age)
	}
	if err := bad.Close("over"); err == nil {
		t.Error("a recording that was put aside closed without an error")
	}
	if err := good.Close("done"); err != nil {
		t.Error(err)
	}
	drain(t, s)
	stop()
	up.verify(t, "good")
	verifyAside(t, cfg, up, 3)
	again, _, _ := start(t, cfg)
	if again.Aside() != 1 || !again.IsAside("bad") || again.IsAside("good") {
		t.Errorf("after a start %d recordings are aside", again.Aside())
	}
}

// Where it is the only one, its session alone is refused; the next one that is stored shows
// whose fault it is.
func TestTheOnlyOneIsNotStored(t *testing.T) {
	up := newShelf()
	up.fail = isBad
	cfg := testConfig(t, up)
	s, _, stop := start(t, cfg)
	bad := open(t, s, "bad")
	if err := errors.Join(bad.Record(intent(1), Remote), bad.Record(intent(2), Local)); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "what is bad is tried", func() bool { return judged(s, bad, false) })
	for range 2 {
		if age := late(s); age != 0 || s.Aside() > 0 {
			t.Errorf("the node stops for a record that is %s old; %d are aside", age, s.Aside())
		}
	}
	if err := bad.Record(intent(3), Local); err == nil {
		t.Error("it goes on")
	}
	if err := bad.Record(&record.Event{Kind: record.KindFinished, Statement: 2}, Local); err != nil {
		t.Errorf("how something ended is not taken: %v", err)
	}
	good := open(t, s, "good")
	if age := late(s); age < s.cfg.MaxUnshipped {
		t.Error("the node goes on though another one was not stored either")
	}
	wait.For(t, "what is bad is passed over", func() bool {
		if err := good.Record(intent(record.Next), Remote); err != nil {
			t.Fatal(err)
		}
		return judged(s, bad, true)
	})
	if age := late(s); age != 0 || s.Aside() != 1 {
		t.Errorf("the node stops for a record that is %s old; %d are aside", age, s.Aside())
	}
	if err := good.Close("done"); err != nil {
		t.Error(err)
	}
	drain(t, s)
	stop()
	verifyAside(t, cfg, up, 2)
}

// Where the control plane can store nothing, the node stops, and nothing is put aside.
func TestNothingIsStored(t *testing.T) {
	up := newShelf()
	up.fail = func(Chunk) bool { return true }
	s, _, _ := start(t, testConfig(t, up))
	a, b := open(t, s, "a"), open(t, s, "b")
	wait.For(t, "both are tried", func() bool { return judged(s, a, false) && judged(s, b, false) })
	if late(s) == 0 || s.Aside() > 0 || a.session.barred.Load() || b.session.barred.Load() {
		t.Errorf("the node goes on; %d recordings are aside", s.Aside())
	}
	up.mu.Lock()
	up.fail = nil
	up.mu.Unlock()
	for _, r := range []*Recorder{a, b} {
		if err := errors.Join(r.Record(intent(1), Local), r.Close("done")); err != nil {
			t.Error(err)
		}
	}
	drain(t, s)
	up.verify(t, "a")
	up.verify(t, "b")
}

// A control plane that cannot be reached says nothing of the one recording that there is: the
// node stops as for any.
func TestNothingIsSent(t *testing.T) {
	up := newShelf()
	up.shut = true
	s, _, _ := start(t, testConfig(t, up))
	r := open(t, s, "a")
	if err := r.Record(intent(1), Local); err != nil {
		t.Fatal(err)
	}
	if late(s) == 0 || s.Aside() > 0 || r.session.barred.Load() {
		t.Errorf("the node goes on; %d recordings are aside", s.Aside())
	}
	up.mu.Lock()
	up.shut = false
	up.mu.Unlock()
	if err := errors.Join(r.Record(intent(2), Local), r.Close("done")); err != nil {
		t.Error(err)
	}
	drain(t, s)
	up.verify(t, "a")
}

func open(t *testing.T, s *Spool, id string) *Recorder {
	t.Helper()
	r, err := s.Session(meta(id))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// verifyAside verifies what is stored of the recording "bad" with what was put aside of it.
func verifyAside(t *testing.T, cfg Config, up *shelf, statements int64) {
	t.Helper()
	chunks := up.session("bad")
	files, err := os.ReadDir(filepath.Join(cfg.Dir, asideDir))
	if err != nil {
		t.Fatal(err)
	}
	for range files {
		chunks = append(chunks, readAside(t, cfg.Dir, "bad", len(chunks)))
	}
	r, err := record.Verify(each(chunks), nodeKey.Public(), dataKey(t, chunks))
	if err != nil || len(r.Errors) > 0 || r.Statements != statements {
		t.Errorf("%+v, %v; want %d statements", r, err, statements)
	}
}
