package record

import (
	"bytes"
	"reflect"
	"testing"
)

func FuzzFrames(f *testing.F) {
	var frames []byte
	for _, e := range story() {
		frames, _ = AppendFrames(frames, e)
	}
	f.Add(frames)
	f.Add(shaped(f))
	f.Add([]byte{1, 0, 0, 0x80, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var d Decoder
		var again []byte
		err := d.Decode(data, func(e *Event) error {
			var err error
			again, err = AppendFrames(again, e)
			return err
		})
		var b Decoder
		berr := b.Briefly(data, func(b *Brief) error {
			e, err := b.Whole()
			if err == nil && b.Event.Verdict != e.Verdict {
				t.Fatalf("briefly %s; whole %s", b.Event.Verdict, e.Verdict)
			}
			return err
		})
		if (err == nil) != (berr == nil) {
			t.Fatalf("whole: %v; briefly: %v", err, berr)
		}
		if err != nil || d.Open() {
			return
		}
		// What was read is written so that it reads the same.
		var first, second []*Event
		collect := func(to *[]*Event) func(*Event) error {
			return func(e *Event) error { *to = append(*to, e); return nil }
		}
		if err := d.Decode(data, collect(&first)); err != nil {
			t.Fatal(err)
		}
		if err := d.Decode(again, collect(&second)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(first, second) {
			t.Fatal("events changed")
		}
	})
}

func FuzzEvent(f *testing.F) {
	for _, e := range story() {
		f.Add(appendEvent(nil, e, reference{}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var whole, briefly Decoder
		e, err := whole.event(data)
		var b Brief
		berr := b.read(data)
		if berr == nil {
			berr = b.resolve(&briefly)
		}
		if (berr == nil) != (err == nil) {
			t.Fatalf("whole: %v; briefly: %v", err, berr)
		}
		if err != nil {
			return
		}
		brief := Event{Seq: e.Seq, Time: e.Time, Kind: e.Kind, Statement: e.Statement, Verdict: e.Verdict,
			Rows: e.Rows, Bytes: e.Bytes, Affected: e.Affected, Duration: e.Duration, Elapsed: e.Elapsed}
		if !reflect.DeepEqual(b.Event, brief) || string(b.Tag) != e.Tag || string(b.Code) != e.Code {
			t.Fatalf("%+v\n%+v", b, e)
		}
		if said, _, err := decodeEvent(append([]byte{8, 1, 24, 1}, b.Says...)); err != nil || string(b.Text) != e.Text || said.Rule != e.Rule ||
			said.Verdict != e.Verdict || said.Reason != e.Reason || !reflect.DeepEqual(said.Touched, e.Touched) {
			t.Fatalf("%+v says %+v, %v", e, said, err)
		}
		again, _, err := decodeEvent(appendEvent(nil, e, reference{}))
		if err != nil || !reflect.DeepEqual(e, again) {
			t.Fatalf("%+v\n%+v\n%v", e, again, err)
		}
	})
}

func FuzzChunk(f *testing.F) {
	for _, codec := range []Codec{CodecNone, CodecMinLZ} {
		for _, c := range write(f, story(), 1<<20, false, key, codec) {
			f.Add(c)
		}
	}
	runs, frames := sealedRuns(f)
	if sealed, err := NewSealedChunk(Header{Session: "s-1", First: 1, Last: 4, Codec: CodecMinLZ, Key: wrapped}, len(frames), runs); err == nil {
		f.Add(sealed.Append(nil, sealed.Hash()))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		first, rest := Split(data)
		if len(data) > 0 && len(first) == 0 || !bytes.Equal(append(first, rest...), data) {
			t.Fatalf("%d bytes were split into %d and %d", len(data), len(first), len(rest))
		}
		c, err := ParseChunk(data)
		if err == nil && len(rest) > 0 {
			t.Fatal("a chunk was split")
		}
		if err != nil {
			return
		}
		frames, err := c.Frames(dataKey)
		if c.Sealing != (c.Seal != nil) || len(frames) > MaxFrames || c.Sealing && err == nil {
			t.Fatalf("%+v", c.Header)
		}
		if c.Seal != nil {
			_ = c.Seal.Verify(key.Public())
		}
		_, _ = (Span{}).Next(frames)
	})
}

func FuzzDataRows(f *testing.F) {
	f.Add(append(dataRow([]byte("a"), nil), dataRow()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		var again []byte
		if err := dataRows(data, func(values [][]byte) error { again = append(again, dataRow(values...)...); return nil }); err == nil && !bytes.Equal(data, again) {
			t.Fatal("rows changed")
		}
	})
}
