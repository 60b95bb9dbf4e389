package child

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestAskAndStop(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	c, err := Start("echo", log, false, "sh", "-c", `while read -r line; do echo "{\"said\": \"$line\"}"; done; echo gone >&2`)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	var a struct{ Said string }
	if err := c.Ask("hello", &a); err != nil || a.Said != "hello" {
		t.Errorf("%+v, %v", a, err)
	}
	c.Stop()
	c.Stop()
	if err := syscall.Kill(c.PID(), 0); err == nil {
		t.Error("it lives on")
	}
}

func TestWhatEndsSaysWhy(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	c, err := Start("broken", log, false, "sh", "-c", "echo out of luck >&2; exit 1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	if err := c.Ask("", nil); err == nil || !strings.Contains(err.Error(), "out of luck") {
		t.Errorf("error %v", err)
	}
	if err := c.Listening("127.0.0.1:1"); err == nil {
		t.Error("it listens")
	}
	if _, err := Start("none", log, false, "/nowhere"); err == nil {
		t.Error("a program that is not there was started")
	}
}
