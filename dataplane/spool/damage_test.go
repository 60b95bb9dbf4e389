package spool

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/posterngate/postern/pkg/record"
)

// filled is a folder with the segments of a spool that could not ship and was stopped.
func filled(t testing.TB) Config {
	t.Helper()
	up := newShelf()
	up.shut = true
	cfg := testConfig(t, up)
	s, _, stop := start(t, cfg)
	for _, id := range []string{"a", "b"} {
		r, err := s.Session(meta(id))
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(100) {
			e := intent(i + 1)
			e.Text = noise(8_000) // so that it takes room when it is compressed too
			if err := r.Record(e, Local); err != nil {
				t.Fatal(err)
			}
		}
		if id == "a" {
			if err := r.Close("done"); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop()
	return cfg
}

func noise(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(' ' + rand.N(90))
	}
	return string(b)
}

// Whatever one byte of the log is damaged, what stands before it is shipped and
// verifies, and what stands behind it is not taken for whole.
func TestDamage(t *testing.T) {
	for range 20 {
		cfg := filled(t)
		up := newShelf()
		cfg.Uplink = up
		files, err := filepath.Glob(filepath.Join(cfg.Dir, "*"+segmentSuffix))
		if err != nil || len(files) < 3 {
			t.Fatalf("%v, %v", files, err)
		}
		path := files[rand.N(len(files))]
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		whole := segment{mem: data}
		if _, err := whole.each(func(entry) {}); err != nil {
			t.Fatal(err)
		}
		at := segmentHeader + rand.N(whole.used-segmentHeader)
		data[at] ^= 1 << rand.N(8)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, recovery, stop := start(t, cfg)
		drain(t, s)
		stop()
		up.check(t)
		if recovery.Damage == "" {
			t.Errorf("byte %d of %s was damaged, and nobody saw it", at, path)
		}
		for id := range up.chunks {
			r := up.verify(t, id)
			if r.State == record.StateOpen || r.State == record.StateSealed && r.Events != 102 {
				t.Errorf("%s: %+v", id, r)
			}
		}
		// The next start finds no damage again.
		_, recovery, stop = start(t, cfg)
		stop()
		if recovery.Damage != "" || len(recovery.Sessions) > 0 {
			t.Errorf("%+v", recovery)
		}
	}
}

// A segment whose head is damaged is put aside, and never deleted.
func TestDamagedHead(t *testing.T) {
	cfg := filled(t)
	up := newShelf()
	cfg.Uplink = up
	files, err := filepath.Glob(filepath.Join(cfg.Dir, "*"+segmentSuffix))
	if err != nil {
		t.Fatal(err)
	}
	place := func(file string) uint64 {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint64(data[8:])
	}
	files = slices.DeleteFunc(files, func(f string) bool { return place(f) == 0 })
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(place(a), place(b)) })
	last := files[len(files)/2]
	data, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	data[0] ^= 1
	if err := os.WriteFile(last, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, recovery, stop := start(t, cfg)
	drain(t, s)
	stop()
	if recovery.Damage == "" || len(recovery.Lost) == 0 {
		t.Errorf("%+v", recovery)
	}
	if _, err := os.Stat(last + lostSuffix); err != nil {
		t.Error(err)
	}
	for id := range up.chunks {
		up.verify(t, id)
	}
}

func FuzzSegment(f *testing.F) {
	seg := &segment{mem: make([]byte, 1<<10), used: segmentHeader}
	seg.begin(1)
	ses := &session{id: "s", ended: true, ending: ending{true, 7, "why"}}
	seg.add(entryState, 1, ses.appendState(nil))
	seg.add(entryFrames, 1, bytes.Repeat([]byte("frames"), 9))
	seg.add(entryCut, 1, cutting{index: 1, through: 2}.append(nil))
	seg.add(entryEnd, 1, ending{false, 7, "done"}.append(nil))
	seg.add(entryRoll, 0, nil)
	f.Add(bytes.Clone(seg.mem))
	f.Add(seg.mem[:segmentHeader])
	f.Fuzz(func(t *testing.T, data []byte) {
		found := map[uint64]*remains{}
		seg := &segment{mem: data}
		_, _ = seg.each(func(e entry) {
			_ = take(found, seg, e)
			_, _ = parseCutting(e.payload)
			_ = (&session{}).parseState(e.payload) // whatever the sum says
		})
		if seg.used > max(len(data), segmentHeader) {
			t.Fatalf("used %d of %d bytes", seg.used, len(data))
		}
	})
}
