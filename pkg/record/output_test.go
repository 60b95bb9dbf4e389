package record

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestOutputIsShown(t *testing.T) {
	for in, want := range map[string]string{
		"one\ntwo\n":                            "| one\n| two",
		"a\r\nb":                                "| a\n| b",
		"\x1b[1;31mred\x1b[0m":                  "| red",
		"\x1b]0;title\x07text":                  `| \x1b]0;title\x07text`,
		"\x1b]8;;http://x\x1b\\link":            `| \x1b]8;;http://x\x1b\link`,
		"\x1b]no end\nsecret\n":                 "| \\x1b]no end\n| secret",
		"\x1b[" + strings.Repeat("1", 40) + "m": `| \x1b[` + strings.Repeat("1", 40) + "m",
		"10%\r50%\r100%\n":                      "| 10%\n| 50%\n| 100%",
		"secret\rx":                             "| secret\n| x",
		"\x1b[2J\x1b[Htop":                      "| top",
		"bell\x07 and \x1b alone":               "| bell\\x07 and \\x1b alone",
		"\x1b[31":                               "| \\x1b[31",
		"\x9b31m eight bits":                    "| \\x9b31m eight bits",
	} {
		var b bytes.Buffer
		at := time.Now()
		events := func(yield func(*Event, error) bool) {
			yield(&Event{Time: at, Kind: KindChunk, Statement: 1, Tag: "stdout", Data: []byte(in), Bytes: int64(len(in))}, nil)
		}
		if err := Text(t.Context(), &b, events, Options{}); err != nil {
			t.Fatal(err)
		}
		_, shown, _ := strings.Cut(b.String(), "stdout")
		if got := strings.Trim(strings.ReplaceAll(shown, margin, ""), " \n"); got != want || strings.ContainsAny(b.String(), "\x1b\x07") || bytes.IndexByte(b.Bytes(), 0x9b) >= 0 {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}
