package record

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

// executions are events of more shapes than there are slots, some of one text and some of
// texts of their own, with parameters and data that mostly repeat.
func executions() []*Event {
	var all []*Event
	shapes := make([]*int, maxSlots+3)
	for i := range shapes {
		shapes[i] = new(int)
	}
	began := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	for i := range 200 {
		n := i % 2 * (i / 2 % len(shapes)) // the first of them every second time
		text, forward := fmt.Sprintf("SELECT %d", n), ""
		if i%3 == 0 {
			text = fmt.Sprintf("SELECT %d -- %d", n, i)
		}
		if i%5 == 0 {
			forward = text + " LIMIT 1"
		}
		hash := sha256.Sum256([]byte(text))
		params := []Param{{Value: "accept: */*"}, {Value: "\x01", Binary: true, Text: "1"}}
		switch i % 20 {
		case 17:
			params = nil
		case 18:
			params[0].Value = fmt.Sprint(i)
		case 19:
			params[1].Null = true
		}
		all = append(all, &Event{
			Seq: uint64(len(all) + 1), Time: began.Add(time.Duration(i) * time.Millisecond), Kind: KindIntent, Statement: uint64(i + 1),
			Text: text, Hash: hash[:], Forward: forward, Params: params,
			Verdict: postern.VerdictAllow, Rule: fmt.Sprintf("task/permit[%d]", n), Effect: postern.EffectRead, Level: postern.LevelSource,
			Version: postern.Version{Epoch: "E", Revision: int64(n)}, Touched: []Touch{{Column: fmt.Sprintf("t%d.id", n), Role: RoleOutput}}, Shape: shapes[n],
		})
		for _, said := range []string{"head", "body"} {
			data := fmt.Appendf(nil, "the %s of %d at %d", said, n, i/50)
			if said == "body" && i%30 == 0 {
				data = nil
			}
			all = append(all, &Event{Seq: uint64(len(all) + 1), Kind: KindChunk, Statement: uint64(i + 1), Tag: said, Bytes: int64(len(data)), Data: data, Shape: shapes[n]})
		}
	}
	return all
}

func shaped(tb testing.TB) []byte {
	var frames []byte
	var c Encoder
	for _, e := range executions() {
		var err error
		if frames, err = c.AppendFrames(frames, e); err != nil {
			tb.Fatal(err)
		}
	}
	return frames
}

func TestEncoder(t *testing.T) {
	frames, want := shaped(t), executions()
	var plain []byte
	for _, e := range want {
		plain, _ = AppendFrames(plain, e)
		e.Shape = nil
	}
	if len(frames)*10 > len(plain)*9 {
		t.Errorf("%d bytes, and %d without references", len(frames), len(plain))
	}
	var got []*Event
	var d Decoder
	if err := d.Decode(frames, func(e *Event) error { got = append(got, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("events changed: %+v, want %+v", got, want)
	}
	says := map[string]*Event{}
	i := 0
	if err := d.Briefly(frames, func(b *Brief) error {
		e, err := b.Whole()
		if err != nil || !reflect.DeepEqual(e, want[i]) || b.Event.Verdict != e.Verdict || string(b.Text) != e.Text {
			t.Errorf("briefly %+v is %+v (%v), want %+v", b.Event, e, err, want[i])
		}
		if one := says[string(b.Says)]; one == nil {
			says[string(b.Says)] = e
		} else if one.Rule != e.Rule || !reflect.DeepEqual(one.Touched, e.Touched) {
			t.Errorf("%+v and %+v say the same", one, e)
		}
		i++
		return nil
	}); err != nil || i != len(want) {
		t.Fatal(i, err)
	}
}

// TestAChunkIsReadByItself: behind a cut nothing refers to what is before it.
func TestAChunkIsReadByItself(t *testing.T) {
	all := executions()
	var c Encoder
	var second []byte
	for i, e := range all {
		if i == 50 {
			c.Cut()
		}
		frames, err := c.AppendFrames(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		if i >= 50 {
			second = append(second, frames...)
		}
	}
	n := 0
	if err := (&Decoder{}).Decode(second, func(e *Event) error { n++; return nil }); err != nil || n != len(all)-50 {
		t.Errorf("%d events of %d (%v)", n, len(all)-50, err)
	}
}

func TestDamagedReferences(t *testing.T) {
	judged := &Event{Seq: 1, Kind: KindIntent, Text: "a", Rule: "r", Verdict: postern.VerdictAllow}
	bare := &Event{Seq: 2, Kind: KindIntent}
	for name, c := range map[string]struct {
		event *Event
		ref   reference
	}{
		"an empty slot":            {bare, reference{to: 2, text: true}},
		"no slot":                  {bare, reference{to: maxSlots + 1}},
		"both":                     {bare, reference{to: 1, as: 2}},
		"a text of its own":        {&Event{Seq: 2, Kind: KindIntent, Text: "b"}, reference{to: 1, text: true, own: 1}},
		"no such part":             {bare, reference{to: 1 | 1<<7}},
		"a parameter of its own":   {&Event{Seq: 2, Kind: KindIntent}, reference{to: 1, params: true, own: 3}},
		"data of its own":          {&Event{Seq: 2, Kind: KindIntent}, reference{to: 1, data: true, own: 4}},
		"a rule of its own":        {&Event{Seq: 2, Kind: KindIntent, Rule: "s"}, reference{to: 1, own: 2}},
		"a slot that is too large": {bare, reference{as: maxSlots + 1}},
		"a large one":              {&Event{Seq: 2, Kind: KindIntent, Text: strings.Repeat("x", maxReferring)}, reference{as: 2}},
	} {
		frames, err := appendFrames(nil, judged, reference{as: 1})
		if err != nil {
			t.Fatal(err)
		}
		message := appendEvent(nil, c.event, reference{to: c.ref.to, as: c.ref.as, text: c.ref.text, params: c.ref.params, data: c.ref.data})
		switch c.ref.own {
		case 1:
			message = appendString(message, 6, "b")
		case 2:
			message = appendString(message, 10, "s")
		case 3:
			message = appendParam(message, &Param{Value: "b"})
		case 4:
			message = appendString(message, 28, "b")
		}
		var d Decoder
		if err := d.Decode(frames, func(*Event) error { return nil }); err != nil {
			t.Fatal(err)
		}
		e, err := d.event(message)
		if !errors.Is(err, errMessage) {
			t.Errorf("%s: read as %+v, %v", name, e, err)
		}
		var b Brief
		if err = b.read(message); err == nil {
			err = b.resolve(&d)
		}
		if !errors.Is(err, errMessage) {
			t.Errorf("%s, briefly: %v", name, err)
		}
	}
}

// TestLargeEventsReferToNothing, since they may end in another chunk.
func TestLargeEventsReferToNothing(t *testing.T) {
	shape := new(int)
	large := &Event{Seq: 1, Kind: KindIntent, Text: "SELECT $1", Params: []Param{{Value: strings.Repeat("x", maxReferring)}}, Rule: "r", Shape: shape}
	small := &Event{Seq: 2, Kind: KindIntent, Text: "SELECT $1", Rule: "r", Shape: shape}
	var c Encoder
	for _, order := range [][]*Event{{large, small}, {small, large}} {
		c.Cut()
		for _, e := range order {
			frames, err := c.AppendFrames(nil, e)
			if err != nil {
				t.Fatal(err)
			}
			if e != large {
				continue
			}
			if got := (&Decoder{}).Decode(frames, func(e *Event) error {
				if e.Rule != "r" || e.Text != large.Text {
					t.Errorf("read as %+v", e)
				}
				return nil
			}); got != nil {
				t.Error(got)
			}
		}
	}
}

func TestEncoderAllocatesNothing(t *testing.T) {
	all := executions()[:4]
	var c Encoder
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		for _, e := range all {
			if _, err := c.AppendFrames(buf, e); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestWhatRepeatsIsWrittenOnce: parameters and data that are as they were cost a few bytes,
// until they are others.
func TestWhatRepeatsIsWrittenOnce(t *testing.T) {
	shape := new(int)
	head := []byte(strings.Repeat("content-type: text/plain\n", 40))
	var c Encoder
	size := func(e *Event) int {
		e.Seq, e.Shape = 7, shape
		frames, err := c.AppendFrames(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		return len(frames)
	}
	asked := func(header string) *Event {
		return &Event{Kind: KindIntent, Text: "GET /", Params: []Param{{Value: header}}}
	}
	said := func(data []byte) *Event { return &Event{Kind: KindChunk, Tag: "head", Data: data} }
	cookie := strings.Repeat("c", 300)
	for i, s := range []struct {
		event  *Event
		repeat bool
	}{
		{asked(cookie), false}, {said(head), false}, {asked(cookie), true}, {said(head), true}, {asked(cookie + "d"), false}, {asked(cookie), true},
		{said(head[1:]), false}, {said(head[1:]), true}, {said(head), false},
	} {
		if n := size(s.event); (n < 64) != s.repeat {
			t.Errorf("event %d has %d bytes", i, n)
		}
	}
	head[0] = 'C' // whose memory it is
	if n := size(said(head)); n < 64 {
		t.Errorf("other data was taken for the same: %d bytes", n)
	}
	for range 2 {
		if n := size(said(make([]byte, maxCopied+1))); n < maxCopied {
			t.Errorf("large data was kept: %d bytes", n)
		}
	}
}

// TestReferencesShare what they refer to, so that many small events are not many large ones.
func TestReferencesShare(t *testing.T) {
	var frames []byte
	var c Encoder
	shape := new(int)
	for i := range 200 {
		e := &Event{Seq: uint64(i + 1), Kind: KindIntent, Params: make([]Param, 2000), Touched: make([]Touch, 2000), Data: make([]byte, maxCopied), Shape: shape}
		var err error
		if frames, err = c.AppendFrames(frames, e); err != nil {
			t.Fatal(err)
		}
	}
	var first, last *Event
	if err := (&Decoder{}).Decode(frames, func(e *Event) error {
		if e.Seq == 2 {
			first = e
		}
		last = e
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if &first.Params[0] != &last.Params[0] || &first.Touched[0] != &last.Touched[0] || &first.Data[0] != &last.Data[0] {
		t.Error("each has a copy")
	}
	one, other := append(first.Params, Param{Value: "one"}), append(last.Params, Param{Value: "other"})
	if one[2000].Value == other[2000].Value {
		t.Error("who appends to one changes another")
	}
}
