package secrets_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/test/e2e/fleet"
)

// canaries are what must be nowhere. Values are those that the test knows, patterns
// those that it has never seen.
type canaries struct {
	values   map[string][]string // in all the forms looked for, by what it is
	patterns map[string]*regexp.Regexp
	keys     map[postern.SessionID]*record.DataKey // of recordings that are searched inside too
}

// learn asks for the keys of all recordings that there are.
func (c *canaries) learn(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	c.keys = map[postern.SessionID]*record.DataKey{}
	for _, s := range f.Sessions(t) {
		key, err := f.Recorder(t).DataKey(t.Context(), s.ID)
		if err != nil {
			t.Fatal(err)
		}
		c.keys[postern.SessionID(s.ID)] = key
	}
}

func (c *canaries) add(what, value string) {
	if len(value) < 12 {
		panic("a canary that is too short: " + what)
	}
	c.values[what] = append(c.values[what], forms(value)...)
}

// forms are a value as it is, in hex, and in both base64 alphabets at each of the three
// places where it can stand in a longer text.
func forms(value string) []string {
	out := []string{value, hex.EncodeToString([]byte(value)), strings.ToUpper(hex.EncodeToString([]byte(value)))}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			text := enc.EncodeToString(append(make([]byte, shift), value...))
			text = text[(shift*8+5)/6:]                             // what the bytes before had a part in
			text = text[:len(text)-btoi((shift+len(value))%3 != 0)] // and those behind
			out = append(out, text)
		}
	}
	return out
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// in names the canaries that stand in a text.
func (c *canaries) in(text []byte) (found []string) {
	for what, forms := range c.values {
		for _, v := range forms {
			if bytes.Contains(text, []byte(v)) {
				found = append(found, what)
				break
			}
		}
	}
	for what, p := range c.patterns {
		if p.Match(text) {
			found = append(found, what)
		}
	}
	return found
}

// A report is what was searched, and the hits as "place: what".
type report struct {
	files, chunks, processes int
	bytes                    int64
	hits                     []string
}

func (r *report) hit(place string, found []string) {
	for _, what := range found {
		r.hits = append(r.hits, place+": "+what)
	}
}

// tree searches every file below a folder, but for what skip says. Chunks of recordings
// are searched as they are and, where the key is known, inside.
func (r *report) tree(t *testing.T, c *canaries, root string, skip func(rel string) bool) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // gone meanwhile
			}
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if skip(rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(p)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		r.files++
		full := dense(text)
		r.bytes += int64(len(full))
		r.hit(p, c.in(full))
		for first, rest := record.Split(text); len(first) > 0; first, rest = record.Split(rest) {
			if chunk, err := record.ParseChunk(first); err == nil {
				r.inside(t, c, p, chunk)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// inside searches what is sealed in a chunk.
func (r *report) inside(t *testing.T, c *canaries, path string, chunk *record.Chunk) {
	t.Helper()
	key := c.keys[chunk.Session]
	if key == nil || chunk.Sealing {
		return
	}
	frames, err := chunk.Frames(key)
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	r.chunks++
	r.hit(path+" opened", c.in(frames))
}

// dense leaves out blocks of zeros, of which preallocated files mostly consist.
func dense(b []byte) []byte {
	const block = 4 << 10
	zero := make([]byte, block)
	var out []byte
	for ; len(b) > 0; b = b[min(block, len(b)):] {
		part := b[:min(block, len(b))]
		if !bytes.Equal(part, zero[:len(part)]) {
			out = append(out, part...)
		}
	}
	return out
}

// families searches the command line and the environment of processes and of all that
// they have started.
func (r *report) families(t *testing.T, c *canaries, pids ...int) {
	t.Helper()
	for _, first := range pids {
		for _, pid := range fleet.Family(first) {
			for _, name := range []string{"cmdline", "environ"} {
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
				if err != nil && pid == first {
					t.Errorf("the %s of process %d cannot be read: %v", name, pid, err)
				}
				r.hit(fmt.Sprintf("%s of process %d", name, pid), c.in(text))
			}
			r.processes++
		}
	}
}
