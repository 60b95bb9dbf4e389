package spool

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/record"
)

func TestModes(t *testing.T) {
	up := newShelf()
	s, _, stop := start(t, testConfig(t, up))
	modes := map[string]Mode{"async": Async, "local": Local, "disk": Disk, "remote": Remote}
	var wg sync.WaitGroup
	for name, m := range modes {
		wg.Go(func() {
			r, err := s.Session(meta(name))
			if err != nil {
				t.Error(err)
				return
			}
			for i := range uint64(20) {
				e := intent(i + 1)
				if err := r.Record(e, m); err != nil {
					t.Error(err)
				}
				if e.Seq != i+2 {
					t.Errorf("seq is %d, want %d", e.Seq, i+2)
				}
				if m == Remote {
					if n := len(up.session(name)); n == 0 {
						t.Error("not stored when Record returned")
					}
				}
			}
			if err := r.Close("done"); err != nil {
				t.Error(err)
			}
			if err := r.Close("again"); err != nil {
				t.Error(err)
			}
			if err := r.Record(intent(99), Local); err == nil {
				t.Error("recorded behind the end")
			}
		})
	}
	wg.Wait()
	drain(t, s)
	stop()
	up.check(t)
	for name := range modes {
		r := up.verify(t, name)
		if r.State != record.StateSealed || r.Events != 22 || r.Statements != 20 || r.Node != "node-1" {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if b, age := s.Stats(); b != 0 || age != 0 {
		t.Errorf("%d bytes, %s old, are left", b, age)
	}
}

// Executions that begin at once are numbered in the order in which they are written, so
// that who reads the events counts each one.
func TestNumbers(t *testing.T) {
	up := newShelf()
	s, _, stop := start(t, testConfig(t, up))
	r, err := s.Session(meta("s-1"))
	if err != nil {
		t.Fatal(err)
	}
	const workers, each = 8, 50
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				e := intent(record.Next)
				if err := r.Record(e, Local); err != nil {
					t.Error(err)
				}
				if err := r.Record(&record.Event{Kind: record.KindFinished, Statement: e.Statement, Rows: 1}, Local); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := r.Close("done"); err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	stop()
	if r := up.verify(t, "s-1"); r.Statements != workers*each || r.Rows != workers*each {
		t.Errorf("%d statements and %d rows are counted, want %d", r.Statements, r.Rows, workers*each)
	}
	last, ended := uint64(0), map[uint64]bool{}
	for _, e := range events(t, up.session("s-1")) {
		switch e.Kind {
		case record.KindIntent:
			if e.Statement != last+1 {
				t.Errorf("statement %d stands behind statement %d", e.Statement, last)
			}
			last = e.Statement
		case record.KindFinished:
			if e.Statement > last || ended[e.Statement] {
				t.Errorf("statement %d ends before it began, or twice", e.Statement)
			}
			ended[e.Statement] = true
		}
	}
}

// A large statement is kept whole, over many frames and chunks; segments are deleted as
// they are stored.
func TestLargeAndTrim(t *testing.T) {
	up := newShelf()
	cfg := testConfig(t, up)
	s, _, _ := start(t, cfg)
	r, err := s.Session(meta("big"))
	if err != nil {
		t.Fatal(err)
	}
	idle, err := s.Session(meta("idle")) // its state stands in the first segment
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 12 {
		e := intent(uint64(i + 1))
		e.Text = strings.Repeat(fmt.Sprint(i, "-"), 400_000)
		want = append(want, e.Text)
		for {
			err := r.Record(e, Local)
			if err == nil {
				break
			}
			if !errors.Is(err, errFull) {
				t.Fatal(err)
			}
			waitFor(t, func() bool { return s.Healthy() == nil && room(s, len(e.Text)) })
		}
	}
	if err := errors.Join(r.Close("done"), idle.Record(intent(1), Local)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.disk.segments) == 1 })
	if err := idle.Close("done"); err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	up.check(t)
	up.verify(t, "idle")
	if r := up.verify(t, "big"); r.Statements != 12 || r.State != record.StateSealed {
		t.Errorf("%+v", r)
	}
	var got []string
	for _, e := range events(t, up.session("big")) {
		if e.Kind == record.KindIntent {
			got = append(got, e.Text)
		}
	}
	if !slices.Equal(got, want) {
		t.Error("the texts are not what was recorded")
	}
}

func room(s *Spool, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disk.room(2 * n)
}

func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("waited for 20 s")
		}
		<-time.After(5 * time.Millisecond)
	}
}

// A seal goes with the last chunk, and by itself to who takes only that.
func TestSealGoesAlong(t *testing.T) {
	for _, earlier := range []bool{false, true} {
		up := newShelf()
		up.earlier = earlier
		var seen []Chunk
		up.refuse = func(c Chunk) string {
			seen = append(seen, Chunk{Session: c.Session, Index: c.Index, Seal: bytes.Clone(c.Seal)})
			return ""
		}
		s, _, stop := start(t, testConfig(t, up))
		r, err := s.Session(meta("s"))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.Record(intent(1), Remote), r.Record(intent(2), Local), r.Close("done")); err != nil {
			t.Fatal(err)
		}
		drain(t, s)
		stop()
		up.check(t)
		report := up.verify(t, "s")
		last := seen[len(seen)-1]
		if !earlier && (report.Chunks != len(seen)+1 || len(last.Seal) == 0) || earlier && (report.Chunks != len(seen) || len(seen[len(seen)-2].Seal) == 0 || len(last.Seal) != 0) {
			t.Errorf("an earlier version %v: %d chunks were sent as %+v", earlier, report.Chunks, seen)
		}
		if len(seen[0].Seal) != 0 || report.State != record.StateSealed {
			t.Errorf("%+v, %+v", seen[0], report)
		}
	}
}

// What was sent and not acknowledged is sent again with the same bytes.
func TestStreamBreaks(t *testing.T) {
	up := newShelf()
	up.breakAt = func(n int) bool { return n%3 == 0 }
	s, _, _ := start(t, testConfig(t, up))
	r, err := s.Session(meta("s"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(8) {
		if err := r.Record(intent(i+1), Remote); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close("done"); err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	up.check(t)
	if r := up.verify(t, "s"); r.Statements != 8 || r.State != record.StateSealed {
		t.Errorf("%+v", r)
	}
}

// Without the control plane the quota fills: then nothing is forwarded, and what ends
// sessions is still recorded.
func TestFull(t *testing.T) {
	up := newShelf()
	up.shut = true
	cfg := testConfig(t, up)
	cfg.MaxBytes = 5 * testSegment
	s, _, stop := start(t, cfg)
	var all []*Recorder
	for i := range 3 {
		r, err := s.Session(meta(fmt.Sprint("s", i)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	var kept uint64
	var refused error
	text := strings.Repeat("x", 10_000)
	for refused == nil {
		e := intent(kept + 1)
		e.Text = text
		if refused = all[0].Record(e, Local); refused == nil {
			kept++
		}
	}
	if !errors.Is(refused, errFull) || kept < 50 {
		t.Fatalf("after %d events: %v", kept, refused)
	}
	if !errors.Is(s.Healthy(), errFull) {
		t.Errorf("Healthy: %v", s.Healthy())
	}
	if _, err := s.Session(meta("late")); err == nil {
		t.Error("a session began on a full spool")
	}
	if err := all[1].Record(intent(1), Async); err == nil {
		t.Error("an intent was taken by a full spool")
	}
	for _, r := range all {
		if err := r.Record(&record.Event{Kind: record.KindDenied, Reason: "the spool is full"}, Local); err != nil {
			t.Errorf("a denial was not taken: %v", err)
		}
		if err := r.Close("the spool is full"); err != nil {
			t.Error(err)
		}
	}
	up.mu.Lock()
	up.shut = false
	up.mu.Unlock()
	drain(t, s)
	waitFor(t, func() bool { return s.Healthy() == nil })
	if _, err := s.Session(meta("late")); err != nil {
		t.Error(err)
	}
	stop()
	up.check(t)
	for i := range all {
		if r := up.verify(t, fmt.Sprint("s", i)); r.State != record.StateSealed || r.Denied != 1 {
			t.Errorf("%+v", r)
		}
	}
	if r := up.verify(t, "s0"); r.Statements != int64(kept)+1 {
		t.Errorf("%d statements were recorded, %d are there", kept+1, r.Statements)
	}
}

func TestUnshippedTooLong(t *testing.T) {
	up := newShelf()
	up.shut = true
	cfg := testConfig(t, up)
	cfg.MaxUnshipped = 10 * time.Millisecond
	cfg.RemoteTimeout = time.Second // that must be enough for the last one
	s, _, _ := start(t, cfg)
	r, err := s.Session(meta("s"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Record(intent(1), Remote); err == nil {
		t.Error("recorded in mode Remote without a control plane")
	}
	waitFor(t, func() bool { return s.Healthy() != nil })
	if err := r.Record(intent(2), Local); err == nil || !strings.Contains(err.Error(), "control plane") {
		t.Errorf("got %v", err)
	}
	up.mu.Lock()
	up.shut = false
	up.mu.Unlock()
	waitFor(t, func() bool { return s.Healthy() == nil })
	if err := errors.Join(r.Record(intent(3), Remote), r.Close("done")); err != nil {
		t.Error(err)
	}
	drain(t, s)
	up.verify(t, "s")
}

// A recording that the control plane refuses is put aside, and its session ends.
func TestRejected(t *testing.T) {
	up := newShelf()
	up.refuse = func(c Chunk) string {
		if c.Session == "bad" && c.Index == 1 {
			return "another chunk is stored"
		}
		return ""
	}
	cfg := testConfig(t, up)
	s, _, stop := start(t, cfg)
	bad, err := s.Session(meta("bad"))
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Record(intent(1), Remote); err != nil {
		t.Fatal(err)
	}
	if err := bad.Record(intent(2), Remote); err == nil || !strings.Contains(err.Error(), "another chunk") {
		t.Errorf("got %v", err)
	}
	if err := bad.Record(intent(3), Local); err == nil {
		t.Error("a refused session goes on")
	}
	if err := bad.Close("refused"); err == nil {
		t.Error("a refused session closed without an error")
	}
	good, err := s.Session(meta("good"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(good.Record(intent(1), Remote), good.Close("done")); err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	stop()
	up.verify(t, "good")
	chunks := append(up.session("bad"), readAside(t, cfg.Dir, "bad", 1))
	r, err := record.Verify(each(chunks), nodeKey.Public(), dataKey(t, chunks))
	if err != nil || len(r.Errors) > 0 || r.Statements != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// A spool that is closed and opened again ships what the first left, byte for byte.
func TestReopen(t *testing.T) {
	up := newShelf()
	up.breakAt = func(int) bool { return true } // stored, and never acknowledged
	cfg := testConfig(t, up)
	s, _, stop := start(t, cfg)
	for _, id := range []string{"ended", "lived"} {
		r, err := s.Session(meta(id))
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(300) {
			e := intent(i + 1)
			e.Text = strings.Repeat(e.Text, 200)
			if err := r.Record(e, Local); err != nil {
				t.Fatal(err)
			}
		}
		if id == "ended" {
			if err := r.Close("done"); err != nil {
				t.Fatal(err)
			}
		}
	}
	waitFor(t, func() bool { up.mu.Lock(); defer up.mu.Unlock(); return len(up.chunks) == 2 })
	if _, _, err := Open(cfg); err == nil {
		t.Error("two spools have one folder")
	}
	stop()
	up.mu.Lock()
	up.breakAt = nil
	up.mu.Unlock()
	s, recovery, _ := start(t, cfg)
	if recovery.Damage != "" || len(recovery.Sessions) != 2 {
		t.Errorf("%+v", recovery)
	}
	if !recovery.Sessions[1].Truncated || recovery.Sessions[0].Truncated || recovery.Sessions[1].Last != 301 {
		t.Errorf("%+v", recovery.Sessions)
	}
	drain(t, s)
	up.check(t)
	if r := up.verify(t, "ended"); r.State != record.StateSealed || r.Statements != 300 {
		t.Errorf("%+v", r)
	}
	if r := up.verify(t, "lived"); r.State != record.StateTruncated || r.Statements != 300 || r.Reason != nodeStopped {
		t.Errorf("%+v", r)
	}
}

func readAside(t *testing.T, dir, id string, index int) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "rejected", fmt.Sprintf("%s-%d.chunk", id, index)))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestIDs(t *testing.T) {
	s, _, _ := start(t, testConfig(t, newShelf()))
	for _, id := range []string{"", "../x", "a b", strings.Repeat("x", record.MaxName+1)} {
		if _, err := s.Session(meta(id)); err == nil {
			t.Errorf("session %q began", id)
		}
	}
	if _, err := s.Session(meta("s")); err != nil {
		t.Error(err)
	}
	if _, err := s.Session(meta("s")); err == nil {
		t.Error("a session began twice")
	}
	if got := slices.Collect(maps.Keys(s.sessions)); len(got) != 1 {
		t.Errorf("sessions: %v", got)
	}
}
