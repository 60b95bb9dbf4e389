package spool

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/record"
)

// TestEarlier: what a node of an earlier version left is shipped, and is what it was. Each
// log has a chunk that is built and runs behind it: of frames as they are in testdata/bare,
// of frames in S2 in testdata/s2.
func TestEarlier(t *testing.T) {
	for of, want := range map[string]struct {
		events int
		end    string // of the data before the last of them
	}{
		"bare": {8, "all is well\n"},
		"s2":   {10, "and ends well\n"},
	} {
		t.Run(of, func(t *testing.T) {
			up := newShelf()
			cfg := testConfig(t, up)
			const name = "0000000000000000.spool"
			log := unzip(t, filepath.Join("testdata", of, name+".gz"))
			if err := os.WriteFile(filepath.Join(cfg.Dir, name), log, 0o600); err != nil {
				t.Fatal(err)
			}
			s, r, _ := start(t, cfg)
			if len(r.Sessions) != 1 || r.Damage != "" || len(r.Lost) > 0 {
				t.Fatalf("%+v", r)
			}
			drain(t, s)
			if r := up.verify(t, "s"); r.State != record.StateTruncated || int(r.Events) != want.events || r.Chunks != 3 {
				t.Errorf("%+v", r)
			}
			all := events(t, up.session("s"))
			if last := all[want.events-1]; last.Text != "the node stops here" || !strings.HasSuffix(string(all[want.events-2].Data), want.end) {
				t.Errorf("%+v", last)
			}
			up.check(t)
		})
	}
}

func unzip(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
