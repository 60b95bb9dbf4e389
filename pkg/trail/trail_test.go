package trail

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	mrand "math/rand/v2"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api/layout"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
)

var (
	began     = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	nodeKey   = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, ed25519.SeedSize))
	otherNode = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{4}, ed25519.SeedSize))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A world is recordings in a folder and the audit log that tells of them.
type world struct {
	entries  []*apiv1.AuditEntry
	files    fstest.MapFS // of the log
	blobs    fstest.MapFS
	key      string
	signer   note.Signer
	sessions []string // that are sealed
}

func (w *world) log() *Log { return logOf(w.files) }

func logOf(files fs.FS) *Log { return &Log{files, func() error { return nil }} }

func (w *world) tell(action, session string, r Recording) {
	e := &apiv1.AuditEntry{Sequence: int64(len(w.entries) + 1), Time: timestamppb.New(began), Actor: "node/" + r.Node, Action: action,
		Object: "session/" + session, Outcome: "ok", Detail: string(must(json.Marshal(r)))}
	var before []byte
	if n := len(w.entries); n > 0 {
		before = w.entries[n-1].GetHash()
	}
	e.Hash = Chain(before, e)
	w.entries = append(w.entries, e)
}

// write makes the log's files of the entries, as the one who has the key.
func (w *world) write() { w.files = w.folder(w.leaves(), w.signer) }

func (w *world) leaves() [][]byte {
	var leaves [][]byte
	for _, e := range w.entries {
		leaves = append(leaves, must(proto.Marshal(e)))
	}
	return leaves
}

func (w *world) folder(leaves [][]byte, signer note.Signer) fstest.MapFS {
	files := fstest.MapFS{}
	tree := (&compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}).NewEmptyRange(0)
	for i := 0; i < len(leaves); i += layout.EntryBundleWidth {
		part := leaves[i:min(len(leaves), i+layout.EntryBundleWidth)]
		var bundle []byte
		for _, leaf := range part {
			bundle = append(binary.BigEndian.AppendUint16(bundle, uint16(len(leaf))), leaf...)
			if err := tree.Append(rfc6962.DefaultHasher.HashLeaf(leaf), nil); err != nil {
				panic(err)
			}
		}
		files[layout.EntriesPath(uint64(i/layout.EntryBundleWidth), uint8(len(part)%layout.EntryBundleWidth))] = &fstest.MapFile{Data: bundle}
	}
	c := log.Checkpoint{Origin: signer.Name(), Size: uint64(len(leaves)), Hash: must(tree.GetRootHash(nil))}
	files[layout.CheckpointPath] = &fstest.MapFile{Data: must(note.Sign(&note.Note{Text: string(c.Marshal())}, signer))}
	return files
}

// dirOf is where the chunks of a session lie; what is raw has a place of its own.
func dirOf(session string) string {
	if _, raw := record.RawOf(postern.SessionID(session)); raw {
		return "raw/v1/2026/01/02/" + session
	}
	return "recordings/v1/2026/01/02/" + session
}

// keep records a session of n chunks, and tells the log of it.
func (w *world) keep(session string, n int, node ed25519.PrivateKey, sealed, truncated bool) {
	private := must(secret.GenerateKey())
	key, wrapped, err := record.NewDataKey(private.PublicKey(), postern.SessionID(session))
	if err != nil {
		panic(err)
	}
	var chain record.Chain
	about := Recording{Node: "node-1", Subject: "alice", Task: "sales-report", Resource: "warehouse"}
	store := func(data []byte) {
		c := must(chain.Add(data))
		about.Chunks, about.Hash = c.Index+1, c.Hash[:]
		w.blobs[fmt.Sprintf("%s/%010d", dirOf(session), c.Index)] = &fstest.MapFile{Data: data}
	}
	for i := range n {
		var frames []byte
		for j := range 3 {
			frames = must(record.AppendFrames(frames, &record.Event{Seq: uint64(3*i + j + 1), Time: began, Kind: record.KindNote, Text: fmt.Sprint("fact ", rand.Text())}))
		}
		h := record.Header{Session: postern.SessionID(session), Index: chain.Next, First: uint64(3*i + 1), Last: uint64(3*i + 3), Codec: record.CodecMinLZ, Key: wrapped, Previous: chain.Previous}
		data, _, err := record.AppendChunk(nil, h, key, frames)
		if err != nil {
			panic(err)
		}
		store(data)
		if i == 0 {
			w.tell(Began, session, about)
		}
	}
	if !sealed {
		return
	}
	data, _, err := record.AppendSeal(nil, record.Seal{Session: postern.SessionID(session), Node: "node-1", Chunks: chain.Next, Previous: chain.Previous, Last: chain.Span.Last, Time: began, Truncated: truncated}, node)
	if err != nil {
		panic(err)
	}
	store(data)
	about.NodeKey, about.Truncated = must(x509.MarshalPKIXPublicKey(node.Public())), truncated
	w.tell(Sealed, session, about)
	w.sessions = append(w.sessions, session)
}

// lose tells the log that the rest of a session will not come.
func (w *world) lose(session string) {
	about := Recording{Node: "node-1", Truncated: true}
	for _, name := range slices.Sorted(maps.Keys(w.blobs)) {
		if data := w.blobs[name].Data; strings.Contains(name, "/"+session+"/") {
			about.Chunks, about.Hash = about.Chunks+1, data[len(data)-len(record.Hash{}):]
		}
	}
	w.tell(Lost, session, about)
}

func newWorld() *world {
	private, public, err := note.GenerateKey(rand.Reader, "postern.audit.test")
	if err != nil {
		panic(err)
	}
	w := &world{blobs: fstest.MapFS{}, key: public, signer: must(note.NewSigner(private))}
	w.keep("s-a", 3, nodeKey, true, false)
	w.tell("task.update", "none", Recording{})
	w.keep("s-a_raw", 3, nodeKey, true, false)
	w.keep("s-b", 2, nodeKey, true, true)
	w.keep("s-c", 4, otherNode, true, false)
	w.keep("s-live", 2, nodeKey, false, false)
	w.keep("s-lost", 3, nodeKey, false, false)
	w.lose("s-lost")
	w.keep("s-old", 1, nodeKey, true, false)
	w.tell(Expired, "s-old", Recording{})
	w.entries[len(w.entries)-1].Detail = `{"sessions":["s-old"]}`
	w.entries[len(w.entries)-1].Hash = Chain(w.entries[len(w.entries)-2].GetHash(), w.entries[len(w.entries)-1])
	maps.DeleteFunc(w.blobs, func(name string, _ *fstest.MapFile) bool { return strings.Contains(name, "s-old") })
	w.sessions = w.sessions[:4]
	w.write()
	return w
}

func (w *world) clone() *world {
	c := *w
	c.files, c.blobs = fstest.MapFS{}, fstest.MapFS{}
	for from, to := range map[*fstest.MapFS]fstest.MapFS{&w.files: c.files, &w.blobs: c.blobs} {
		for name, f := range *from {
			to[name] = &fstest.MapFile{Data: bytes.Clone(f.Data)}
		}
	}
	return &c
}

// TestActorsAreHashed: who acted for whom counts, in order, and is no change by another name.
func TestActorsAreHashed(t *testing.T) {
	change := func(parts ...string) *apiv1.AuditEntry {
		return &apiv1.AuditEntry{Actor: "a", Changes: []*apiv1.AuditChange{{Object: parts[0], Action: parts[1], Before: parts[2], After: parts[3]}}}
	}
	seen := map[string]string{}
	for name, e := range map[string]*apiv1.AuditEntry{
		"alone": {Actor: "a"}, "by b": {Actor: "a", Actors: []string{"b"}}, "by b for c": {Actor: "a", Actors: []string{"b", "c"}}, "by c for b": {Actor: "a", Actors: []string{"c", "b"}},
		"by bc": {Actor: "a", Actors: []string{"bc"}}, "four": {Actor: "a", Actors: []string{"b", "c", "d", "false"}}, "a change": change("b", "c", "d", "false"),
		"by nobody": {Actor: "a", Actors: []string{""}},
	} {
		h := string(Chain(nil, e))
		if was, twice := seen[h]; twice {
			t.Errorf("%s and %s have one hash", name, was)
		}
		seen[h] = name
	}
}

func TestIntact(t *testing.T) {
	w := newWorld()
	s, err := w.log().VerifyRecordings(w.key, nil, w.blobs)
	if err != nil || len(s.Findings) > 0 || s.Sealed != 3 || s.Truncated != 2 || s.Expired != 1 || len(s.Open) != 1 || s.Entries != uint64(len(w.entries)) {
		t.Fatalf("%+v, %v", s, err)
	}
	if o := s.Open[0]; o.Session != "s-live" || o.Chunks != 2 || o.Last != 6 || o.Subject != "alice" || o.Node != "node-1" || !o.Began.Equal(began) {
		t.Errorf("%+v", o)
	}
	if s, err := w.log().VerifyRecordings(w.key, nil, w.blobs, "s-a", "none"); err != nil || len(s.Findings) != 1 || s.Sealed != 2 { // what is raw of s-a too
		t.Errorf("%+v, %v", s, err)
	}
}

// TestHeldWhileItGoes: a recording that retention was about to delete, and did not, is missed.
func TestHeldWhileItGoes(t *testing.T) {
	w := newWorld()
	w.tell(Kept, "s-old", Recording{})
	w.entries[len(w.entries)-1].Detail = `{"sessions":["s-old"]}`
	w.entries[len(w.entries)-1].Hash = Chain(w.entries[len(w.entries)-2].GetHash(), w.entries[len(w.entries)-1])
	w.write()
	s, err := w.log().VerifyRecordings(w.key, nil, w.blobs)
	if err != nil || s.Expired != 0 || len(s.Findings) != 1 || s.Findings[0].Session != "s-old" || !strings.Contains(s.Findings[0].Problem, "all of it is missing") {
		t.Errorf("%+v, %v", s, err)
	}
}

// A seal may stand in the file of the chunk before it, and a recording that came whole is
// told of once.
func TestSealBehindItsChunk(t *testing.T) {
	w := newWorld()
	began := w.entries
	w.entries = nil
	w.keep("s-short", 1, nodeKey, true, false)
	w.entries = append(began, w.entries[1])
	for _, id := range []string{"s-a", "s-a_raw", "s-b", "s-short"} {
		names := slices.Sorted(maps.Keys(w.blobs))
		names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, dirOf(id)+"/") })
		seal := names[len(names)-1]
		before := w.blobs[names[len(names)-2]]
		before.Data = append(before.Data, w.blobs[seal].Data...)
		delete(w.blobs, seal)
	}
	w.entries[len(w.entries)-1].Sequence = int64(len(w.entries))
	w.entries[len(w.entries)-1].Hash = Chain(w.entries[len(w.entries)-2].GetHash(), w.entries[len(w.entries)-1])
	w.write()
	s, err := w.log().VerifyRecordings(w.key, nil, w.blobs)
	if err != nil || len(s.Findings) > 0 || s.Sealed != 4 || s.Truncated != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	file := dirOf("s-short") + "/0000000000"
	intact := w.blobs[file].Data
	chunk, _ := record.Split(intact)
	for want, data := range map[string][]byte{
		"its end is missing":  chunk,
		"follows the seal":    append(bytes.Clone(intact), intact[len(chunk):]...),
		"damaged chunk":       append(bytes.Clone(intact), 0),
		"its hash does not":   append(append(bytes.Clone(chunk[:len(chunk)-1]), chunk[len(chunk)-1]^1), intact[len(chunk):]...),
		"cut short":           intact[:20],
		"does not begin as a": {},
	} {
		w.blobs[file].Data = data
		s, err := w.log().VerifyRecordings(w.key, nil, w.blobs)
		if err != nil || len(s.Findings) == 0 || !strings.Contains(fmt.Sprint(s.Findings), want) || s.Sealed != 3 {
			t.Errorf("want %q: %+v, %v", want, s, err)
		}
	}
	delete(w.blobs, file)
	if s, err := w.log().VerifyRecordings(w.key, nil, w.blobs); err != nil || len(s.Findings) != 1 || !strings.Contains(s.Findings[0].Problem, "all of it is missing") {
		t.Errorf("%+v, %v", s, err)
	}
}

// What somebody does who has the database, the blobs and the nodes' keys, and not the
// log's key, is found.
func TestDeletedAndForged(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world)
		want   string
	}{
		"a whole session": {func(w *world) {
			maps.DeleteFunc(w.blobs, func(name string, _ *fstest.MapFile) bool { return strings.Contains(name, "/s-c/") })
		}, "all of it is missing"},
		"a session that lives": {func(w *world) {
			maps.DeleteFunc(w.blobs, func(name string, _ *fstest.MapFile) bool { return strings.Contains(name, "/s-live/") })
		}, "all of it is missing: it began"},
		"the end of one whose rest was lost": {func(w *world) { delete(w.blobs, "recordings/v1/2026/01/02/s-lost/0000000002") }, "2 of the 3 chunks are there"},
		"all of one whose rest was lost": {func(w *world) {
			maps.DeleteFunc(w.blobs, func(name string, _ *fstest.MapFile) bool { return strings.Contains(name, "/s-lost/") })
		}, "which lost the rest"},
		"all that is raw of it": {func(w *world) {
			maps.DeleteFunc(w.blobs, func(name string, _ *fstest.MapFile) bool { return strings.HasPrefix(name, "raw/") })
		}, "{s-a_raw all of it is missing"},
		"the end of what is raw of it": {func(w *world) { delete(w.blobs, dirOf("s-a_raw")+"/0000000003") }, "{s-a_raw its end is missing"},
		"its end":                      {func(w *world) { delete(w.blobs, "recordings/v1/2026/01/02/s-a/0000000003") }, "its end is missing"},
		"another story of it, signed by the node": {func(w *world) {
			files := w.files
			w.keep("s-a", 3, nodeKey, true, false)
			w.files = files
		}, "it does not begin with the chunk"},
		"one that may be in another's name, though that was told once": {func(w *world) {
			about := Recording{Node: "node-1", Hash: firstHash(w.blobs, []string{dirOf("s-live") + "/0000000000"}), Doubt: "the grant is bob's"}
			w.tell(Began, "s-live", about)
			about.Doubt = ""
			w.tell(Began, "s-live", about)
			w.write()
		}, "{s-live whose it is cannot be believed: the grant is bob's}"},
		"one that never was": {func(w *world) {
			files := w.files
			w.keep("s-new", 3, nodeKey, true, false)
			w.files = files
		}, "the log does not tell of it"},
		"a session, and the log made anew with another key": {func(w *world) {
			private, _, err := note.GenerateKey(rand.Reader, w.signer.Name())
			if err != nil {
				panic(err)
			}
			w.entries = slices.DeleteFunc(w.entries, func(e *apiv1.AuditEntry) bool { return e.GetObject() == "session/s-c" })
			w.files = w.folder(w.leaves(), must(note.NewSigner(private)))
		}, "not signed with the log's key"},
		"the newest entries": {func(w *world) {
			signed := w.files[layout.CheckpointPath]
			w.files = w.folder(w.leaves()[:5], w.signer)
			w.files[layout.CheckpointPath] = signed
		}, "trail"},
	} {
		w := newWorld().clone()
		c.change(w)
		s, err := w.log().VerifyRecordings(w.key, nil, w.blobs)
		if text := fmt.Sprint(s.Findings, err); !strings.Contains(text, c.want) {
			t.Errorf("%s: %s; want %q", name, text, c.want)
		}
	}
}

// The log as it was earlier, with a good signature, shows against a newer checkpoint.
func TestRolledBack(t *testing.T) {
	w := newWorld()
	newest := must(ParseCheckpoint(w.files[layout.CheckpointPath].Data, w.key))
	old := w.folder(w.leaves()[:4], w.signer)
	older := must(ParseCheckpoint(old[layout.CheckpointPath].Data, w.key))
	if _, err := logOf(old).Verify(w.key, []Checkpoint{newest}, nil); err == nil {
		t.Error("a log that was rolled back verified")
	}
	if _, err := w.log().Verify(w.key, []Checkpoint{older, newest}, nil); err != nil {
		t.Error(err)
	}
	older.Root[0] ^= 1
	if _, err := w.log().Verify(w.key, []Checkpoint{older}, nil); err == nil {
		t.Error("a log that is not the one of before verified")
	}
}

// Whatever is done to one stored chunk or to one row of the log, it is found, and what
// is intact raises no alarm. POSTERN_MUTATIONS says how many.
func TestMutations(t *testing.T) {
	n := 1000
	if s := os.Getenv("POSTERN_MUTATIONS"); s != "" {
		n = must(strconv.Atoi(s))
	}
	w := newWorld()
	rng := mrand.New(mrand.NewPCG(1, 2))
	kinds := mutations()
	names := slices.Sorted(maps.Keys(kinds))
	done := map[string]int{}
	for i := range n {
		name := names[i%len(names)]
		m := w.clone()
		kinds[name](m, rng)
		if same(w.files, m.files) && same(w.blobs, m.blobs) {
			t.Fatalf("%s changed nothing", name)
		}
		s, err := m.log().VerifyRecordings(m.key, nil, m.blobs)
		if err == nil && len(s.Findings) == 0 {
			t.Errorf("%s was not found: %+v", name, s)
		}
		done[name]++
		if i%10 == 0 {
			if s, err := w.clone().log().VerifyRecordings(w.key, nil, w.blobs); err != nil || len(s.Findings) > 0 {
				t.Fatalf("a false alarm: %+v, %v", s, err)
			}
		}
	}
	t.Logf("%d mutations: %v", n, done)
}

func same(a, b fstest.MapFS) bool {
	return maps.EqualFunc(a, b, func(x, y *fstest.MapFile) bool { return bytes.Equal(x.Data, y.Data) })
}

func mutations() map[string]func(w *world, rng *mrand.Rand) {
	blob := func(w *world, rng *mrand.Rand) string {
		names := slices.DeleteFunc(slices.Sorted(maps.Keys(w.blobs)), func(n string) bool { return strings.Contains(n, "s-live/0000000001") })
		return names[rng.IntN(len(names))] // what nobody has sealed yet can be cut off at its end
	}
	row := func(w *world, rng *mrand.Rand, change func(leaves [][]byte, i int) [][]byte) {
		signed := w.files[layout.CheckpointPath]
		w.files = w.folder(change(w.leaves(), rng.IntN(len(w.entries)-1)), w.signer)
		w.files[layout.CheckpointPath] = signed
	}
	flip := func(f *fstest.MapFile, rng *mrand.Rand) { f.Data[rng.IntN(len(f.Data))] ^= 1 << rng.IntN(8) }
	return map[string]func(w *world, rng *mrand.Rand){
		"chunk: bit": func(w *world, rng *mrand.Rand) { flip(w.blobs[blob(w, rng)], rng) },
		"chunk: cut": func(w *world, rng *mrand.Rand) { f := w.blobs[blob(w, rng)]; f.Data = f.Data[:rng.IntN(len(f.Data))] },
		"chunk: grow": func(w *world, rng *mrand.Rand) {
			f := w.blobs[blob(w, rng)]
			f.Data = append(f.Data, byte(rng.Uint32()))
		},
		"chunk: gone": func(w *world, rng *mrand.Rand) { delete(w.blobs, blob(w, rng)) },
		"chunk: swap": func(w *world, rng *mrand.Rand) {
			for {
				a, b := blob(w, rng), blob(w, rng)
				if w.blobs[a], w.blobs[b] = w.blobs[b], w.blobs[a]; a != b {
					return
				}
			}
		},
		"chunk: twice": func(w *world, rng *mrand.Rand) {
			id := w.sessions[rng.IntN(len(w.sessions))]
			dir := dirOf(id)
			files := must(fs.Glob(w.blobs, dir+"/*"))
			w.blobs[path.Join(dir, fmt.Sprintf("%010d", len(files)))] = w.blobs[files[rng.IntN(len(files))]]
		},
		"chunk: of another session": func(w *world, rng *mrand.Rand) {
			w.blobs["recordings/v1/2026/01/02/s-a/0000000001"] = w.blobs[[]string{"recordings/v1/2026/01/02/s-b/0000000001", "recordings/v1/2026/01/02/s-c/0000000001"}[rng.IntN(2)]]
		},
		"session: gone": func(w *world, rng *mrand.Rand) {
			id := w.sessions[rng.IntN(len(w.sessions))]
			maps.DeleteFunc(w.blobs, func(name string, _ *fstest.MapFile) bool { return strings.Contains(name, "/"+id+"/") })
		},
		"row: bit": func(w *world, rng *mrand.Rand) { flip(w.files[layout.EntriesPath(0, uint8(len(w.entries)))], rng) },
		"row: gone": func(w *world, rng *mrand.Rand) {
			row(w, rng, func(l [][]byte, i int) [][]byte { return slices.Delete(l, i, i+1) })
		},
		"row: twice": func(w *world, rng *mrand.Rand) {
			row(w, rng, func(l [][]byte, i int) [][]byte { return slices.Insert(l, i, l[i]) })
		},
		"row: swap": func(w *world, rng *mrand.Rand) {
			row(w, rng, func(l [][]byte, i int) [][]byte { l[i], l[i+1] = l[i+1], l[i]; return l })
		},
		"checkpoint: bit": func(w *world, rng *mrand.Rand) { flip(w.files[layout.CheckpointPath], rng) },
	}
}

func FuzzBundle(f *testing.F) {
	w := newWorld()
	f.Add(w.files[layout.EntriesPath(0, uint8(len(w.entries)))].Data)
	f.Add([]byte{0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		leaves, err := parseBundle(data)
		n := 0
		for _, l := range leaves {
			n += 2 + len(l)
		}
		if err == nil && n != len(data) {
			t.Errorf("%d bytes of %d", n, len(data))
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	w := newWorld()
	f.Add(w.files[layout.CheckpointPath].Data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := ParseCheckpoint(data, w.key); err == nil && !bytes.Equal(data, w.files[layout.CheckpointPath].Data) {
			t.Errorf("signed: %q", data)
		}
	})
}
