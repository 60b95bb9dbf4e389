package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

func eventsOf(list ...*Event) func(func(*Event, error) bool) {
	return func(yield func(*Event, error) bool) {
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func TestAsciicast(t *testing.T) {
	at := func(ms int) time.Duration { return time.Duration(ms) * time.Millisecond }
	said := func(ms int, statement uint64, tag, data string) *Event {
		return &Event{Kind: KindChunk, Elapsed: at(ms), Statement: statement, Tag: tag, Data: []byte(data)}
	}
	var b bytes.Buffer
	err := Asciicast(&b, eventsOf(
		&Event{Kind: KindOpened, Time: time.Unix(1_700_000_000, 0), Session: &Session{ID: "s-1", Subject: "carol", Task: "web-status", Resource: "web-1"}},
		&Event{Kind: KindIntent, Elapsed: at(10), Statement: 1, Text: "shell"},
		said(20, 1, "resize", "120x40"),
		said(30, 1, "stdout", "\x1b[1mhi \xe2\x82"), said(40, 1, "stdout", "\xac\r\n"), // a € that is cut
		said(50, 1, "resize", "90x30"), said(60, 1, "resize", "0x0"), said(61, 1, "resize", "nonsense"),
		&Event{Kind: KindDenied, Elapsed: at(70), Statement: 2, Text: "rm -r /", Reason: "no permit"},
		&Event{Kind: KindFinished, Elapsed: at(80), Statement: 1},
		said(85, 3, "asked", "cat one\n"), said(90, 3, "stderr", "one\ntwo\n\xff"), said(95, 3, "head", "not shown"),
	))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		`{"version":2,"width":120,"height":40,"timestamp":1700000000,"title":"web-status on web-1 by carol, session s-1"}`,
		`[0.010000,"m","shell"]`,
		`[0.030000,"o","\u001b[1mhi "]`,
		`[0.040000,"o","€\r\n"]`,
		`[0.050000,"r","90x30"]`,
		`[0.070000,"m","denied: rm -r / (no permit)"]`,
		`[0.085000,"i","cat one\n"]`,
		`[0.090000,"o","one\r\ntwo\r\n` + "\uFFFD" + `"]`, "",
	}, "\n")
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &b, want)
	}
	for line := range strings.Lines(b.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	b.Reset()
	if err := Asciicast(&b, eventsOf(&Event{Kind: KindIntent, Text: "SELECT 1"})); !errors.Is(err, errNoTerminal) || b.Len() != 0 {
		t.Errorf("of a database: %v, %q", err, b.String())
	}
}
