package policy

import (
	"testing"
	"time"
)

func TestParseRate(t *testing.T) {
	for s, want := range map[string]Rate{"": {}, "20/s": {20, time.Second}, "100/m": {100, time.Minute}, "1000000/h": {1_000_000, time.Hour}} {
		if got, err := parseRate(s); err != nil || got != want {
			t.Errorf("%q: %v %v", s, got, err)
		}
	}
	for _, s := range []string{"20", "/s", "0/s", "-1/s", "20/d", "20/s/s", "1000001/s", "+5/s", "05/s", "5 /s", "1e3/s", "99999999999999999999/s"} {
		if got, err := parseRate(s); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
}
