package ssh

import (
	"strings"
	"testing"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	facts "github.com/posterngate/postern/pkg/ssh"
)

// TestWhatAShellIsTold: what a shell without a terminal is told is on record, through the
// masks, and what a command reads is not.
func TestWhatAShellIsTold(t *testing.T) {
	const input = "read x <<E\nalice@example.com\nE\necho done # bob"
	h := newHouse(t)
	only(h, func(f *facts.Facts) bool { return f.Verb == facts.Exec || f.Verb == facts.Shell })
	tell := func(line string) enginetest.Execution {
		t.Helper()
		s, err := h.connect(t).NewSession()
		if err != nil {
			t.Fatal(err)
		}
		s.Stdin = strings.NewReader(input)
		if line == "" {
			err = s.Shell()
		} else {
			err = s.Start(line)
		}
		if err == nil {
			err = s.Wait()
		}
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all := h.door.Last().Executions()
		return all[len(all)-1]
	}
	for line, kept := range map[string]string{"": input, "sh": input, "cat": ""} {
		if got := string(tell(line).Asked); got != kept {
			t.Errorf("%q: %q is kept", line, got)
		}
	}
	only(h, func(f *facts.Facts) bool { return f.Verb == facts.Shell }, hidden("email"))
	e := tell("")
	if got := string(e.Asked); strings.Contains(got, "example.com") || !strings.HasPrefix(got, "read x <<E\n") || !strings.HasSuffix(got, "\nE\necho done # bob") {
		t.Errorf("through masks %q is kept", got)
	}
	if !strings.Contains(string(e.Raw), input) {
		t.Errorf("before them %q is kept", e.Raw)
	}
}
