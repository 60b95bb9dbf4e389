package record

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// A recording that a version of the format wrote is read and verified by every later
// one. The folders are written once, with -update, and never again.
func TestForever(t *testing.T) {
	if dir := fmt.Sprintf("testdata/v%d-minlz", formatVersion); *update {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			preserve(t, dir)
		}
	}
	folders, err := filepath.Glob("testdata/v*")
	if err != nil || len(folders) < 2 { // the second version, with both codecs that it has had
		t.Fatalf("%v, %v", folders, err)
	}
	for _, dir := range folders {
		paths, err := filepath.Glob(filepath.Join(dir, "00*"))
		if err != nil || len(paths) < 4 {
			t.Fatalf("%s: %v, %v", dir, paths, err)
		}
		var chunks [][]byte
		for _, p := range paths {
			chunks = append(chunks, load(t, p))
		}
		node, err := x509.ParsePKIXPublicKey(unhex(t, filepath.Join(dir, "node.pub")))
		if err != nil {
			t.Fatal(err)
		}
		r, err := Verify(each(chunks), node, nil)
		if err != nil || len(r.Errors) > 0 || r.State != StateSealed || r.Chunks != len(chunks) {
			t.Errorf("%s without a key: %+v, %v", dir, r, err)
		}
		private, err := secret.ParsePrivateKey(unhex(t, filepath.Join(dir, "recording.key")))
		if err != nil {
			t.Fatal(err)
		}
		first, err := ParseChunk(chunks[0])
		if err != nil {
			t.Fatal(err)
		}
		key := must(OpenDataKey(must(first.Key.Unwrap(private, first.Session)).Reveal()))
		if r, err = Verify(each(chunks), node, key); err != nil || len(r.Errors) > 0 || r.Statements != 4 {
			t.Errorf("%s: %+v, %v", dir, r, err)
		}
		var got bytes.Buffer
		if err := JSON(&got, Events(each(chunks), key)); err != nil {
			t.Fatal(err)
		}
		if want := load(t, filepath.Join(dir, "events.jsonl")); !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s reads differently now:\n%s", dir, &got)
		}
	}
}

func load(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unhex(t *testing.T, path string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimSpace(string(load(t, path))))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// preserve writes a recording that uses all of the format: compressed or not, runs of a node
// that lost the key, and an event over several chunks.
func preserve(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const session = postern.SessionID("s-1")
	private := must(secret.GenerateKey())
	data, wrapped, err := NewDataKey(private.PublicKey(), session)
	if err != nil {
		t.Fatal(err)
	}
	var frames [][]byte
	for _, e := range append(story(), &Event{Seq: uint64(len(story()) + 1), Time: began, Kind: KindNote, Text: strings.Repeat("long ", 28_000)}) {
		all := must(AppendFrames(nil, e))
		for len(all) > 0 {
			f := must(NextFrame(all))
			frames = append(frames, all[:f.Size:f.Size])
			all = all[f.Size:]
		}
	}
	h := Header{Session: session, Key: wrapped}
	var span Span
	var chunks [][]byte
	for part := range slices.Chunk(frames, 7) {
		if span, err = span.Next(bytes.Join(part, nil)); err != nil {
			t.Fatal(err)
		}
		h.First, h.Last, h.Open, h.Codec = span.First, span.Last, span.Open, CodecMinLZ
		var chunk []byte
		switch h.Index % 3 {
		case 0:
			chunk, h.Previous, err = AppendChunk(nil, h, data, bytes.Join(part, nil))
		case 1:
			var runs [][]byte
			decoded := 0
			for i, f := range part {
				number := uint64(h.Index)<<8 | uint64(i)
				run, ok := data.SealPacked(make([]byte, 0, PackedRoom(len(f))), f, number)
				if !ok {
					run = data.Seal(append(make([]byte, SealRoom), f...), number)
				}
				runs, decoded = append(runs, run), decoded+len(f)
			}
			var sealed *SealedChunk
			if sealed, err = NewSealedChunk(h, decoded, runs); err == nil {
				h.Previous = sealed.Hash()
				chunk = sealed.Append(nil, h.Previous)
			}
		case 2:
			h.Codec = CodecNone
			chunk, h.Previous, err = AppendChunk(nil, h, data, bytes.Join(part, nil))
		}
		if err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, chunk)
		h.Index++
	}
	seal, _, err := AppendSeal(nil, Seal{Session: session, Node: "node-1", Chunks: h.Index, Previous: h.Previous, Last: span.Last, Time: began}, key)
	if err != nil {
		t.Fatal(err)
	}
	chunks = append(chunks, seal)
	var events bytes.Buffer
	if err := JSON(&events, Events(each(chunks), data)); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"events.jsonl":  events.Bytes(),
		"node.pub":      []byte(hex.EncodeToString(must(x509.MarshalPKIXPublicKey(key.Public()))) + "\n"),
		"recording.key": []byte(hex.EncodeToString(must(private.Marshal()).Reveal()) + "\n"),
	}
	for i, c := range chunks {
		files[fmt.Sprintf("%010d", i)] = c
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
