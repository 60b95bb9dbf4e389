package record

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"
)

// sealedRuns are runs of all kinds, and what is in them.
func sealedRuns(t testing.TB) (runs [][]byte, frames []byte) {
	t.Helper()
	noise := make([]byte, MaxFrameBody-100)
	_, _ = rand.Read(noise) // never fails
	for i, data := range [][]byte{[]byte("a"), noise, []byte(strings.Repeat("all is well\n", 3000)), noise[:200]} {
		part, err := AppendFrames(nil, &Event{Seq: uint64(i + 1), Time: began, Kind: KindChunk, Data: data})
		if err != nil {
			t.Fatal(err)
		}
		run, ok := dataKey.SealPacked(make([]byte, 0, PackedRoom(len(part))), part, uint64(i))
		if smaller := i == 2; ok != smaller {
			t.Fatalf("run %d is packed: %v", i, ok)
		}
		if !ok {
			run = dataKey.Seal(append(make([]byte, SealRoom), part...), uint64(i))
		}
		if len(run) > len(part)+SealOverhead || RunNumber(run) != uint64(i) {
			t.Fatalf("run %d has %d bytes for %d, and number %d", i, len(run), len(part), RunNumber(run))
		}
		runs, frames = append(runs, run), append(frames, part...)
	}
	return runs, frames
}

func TestSealPackedWithoutRoom(t *testing.T) {
	frames := []byte(strings.Repeat("all is well\n", 3000))
	if _, ok := dataKey.SealPacked(make([]byte, 0, PackedRoom(len(frames))-1), frames, 1); ok {
		t.Error("it was sealed where there was no room")
	}
}

func TestSealedChunk(t *testing.T) {
	runs, frames := sealedRuns(t)
	h := Header{Session: "s-1", First: 1, Last: 4, Codec: CodecMinLZ, Key: wrapped}
	sealed, err := NewSealedChunk(h, len(frames), runs)
	if err != nil {
		t.Fatal(err)
	}
	data := sealed.Append([]byte("before"), sealed.Hash())[len("before"):]
	if len(data) != sealed.Size() {
		t.Errorf("%d bytes, and %d were said", len(data), sealed.Size())
	}
	chunk, err := ParseChunk(data)
	if err != nil {
		t.Fatal(err)
	}
	got, err := chunk.OpenFrames(dataKey, Span{})
	if err != nil || !bytes.Equal(got, frames) {
		t.Errorf("%d bytes for %d: %v", len(got), len(frames), err)
	}
	for name, decoded := range map[string]int{"more than there is": len(frames) + 1, "less than there is": len(frames) - 1} {
		sealed, err := NewSealedChunk(h, decoded, runs)
		if err != nil {
			t.Fatal(err)
		}
		chunk, err := ParseChunk(sealed.Append(nil, sealed.Hash()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := chunk.Frames(dataKey); err == nil {
			t.Errorf("%s: it opens", name)
		}
	}
	for name, of := range map[string]struct {
		decoded int
		runs    [][]byte
	}{"nothing": {0, nil}, "too much": {MaxFrames + 1, runs}, "no seal": {1, [][]byte{make([]byte, 28)}}, "too long": {1, [][]byte{make([]byte, MaxChunk)}}} {
		if _, err := NewSealedChunk(h, of.decoded, of.runs); err == nil {
			t.Errorf("%s: it is a chunk", name)
		}
	}
}
