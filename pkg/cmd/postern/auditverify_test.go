package main

import (
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// TestEarlierCheckpointsOfAnotherKey: what was kept from before the log's key was replaced is
// still held against the log, by the key of then; the log itself is by the first key alone.
func TestEarlierCheckpointsOfAnotherKey(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pubs, kept := map[string]string{}, map[string]string{}
	for _, name := range []string{"old", "new", "strange"} {
		private, public, err := note.GenerateKey(rand.Reader, "postern.audit."+name)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := note.NewSigner(private)
		if err != nil {
			t.Fatal(err)
		}
		root := base64.StdEncoding.EncodeToString(make([]byte, 32))
		signed, err := note.Sign(&note.Note{Text: "postern.audit." + name + "\n7\n" + root + "\n"}, signer)
		if err != nil {
			t.Fatal(err)
		}
		pubs[name], kept[name] = file(name+".pub", []byte(public+"\n")), file(name, signed)
	}
	o := offline{log: dir, keys: []string{pubs["new"], pubs["old"]}, earlier: []string{kept["old"], kept["new"]}}
	log, key, earlier, err := o.open()
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if len(earlier) != 2 || earlier[0].Size != 7 || !strings.HasPrefix(key, "postern.audit.new+") {
		t.Errorf("%+v, by %s", earlier, key)
	}
	for _, o := range []offline{
		{log: dir, keys: []string{pubs["new"], pubs["old"]}, earlier: []string{kept["strange"]}},
		{log: dir, keys: []string{pubs["new"]}, earlier: []string{kept["old"]}},
		{log: dir, keys: []string{pubs["new"], ""}},
		{log: dir},
	} {
		if _, _, _, err := o.open(); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
