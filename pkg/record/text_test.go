package record

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := "testdata/" + name
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (write it anew with -update):\n%s", path, got)
	}
}

func TestText(t *testing.T) {
	chunks := each(write(t, story(), 1<<20, false, key, CodecMinLZ))
	var plain, coloured bytes.Buffer
	if err := Text(context.Background(), &plain, Events(chunks, dataKey), Options{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "replay.txt", plain.Bytes())
	if strings.Contains(plain.String(), "\x1b") {
		t.Error("the recording can steer the terminal")
	}
	if err := Text(context.Background(), &coloured, Events(chunks, dataKey), Options{Colour: true}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(coloured.String(), "\x1b[31m") {
		t.Error("there is no colour")
	}
}

// What a recording holds must not pass for what is said of it: it stands behind something
// of ours, or further in than any line of ours.
func TestTextIsNotForged(t *testing.T) {
	const lie = "x\nFORGED"
	all := []*Event{
		{Kind: KindOpened, Session: &Session{Subject: lie, Groups: []string{lie}, Actors: []string{lie}, ClientProgram: lie, Account: lie, Database: lie, Region: lie}},
		{Kind: KindIntent, Statement: 1, Text: lie, Params: []Param{{Value: lie}}, Rule: lie, Forward: lie, Touched: []Touch{{Column: lie, Mask: lie}}},
		{Kind: KindRows, Statement: 1, Encoding: EncodingDataRow, Columns: []Column{{Name: lie, Type: oidText}}, Data: append(dataRow([]byte(lie)), dataRow([]byte("FORGED"))...)},
		{Kind: KindFinished, Statement: 1, Code: lie, Message: lie},
		{Kind: KindFinished, Statement: 2, Tag: lie},
		{Kind: KindDenied, Statement: 3, Text: lie, Reason: lie, Rule: lie},
		{Kind: KindHeld, Statement: 4, Text: lie, Hold: lie, People: []string{lie}},
		{Kind: KindSettled, Statement: 4, Verdict: postern.VerdictAllow, Hold: lie, People: []string{lie}, Reason: lie},
		{Kind: KindSettled, Statement: 4, Reason: lie, Hold: lie},
		{Kind: KindChunk, Statement: 5, Tag: "stdout", Data: []byte(lie + "\rFORGED\x1b[1GFORGED\n")},
		{Kind: KindRows, Statement: 6, Encoding: lie},
		{Kind: KindNote, Tag: lie, Text: lie},
		{Kind: KindClosed, Seq: 1, Reason: lie},
		{Kind: KindClosed, Reason: lie},
	}
	var b bytes.Buffer
	err := Text(t.Context(), &b, func(yield func(*Event, error) bool) {
		for _, e := range all {
			e.Time = began
			if !yield(e, nil) {
				return
			}
		}
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(strings.TrimLeft(line, " "), "FORGED") && !strings.HasPrefix(line, further) {
			t.Errorf("passes for ours: %q", line)
		}
	}
	if n := strings.Count(b.String(), "FORGED"); n < len(all) {
		t.Errorf("%d of what was written is shown:\n%s", n, b.String())
	}
}

func TestTextPauses(t *testing.T) {
	chunks := each(write(t, story(), 1<<20, false, key, CodecMinLZ))
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := Text(context.Background(), &bytes.Buffer{}, Events(chunks, dataKey), Options{Speed: 10, MaxPause: time.Second}); err != nil {
			t.Fatal(err)
		}
		// 9.2 s at ten times the speed, and the last pause of 55.8 s cut down to 1 s.
		if took := time.Since(start); took != 1920*time.Millisecond {
			t.Errorf("took %s", took)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := Text(ctx, &bytes.Buffer{}, Events(chunks, dataKey), Options{Speed: 1}); err == nil {
			t.Error("went on after its end")
		}
	})
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := JSON(&b, Events(each(write(t, story(), 1<<20, false, key, CodecMinLZ)), dataKey)); err != nil {
		t.Fatal(err)
	}
	golden(t, "replay.jsonl", b.Bytes())
	for l := range bytes.Lines(b.Bytes()) {
		var v map[string]any
		if err := json.Unmarshal(l, &v); err != nil {
			t.Fatal(err)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain text, ünïcode\nand lines": "plain text, ünïcode\nand lines",
		"\x1b[2J":                        `\x1b[2J`,
		"a\u202eb":                       `a\u202eb`,
		"\xff\x9b":                       `\xff\x9b`,
		"a\rb\x00\ufffd":                 `a\x0db\x00\ufffd`,
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) is %q, want %q", in, got, want)
		}
	}
}

func TestValues(t *testing.T) {
	for _, c := range []struct {
		v    []byte
		oid  uint32
		want string
	}{
		{[]byte{1}, oidBool, "t"},
		{[]byte{0xff, 0xfe}, oidInt2, "-2"},
		{[]byte{0, 0, 1, 0}, oidInt4, "256"},
		{[]byte{0, 0, 0, 0, 0, 0, 0, 7}, oidInt8, "7"},
		{[]byte{0x3f, 0xc0, 0, 0}, oidFloat4, "1.5"},
		{[]byte{0x3f, 0xf8, 0, 0, 0, 0, 0, 0}, oidFloat8, "1.5"},
		{[]byte("x"), oidText, "x"},
		{[]byte{0xff}, oidText, `\xff`},
		{[]byte{1, 2}, 17, `\x0102`},
		{[]byte{1, 2}, oidInt4, `\x0102`},
		{bytes.Repeat([]byte{0xab}, 16), oidUUID, "abababab-abab-abab-abab-abababababab"},
	} {
		if got := valueText(c.v, Column{Type: c.oid, Binary: true}); got != c.want {
			t.Errorf("%x as %d is %q, want %q", c.v, c.oid, got, c.want)
		}
	}
}
