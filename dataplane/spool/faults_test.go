package spool

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/run"
)

var allModes = map[string]Mode{"async": Async, "local": Local, "disk": Disk, "remote": Remote}

// After a sync that failed nobody knows what is on the disk: nothing is taken any more,
// in any mode, and the reason is told.
func TestModesWhenTheDiskFails(t *testing.T) {
	for name, m := range allModes {
		s, _, err := Open(testConfig(t, newShelf()))
		if err != nil {
			t.Fatal(err)
		}
		g := run.New(t.Context())
		g.Go("spool", s.Run)
		r, err := s.Session(meta("s"))
		if err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		err = s.disk.active().file.Close() // whose sync fails from now on
		s.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Record(intent(1), Disk); err == nil {
			t.Errorf("%s: a record that is not on the disk was said to be", name)
		}
		if err := r.Record(intent(2), m); err == nil || !strings.Contains(err.Error(), "sync") {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Healthy(); err == nil {
			t.Errorf("%s: the spool is healthy", name)
		}
		if _, err := s.Session(meta("late")); err == nil {
			t.Errorf("%s: a session began", name)
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err == nil {
			t.Errorf("%s: the spool closed as if all were on the disk", name)
		}
	}
}

// Where no segment can be made any more, what there is is used up to the reserve, and
// then nothing is taken but what ends a session.
func TestReadOnlyFolder(t *testing.T) {
	for name, m := range allModes {
		if m == Remote {
			continue // it needs the control plane, which is away here
		}
		up := newShelf()
		up.shut = true
		cfg := testConfig(t, up)
		s, _, _ := start(t, cfg)
		r, err := s.Session(meta("s"))
		if err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		s.disk.dir = filepath.Join(cfg.Dir, "gone") // as a folder that cannot be written
		s.mu.Unlock()
		kept, text := uint64(0), strings.Repeat("x", 20_000)
		for err == nil && kept < 10_000 {
			e := intent(kept + 1)
			e.Text = text
			if err = r.Record(e, m); err == nil {
				kept++
			}
		}
		if !errors.Is(err, errFull) || kept == 0 {
			t.Errorf("%s: after %d records: %v", name, kept, err)
		}
		if s.Healthy() == nil {
			t.Errorf("%s: the spool is healthy", name)
		}
	}
}

func TestWithoutRecordingKey(t *testing.T) {
	for _, key := range [][]byte{nil, []byte("no key")} {
		cfg := testConfig(t, newShelf())
		cfg.RecordingKey = func() []byte { return key }
		s, _, _ := start(t, cfg)
		if _, err := s.Session(meta("s")); err == nil {
			t.Errorf("a session began that nobody could read: %q", key)
		}
	}
}

// Whatever the wall clock does, the order and the time since the beginning hold.
func TestClockSteps(t *testing.T) {
	up := newShelf()
	s, _, stop := start(t, testConfig(t, up))
	r, err := s.Session(meta("s"))
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []time.Duration{0, time.Hour, -time.Hour, -24 * 365 * time.Hour} {
		e := intent(uint64(i + 1))
		e.Time = time.Now().Add(step).Round(0) // a wall clock alone
		if err := r.Record(e, Local); err != nil {
			t.Error(err)
		}
		if e.Elapsed < 0 {
			t.Errorf("elapsed %s after a step of %s", e.Elapsed, step)
		}
	}
	if err := r.Close("done"); err != nil {
		t.Error(err)
	}
	drain(t, s)
	stop()
	if r := up.verify(t, "s"); r.State != record.StateSealed || r.Events != 6 {
		t.Errorf("%+v", r)
	}
}

func TestGarbage(t *testing.T) {
	up := newShelf()
	s, _, stop := start(t, testConfig(t, up))
	r, err := s.Session(meta("s"))
	if err != nil {
		t.Fatal(err)
	}
	want := "\x00\xff\xfe\x1b[2J" + noise(1000) + "\xc3\x28"
	e := intent(1)
	e.Text, e.Params = want, []record.Param{{Value: want, Binary: true}}
	if err := errors.Join(r.Record(e, Local), r.Close("done")); err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	stop()
	if got := events(t, up.session("s"))[1]; got.Text != want || got.Params[0].Value != want {
		t.Errorf("%q", got.Text)
	}
}

// What ends things may be recorded though the spool is full, but not until nothing is left of
// it: then nothing could be shipped any more, nor trimmed.
func TestFullOfDenials(t *testing.T) {
	up := newShelf()
	up.shut = true
	cfg := testConfig(t, up)
	cfg.MaxBytes = 4 * testSegment
	s, _, stop := start(t, cfg)
	r, err := s.Session(meta("s"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{strings.Repeat("x", 10_000), "x"} {
		for err = nil; err == nil; {
			err = r.Record(&record.Event{Kind: record.KindDenied, Text: text, Reason: "no"}, Local)
		}
		if !errors.Is(err, errFull) {
			t.Fatal(err)
		}
	}
	if err := r.Close("the spool is full"); !errors.Is(err, errFull) {
		t.Errorf("Close: %v", err)
	}
	up.mu.Lock()
	up.shut = false
	up.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return s.Healthy() == nil })
	stop()
	up.check(t)
	if r := up.verify(t, "s"); r.State != record.StateTruncated {
		t.Errorf("%+v", r)
	}
}

// A node that is started again and again, and comes to nothing, leaves no more each time.
func TestStartsLeaveNothing(t *testing.T) {
	cfg := testConfig(t, newShelf())
	for range 5 {
		s, r, err := Open(cfg)
		if err != nil || r.Damage != "" {
			t.Fatalf("%+v, %v", r, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "*"+segmentSuffix))
	if err != nil || len(files) > 1 {
		t.Errorf("left: %v, %v", files, err)
	}
}

// A statement that is too large is refused whole, and the session goes on.
func TestTooLarge(t *testing.T) {
	up := newShelf()
	s, _, stop := start(t, testConfig(t, up))
	r, err := s.Session(meta("s"))
	if err != nil {
		t.Fatal(err)
	}
	e := intent(1)
	e.Text = strings.Repeat("x", record.MaxEvent)
	if err := r.Record(e, Local); err == nil {
		t.Error("a statement over the limit was taken")
	}
	if err := errors.Join(r.Record(intent(2), Local), r.Close("done")); err != nil {
		t.Error(err)
	}
	drain(t, s)
	stop()
	if r := up.verify(t, "s"); r.Events != 3 || r.State != record.StateSealed {
		t.Errorf("%+v", r)
	}
}

// The folder of a spool does not tell what was recorded, whether the node runs or not.
func TestUnreadable(t *testing.T) {
	up := newShelf()
	up.shut = true
	cfg := testConfig(t, up)
	s, _, stop := start(t, cfg)
	r, err := s.Session(meta("s"))
	if err != nil {
		t.Fatal(err)
	}
	canary := "a canary that nobody may find"
	for i := range uint64(50) {
		e := intent(i + 1)
		e.Text = canary
		if err := r.Record(e, Disk); err != nil {
			t.Fatal(err)
		}
	}
	search := func(when string) {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(cfg.Dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if data, err := os.ReadFile(f); err == nil && (bytes.Contains(data, []byte(canary)) || bytes.Contains(data, []byte("alice"))) {
				t.Errorf("%s: %s tells what was recorded", when, f)
			}
		}
	}
	search("while it runs")
	stop()
	search("once it was stopped")
}

// TestWriteFails: what cannot be written to the file goes by its mapping, where a fault of the
// disk is seen when it is synced.
func TestWriteFails(t *testing.T) {
	seg, err := createSegment(t.TempDir(), 1, minSegment)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = seg.close(true) }()
	small, large := []byte("small"), []byte(noise(direct))
	seg.add(entryPart, 1, small)
	seg.add(entryPart, 1, large)
	writable := seg.file
	if seg.file, err = os.Open(writable.Name()); err != nil {
		t.Fatal(err)
	}
	defer writable.Close()
	seg.add(entryPart, 1, large)
	seg.add(entryPart, 1, small)
	n := 0
	if _, err := seg.each(func(e entry) {
		want := [][]byte{small, large, large, small}[n]
		if n++; !bytes.Equal(e.payload, want) {
			t.Errorf("entry %d differs", n)
		}
	}); err != nil || n != 4 {
		t.Errorf("%d entries, %v", n, err)
	}
}
