package ssh

import (
	"bytes"
	"io"
	"testing"
)

// TestTypedAhead: what is typed while a line runs is the next line, as far as there is
// room; Ctrl-C ends the line and drops what came before it.
func TestTypedAhead(t *testing.T) {
	full := bytes.Repeat([]byte("x"), typedAhead)
	for _, c := range []struct {
		name        string
		typed       []string
		want        string
		interrupted int
	}{
		{"kept", []string{"sta", "tus\r"}, "status\r", 0},
		{"dropped by Ctrl-C", []string{"status\r", "\x03"}, "", 1},
		{"after Ctrl-C", []string{"status\r\x03uptime\r"}, "uptime\r", 1},
		{"no more than there is room for", []string{string(full), "y"}, string(full), 0},
		{"Ctrl-C where there is no room", []string{string(full), "y\x03z"}, "z", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, interrupted := typing(nil), 0
			k.during(func() { interrupted++ })
			for i, s := range c.typed {
				last := i == len(c.typed)-1
				if more := k.keep([]byte(s), last); more == last {
					t.Fatalf("%q: more to wait for: %v", s, more)
				}
			}
			k.during(nil)
			got, err := io.ReadAll(k)
			if string(got) != c.want || err != nil || interrupted != c.interrupted {
				t.Errorf("%q, %v, interrupted %d times", got, err, interrupted)
			}
		})
	}
}

// TestTypedFaster: what a person types faster than it is read waits, and none is lost.
func TestTypedFaster(t *testing.T) {
	k := typing(nil)
	text := bytes.Repeat([]byte("0123456789"), typedAhead/4)
	kept := make(chan bool, 1)
	go func() { kept <- k.keep(text, true) }()
	got, err := io.ReadAll(k)
	if !bytes.Equal(got, text) || err != nil {
		t.Errorf("%d of %d bytes, %v", len(got), len(text), err)
	}
	<-kept

	k = typing(nil)
	go func() { kept <- k.keep(text, false) }()
	k.leave()
	if <-kept {
		t.Error("it waits for an editor that is gone")
	}
}
