package spool

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
)

var rawKey, _ = secret.ParsePrivateKey(bytes.Repeat([]byte{6}, 32))

// rawConfig is a spool that knows a raw key.
func rawConfig(t testing.TB, up Uplink) Config {
	cfg := testConfig(t, up)
	cfg.RawKey = rawKey.PublicKey
	return cfg
}

func begin(t *testing.T, s *Spool, id string) (r, raw *Recorder) {
	t.Helper()
	r, err := s.Session(meta(id))
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = s.Raw(r, meta(id)); err != nil {
		t.Fatal(err)
	}
	return r, raw
}

// rawEvents opens a raw recording, as only those can who have the raw key.
func rawEvents(t *testing.T, up *shelf, id string) (all []*record.Event) {
	t.Helper()
	chunks := up.session(id + "_raw")
	if len(chunks) == 0 {
		t.Fatal("nothing raw was shipped")
	}
	first, err := record.ParseChunk(chunks[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Key.Unwrap(recordingKey, first.Session); err == nil {
		t.Error("the recording key opens what is raw")
	}
	b, err := first.Key.Unwrap(rawKey, first.Session)
	if err != nil {
		t.Fatal(err)
	}
	key, err := record.OpenDataKey(b.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if r, err := record.Verify(each(chunks), nodeKey.Public(), nil); err != nil || len(r.Errors) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	for e, err := range record.Events(each(chunks), key) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// What is raw is a recording of its own, by the session's clock, and comes behind the
// session's first chunk.
func TestRaw(t *testing.T) {
	up := newShelf()
	up.refuse = func(c Chunk) string { // runs with the shelf locked
		if strings.HasSuffix(c.Session, "_raw") && len(up.chunks[strings.TrimSuffix(c.Session, "_raw")]) == 0 {
			return "its session is not known"
		}
		return ""
	}
	s, _, stop := start(t, rawConfig(t, up))
	r, raw := begin(t, s, "s-1")
	at := time.Now()
	for i := range uint64(20) {
		if err := errors.Join(r.Record(intent(i+1), Disk), raw.Record(&record.Event{Kind: record.KindRows, Time: at, Statement: i + 1, Data: []byte("raw")}, Remote)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(raw.Close("done"), r.Close("done")); err != nil {
		t.Fatal(err)
	}
	drain(t, s)
	stop()
	up.verify(t, "s-1")
	all := rawEvents(t, up, "s-1")
	if len(all) != 22 || all[0].Session.ID != "s-1_raw" || all[1].Statement != 1 || string(all[1].Data) != "raw" {
		t.Fatalf("%d events: %+v", len(all), all[0])
	}
	if want := at.Sub(r.began); all[1].Elapsed != want.Truncate(time.Microsecond) {
		t.Errorf("%s after the session began, want %s", all[1].Elapsed, want)
	}
}

// Without a key to seal it to nothing raw is begun, and no session is named as if it were.
func TestRawWithoutKey(t *testing.T) {
	s, _, _ := start(t, testConfig(t, newShelf()))
	r, err := s.Session(meta("s-1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Raw(r, meta("s-1")); err == nil {
		t.Error("what is raw is sealed to nothing")
	}
	if _, err := s.Session(meta("s-1_raw")); err == nil {
		t.Error("a session has the name of what is raw")
	}
}

// What an earlier process left of both is shipped, the session first.
func TestRawReopen(t *testing.T) {
	up := newShelf()
	up.shut = true
	cfg := rawConfig(t, up)
	s, _, stop := start(t, cfg)
	r, raw := begin(t, s, "s-1")
	if err := errors.Join(r.Record(intent(1), Disk), raw.Record(&record.Event{Kind: record.KindRows, Statement: 1, Data: []byte("raw")}, Disk)); err != nil {
		t.Fatal(err)
	}
	stop()
	up.mu.Lock()
	up.shut = false
	up.refuse = func(c Chunk) string {
		if c.Session == "s-1_raw" && len(up.chunks["s-1"]) == 0 {
			return "its session is not known"
		}
		return ""
	}
	up.mu.Unlock()
	s, found, _ := start(t, cfg)
	if len(found.Sessions) != 2 {
		t.Errorf("%+v", found)
	}
	drain(t, s)
	up.verify(t, "s-1")
	if all := rawEvents(t, up, "s-1"); len(all) != 3 || all[2].Reason != nodeStopped {
		t.Errorf("%d events", len(all))
	}
}

// Where the session is refused for good, what is raw of it does not wait for ever.
func TestRawOfRejected(t *testing.T) {
	up := newShelf()
	up.refuse = func(Chunk) string { return "no" }
	s, _, _ := start(t, rawConfig(t, up))
	r, raw := begin(t, s, "s-1")
	_, _ = r.Close("done"), raw.Close("done") // what is refused says so
	drain(t, s)
}

// A recorder is idle once all that was begun has ended.
func TestIdle(t *testing.T) {
	s, _, _ := start(t, testConfig(t, newShelf()))
	r, err := s.Session(meta("s-1"))
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		e    *record.Event
		idle bool
	}{
		{&record.Event{Kind: record.KindNote}, true},
		{intent(record.Next), false}, {intent(record.Next), false},
		{&record.Event{Kind: record.KindFinished, Statement: 1}, false},
		{&record.Event{Kind: record.KindDenied, Statement: record.Next}, false},
		{&record.Event{Kind: record.KindFinished, Statement: 2}, true},
	} {
		if err := r.Record(c.e, Local); err != nil || r.Idle() != c.idle {
			t.Errorf("event %d: idle %t, %v", i, r.Idle(), err)
		}
	}
}
