package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"sigs.k8s.io/yaml"
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

// YAML does as JSON does, in keys too.
func TestPlainYAML(t *testing.T) {
	const said = "a: \"ünïcode\" 文 \U0001F511,\n\x1b[2J \x7f \u009b31m, turned \u202e round, nothing \u200b seen, a tag \U000E0041, a line \u2028 \u0085 \ufeff"
	want := map[string]any{"error": said, "k\u202ey": []any{said, "plain", 1.5, true, nil}}
	js, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	a := &app{format: "yaml", env: Env{Stdout: &out}}
	if err := a.raw(js); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsFunc(out.String(), odd) {
		t.Errorf("%q", out.String())
	}
	got := map[string]any{}
	if err := yaml.Unmarshal(out.Bytes(), &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q says %q, %v", out.String(), got, err)
	}
}

// TestWideLetters: what takes two columns of a terminal, or none, moves no column of a table.
func TestWideLetters(t *testing.T) {
	var out bytes.Buffer
	table(&out, "who why end", [][]string{{"alice", "plain", "x"}, {"田中", "四半期 🔑", "x"}, {"zoe\u0308", "e\u0301te\u0301", "x"}})
	want := "WHO    WHY        END\nalice  plain      x\n田中   四半期 🔑  x\nzoe\u0308    e\u0301te\u0301        x\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	for most, want := range map[int]string{12: "四半期の報告", 11: "四半期の報…", 10: "四半期の…", 1: "…"} {
		if got := oneLine("四半期の報告", most); got != want {
			t.Errorf("%d columns: %q", most, got)
		}
	}
}
