package spool

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/posterngate/postern/pkg/record"
)

// TestEarlier: what a node of an earlier version left is shipped, and is what it was. The
// log in testdata/bare has a chunk that is built and runs behind it, of frames as they are.
func TestEarlier(t *testing.T) {
	up := newShelf()
	cfg := testConfig(t, up)
	const name = "0000000000000000.spool"
	f, err := os.Open(filepath.Join("testdata", "bare", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	log, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, name), log, 0o600); err != nil {
		t.Fatal(err)
	}
	s, r, _ := start(t, cfg)
	if len(r.Sessions) != 1 || r.Damage != "" || len(r.Lost) > 0 {
		t.Fatalf("%+v", r)
	}
	drain(t, s)
	if r := up.verify(t, "s"); r.State != record.StateTruncated || r.Events != 8 || r.Chunks != 3 {
		t.Errorf("%+v", r)
	}
	all := events(t, up.session("s"))
	if last := all[7]; last.Text != "the node stops here" || string(all[6].Data[:12]) != "all is well\n" {
		t.Errorf("%+v", last)
	}
	up.check(t)
}
