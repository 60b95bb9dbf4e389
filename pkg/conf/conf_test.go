package conf

import (
	"strings"
	"testing"
	"time"
)

type sample struct {
	Addr string   `json:"addr"`
	Wait Duration `json:"wait"`
}

func TestParse(t *testing.T) {
	s := sample{Addr: "kept"}
	if err := Parse([]byte("wait: 90s\n"), &s); err != nil {
		t.Fatal(err)
	}
	if s.Addr != "kept" || s.Wait.Or(time.Hour) != 90*time.Second {
		t.Errorf("got %+v", s)
	}
	if (sample{}).Wait.Or(time.Hour) != time.Hour {
		t.Error("an unset duration did not take the default")
	}
	for text, want := range map[string]string{
		"adr: x\n":         "adr",
		"addr: n\n":        "quotes",
		"addr: 1\n":        "addr",
		"addr: [a]\n":      "addr",
		"wait: 90\n":       "unit",
		"wait: soon\n":     "unit",
		"addr: a\naddr: b": "addr",
	} {
		if err := Parse([]byte(text), new(sample)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %v, want an error with %q", text, err, want)
		}
	}
}
