package record

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

var key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))

// recordingKey is whose holder reads; dataKey is the key of session s-1.
var (
	recordingKey     = must(secret.GenerateKey())
	dataKey, wrapped = newDataKey()
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newDataKey() (*DataKey, WrappedKey) {
	k, w, err := NewDataKey(recordingKey.PublicKey(), "s-1")
	return must(k, err), w
}

var began = time.Date(2026, 1, 2, 15, 4, 5, 678_000_000, time.UTC)

// dataRow is one DataRow message; nil is NULL.
func dataRow(values ...[]byte) []byte {
	var body []byte
	body = append(body, byte(len(values)>>8), byte(len(values)))
	for _, v := range values {
		n := uint32(len(v))
		if v == nil {
			n = 1<<32 - 1
		}
		body = append(body, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		body = append(body, v...)
	}
	n := len(body) + 4
	return append([]byte{'D', byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, body...)
}

// story is a session with every kind of event.
func story() []*Event {
	at := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	all := []*Event{
		{Time: at(0), Kind: KindOpened, Session: &Session{ID: "s-1", Subject: "alice", Groups: []string{"analysts", "all"}, Actors: []string{"helper", "bot"}, Grant: "g-1", Task: "sales-report",
			Resource: "warehouse", Protocol: postern.Postgres, Node: "node-1", Region: "eu", ClientAddress: "127.0.0.1:5000", ClientProgram: "psql",
			Version: postern.Version{Epoch: "e", Revision: 12}, Level: postern.LevelSource, Account: "reporter", Database: "warehouse", Raw: true}},
		{Time: at(100), Kind: KindIntent, Statement: 1, Text: "select id, email\nfrom sales.orders where id = $1", Params: []Param{{Value: "1"}, {Null: true}, {Value: "\x00\x01", Binary: true}, {Value: "\x00\x07", Binary: true, Text: "7"}},
			Hash: bytes.Repeat([]byte{9}, 32), Verdict: postern.VerdictAllow, Rule: "sales-report/permit[0]", Forward: "SELECT id, mask(email) FROM sales.orders WHERE id = $1",
			Touched: []Touch{{"sales.orders.id", RoleOutput | RolePredicate, "", ""}, {"sales.orders.email", RoleOutput, "email", ""}},
			Effect:  postern.EffectRead, Level: postern.LevelSource, Version: postern.Version{Epoch: "e", Revision: 13}},
		{Time: at(101), Kind: KindRows, Statement: 1, Rows: 2, Encoding: EncodingDataRow,
			Columns: []Column{{"id", oidInt4, true, false}, {"email", oidText, false, true}},
			Data:    append(dataRow([]byte{0, 0, 0, 42}, []byte("a***@x")), dataRow([]byte{255, 255, 255, 255}, nil)...)},
		{Time: at(102), Kind: KindFinished, Statement: 1, Rows: 2, Bytes: 40, Affected: -1, Tag: "SELECT 2", Duration: 2 * time.Millisecond},
		{Time: at(1000), Kind: KindDenied, Statement: 2, Text: "drop table sales.orders \x1b[2J", Rule: "sales-report/permit", Reason: `task "sales-report" does not allow DROP TABLE`},
		{Time: at(2000), Kind: KindHeld, Statement: 3, Text: "delete from sales.orders where id = 7", Verdict: postern.VerdictHold, Hold: "h-1", People: []string{"leads"}},
		{Time: at(9000), Kind: KindSettled, Statement: 3, Verdict: postern.VerdictAllow, Hold: "h-1", People: []string{"bob"}, Reason: "fine"},
		{Time: at(9001), Kind: KindIntent, Statement: 3, Text: "delete from sales.orders where id = 7", Verdict: postern.VerdictAllow, Effect: postern.EffectWrite},
		{Time: at(9002), Kind: KindFinished, Statement: 3, Affected: 1, Code: "23503", Message: "violates a foreign key"},
		{Time: at(9100), Kind: KindNote, Tag: "setting", Text: "search_path = sales"},
		{Time: at(9200), Kind: KindChunk, Statement: 4, Bytes: 3, Data: []byte("a,b"), Direction: ToTarget},
		{Time: at(65000), Kind: KindClosed, Reason: "the client went away"},
	}
	for i, e := range all {
		e.Seq, e.Elapsed = uint64(i+1), e.Time.Sub(began)
	}
	return all
}

// write makes a recording of the events with so many bytes of frames in a chunk.
func write(t testing.TB, events []*Event, size int, truncated bool, k crypto.Signer, codec Codec) [][]byte {
	t.Helper()
	var frames []byte
	for _, e := range events {
		var err error
		if frames, err = AppendFrames(frames, e); err != nil {
			t.Fatal(err)
		}
	}
	var chunks [][]byte
	h := Header{Session: "s-1", Codec: codec, Key: wrapped}
	var span Span
	for len(frames) > 0 {
		n := 0
		for n < len(frames) && n < size {
			f, err := NextFrame(frames[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += f.Size
		}
		var err error
		if span, err = span.Next(frames[:n]); err != nil {
			t.Fatal(err)
		}
		h.First, h.Last, h.Open = span.First, span.Last, span.Open
		data, hash, err := AppendChunk(nil, h, dataKey, frames[:n])
		if err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, data)
		frames, h.Previous = frames[n:], hash
		h.Index++
	}
	seal, _, err := AppendSeal(nil, Seal{Session: "s-1", Node: "node-1", Chunks: h.Index, Previous: h.Previous, Last: span.Last, Time: began, Truncated: truncated, Reason: "done"}, k)
	if err != nil {
		t.Fatal(err)
	}
	return append(chunks, seal)
}

func each(chunks [][]byte) func(func([]byte, error) bool) {
	return func(yield func([]byte, error) bool) {
		for _, c := range chunks {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func verify(t testing.TB, chunks [][]byte, k crypto.PublicKey) Report {
	t.Helper()
	r, err := Verify(each(chunks), k, dataKey)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRoundTrip(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	long := &Event{Time: began, Kind: KindIntent, Statement: 5, Text: strings.Repeat("0123456789abcdef", 20_000), Verdict: postern.VerdictAllow}
	for name, k := range map[string]crypto.Signer{"ed25519": key, "ecdsa": ec} {
		for _, codec := range []Codec{CodecNone, CodecMinLZ} {
			want := story()
			l := *long
			l.Seq = uint64(len(want) + 1)
			want = append(want, &l)
			chunks := write(t, want, 500, false, k, codec)
			r := verify(t, chunks, k.Public())
			if len(r.Errors) > 0 || r.State != StateSealed || r.Events != int64(len(want)) || r.Statements != 5 || !r.Raw || r.Denied != 1 || r.Rows != 2 || r.Chunks != len(chunks) || r.Node != "node-1" || r.Reason != "done" {
				t.Errorf("%s %s: %+v", name, codec, r)
			}
			var got []*Event
			for e, err := range Events(each(chunks), dataKey) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, e)
			}
			if !reflect.DeepEqual(got, want) {
				for i := range want {
					if !reflect.DeepEqual(got[i], want[i]) {
						t.Errorf("event %d:\n%+v\n%+v", i+1, got[i], want[i])
					}
				}
			}
		}
	}
}

func TestTouchThroughAView(t *testing.T) {
	want := Touch{Column: "sales.customers.email", Role: RoleComputed | RolePredicate, Mask: "email", View: "sales.contacts"}
	e, _, err := decodeEvent(appendEvent(nil, &Event{Seq: 1, Kind: KindIntent, Touched: []Touch{want}}, reference{}))
	if err != nil || len(e.Touched) != 1 || e.Touched[0] != want {
		t.Fatalf("%+v, %v", e, err)
	}
	var out bytes.Buffer
	if err := JSON(&out, func(yield func(*Event, error) bool) { yield(e, nil) }); err != nil || !strings.Contains(out.String(), `"mask":"email","view":"sales.contacts"`) {
		t.Errorf("%s, %v", &out, err)
	}
}

func TestOpenAndTruncated(t *testing.T) {
	chunks := write(t, story(), 300, true, key, CodecMinLZ)
	if r := verify(t, chunks, key.Public()); r.State != StateTruncated || len(r.Errors) > 0 {
		t.Errorf("%+v", r)
	}
	if r := verify(t, chunks[:len(chunks)-1], key.Public()); r.State != StateOpen || len(r.Errors) > 0 {
		t.Errorf("%+v", r)
	}
	if r := verify(t, nil, key.Public()); len(r.Errors) == 0 {
		t.Errorf("%+v", r)
	}
	var last *Event
	for e, err := range Events(each(chunks), dataKey) {
		if err != nil {
			t.Fatal(err)
		}
		last = e
	}
	if last.Kind != KindClosed || last.Seq != 0 || last.Reason != "done" {
		t.Errorf("%+v", last)
	}
}

// An event that was cut short is no fault of a truncated recording, and is one of any
// other.
func TestCutEvent(t *testing.T) {
	e := &Event{Seq: 1, Time: began, Kind: KindNote, Text: strings.Repeat("x", 3*MaxFrameBody)}
	frames, err := AppendFrames(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	f, err := NextFrame(frames)
	if err != nil || !f.More {
		t.Fatal(err)
	}
	data, hash, err := AppendChunk(nil, Header{Session: "s-1", First: 1, Last: 1, Open: true, Codec: CodecMinLZ, Key: wrapped}, dataKey, frames[:f.Size])
	if err != nil {
		t.Fatal(err)
	}
	for truncated, faults := range map[bool]int{true: 0, false: 1} {
		seal, _, err := AppendSeal(nil, Seal{Session: "s-1", Node: "n", Chunks: 1, Previous: hash, Last: 1, Time: began, Truncated: truncated}, key)
		if err != nil {
			t.Fatal(err)
		}
		if r := verify(t, [][]byte{data, seal}, key.Public()); len(r.Errors) != faults {
			t.Errorf("truncated %t: %+v", truncated, r)
		}
	}
}

// Whatever one change is made to a sealed recording, Verify finds it, or the recording
// is no longer sealed.
func TestMutations(t *testing.T) {
	chunks := write(t, story(), 300, false, key, CodecMinLZ)
	if len(chunks) < 4 {
		t.Fatalf("%d chunks are too few", len(chunks))
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize))
	rng := mrand.New(mrand.NewPCG(1, 2))
	kinds := map[string]func(m [][]byte) [][]byte{
		"flip": func(m [][]byte) [][]byte {
			c := m[rng.IntN(len(m))]
			c[rng.IntN(len(c))] ^= 1 << rng.IntN(8)
			return m
		},
		"cut": func(m [][]byte) [][]byte {
			i := rng.IntN(len(m))
			m[i] = m[i][:rng.IntN(len(m[i]))]
			return m
		},
		"grow": func(m [][]byte) [][]byte {
			i := rng.IntN(len(m))
			m[i] = append(m[i], byte(rng.Uint32()))
			return m
		},
		"remove": func(m [][]byte) [][]byte { i := rng.IntN(len(m)); return slices.Delete(m, i, i+1) },
		"tail":   func(m [][]byte) [][]byte { return m[:rng.IntN(len(m))] },
		"double": func(m [][]byte) [][]byte { i := rng.IntN(len(m)); return slices.Insert(m, i, m[i]) },
		"swap": func(m [][]byte) [][]byte {
			i := rng.IntN(len(m) - 1)
			m[i], m[i+1] = m[i+1], m[i]
			return m
		},
		// somebody who knows the format and has not the key
		"forge": func(m [][]byte) [][]byte {
			s := story()
			s[rng.IntN(len(s))].Reason = fmt.Sprint("forged ", rng.Uint64())
			return write(t, s, 300, false, other, CodecMinLZ)
		},
		"graft": func(m [][]byte) [][]byte {
			s := story()
			s[len(s)-1].Reason = "forged"
			forged := write(t, s, 300, false, other, CodecMinLZ)
			return append(forged[:len(forged)-1], m[len(m)-1])
		},
	}
	for name, mutate := range kinds {
		for range 300 {
			m := make([][]byte, len(chunks))
			for i := range chunks {
				m[i] = bytes.Clone(chunks[i])
			}
			r := verify(t, mutate(m), key.Public())
			if len(r.Errors) == 0 && r.State == StateSealed {
				t.Fatalf("%s was not found: %+v", name, r)
			}
			if (name == "flip" || name == "cut" || name == "grow" || name == "double" || name == "swap") && len(r.Errors) == 0 {
				t.Fatalf("%s was not found: %+v", name, r)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	if _, err := AppendFrames(nil, &Event{Seq: 1, Kind: KindNote, Text: strings.Repeat("x", MaxEvent)}); err == nil {
		t.Error("an event over the limit was taken")
	}
	if _, _, err := AppendChunk(nil, Header{Session: "s", Codec: CodecNone}, dataKey, make([]byte, MaxFrames+1)); err == nil {
		t.Error("a chunk over the limit was taken")
	}
	if _, _, err := AppendChunk(nil, Header{Session: "../s", Codec: CodecNone}, dataKey, []byte("x")); err == nil {
		t.Error("a session with a path for an id was taken")
	}
	if _, _, err := AppendChunk(nil, Header{Session: "s", Codec: "gzip"}, dataKey, []byte("x")); err == nil {
		t.Error("an unknown codec was taken")
	}
	if _, _, err := AppendSeal(nil, Seal{Session: "s"}, badSigner{}); err == nil {
		t.Error("an unknown kind of key signed")
	}
}

type badSigner struct{ crypto.Signer }

func (badSigner) Public() crypto.PublicKey { return "no key" }

func TestAppendAllocatesNothing(t *testing.T) {
	s := story()
	begin, end := s[1], s[3]
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		for _, e := range []*Event{begin, end} {
			if _, err := AppendFrames(buf, e); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	e := story()[1]
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := AppendFrames(buf, e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChunk(b *testing.B) {
	var frames []byte
	s := story()
	for i := uint64(1); len(frames) < 256<<10; i++ {
		e := *s[1+i%2*2]
		e.Seq, e.Statement = i, (i+1)/2
		frames, _ = AppendFrames(frames, &e)
	}
	h := Header{Session: "s-1", First: 1, Last: 2, Codec: CodecMinLZ}
	b.SetBytes(int64(len(frames)))
	for b.Loop() {
		if _, _, err := AppendChunk(nil, h, dataKey, frames); err != nil {
			b.Fatal(err)
		}
	}
}

// One operation is one statement: an intent and its outcome.
func BenchmarkDecode(b *testing.B) {
	intent := &Event{Seq: 1, Time: time.Now(), Kind: KindIntent, Statement: 1, Text: "SELECT id, email, total FROM sales.orders WHERE id = $1", Hash: make([]byte, 32),
		Params: []Param{{Value: "4711"}}, Verdict: postern.VerdictAllow, Rule: "sales-report/permit[0]", Effect: postern.EffectRead, Level: postern.LevelSource,
		Touched: []Touch{{Column: "sales.orders.id", Role: RoleOutput | RolePredicate}, {Column: "sales.orders.email", Role: RoleOutput, Mask: "email"}, {Column: "sales.orders.total", Role: RoleOutput}}}
	frames, _ := AppendFrames(nil, intent)
	frames, _ = AppendFrames(frames, &Event{Seq: 2, Time: time.Now(), Kind: KindFinished, Statement: 1, Rows: 1, Bytes: 40, Affected: -1, Tag: "SELECT 1", Duration: 210 * time.Microsecond})
	b.Run("whole", func(b *testing.B) {
		var d Decoder
		for b.Loop() {
			if err := d.Decode(frames, func(*Event) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("briefly", func(b *testing.B) {
		var d Decoder
		all := bytes.Repeat(frames, 1000)
		for b.Loop() {
			if err := d.Briefly(all, func(*Brief) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/statement")
	})
}
