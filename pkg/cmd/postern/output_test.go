package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// JSON says the same to programs, and nothing to the terminal.
func TestPlainJSON(t *testing.T) {
	const said = "plain ünïcode 文 \U0001F511, \x1b[2J, \x7f, csi \u009b31m, turned \u202e round, a tag \U000E0041"
	want := map[string]string{"error": said}
	var out bytes.Buffer
	if err := json.NewEncoder(plainJSON{&out}).Encode(want); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsFunc(out.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) || !strings.Contains(out.String(), "ünïcode 文 \U0001F511") {
		t.Errorf("%q", out.String())
	}
	got := map[string]string{}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got["error"] != said {
		t.Errorf("%q says %q, %v", out.String(), got["error"], err)
	}
}
