package ssh

import (
	"testing"

	"github.com/posterngate/postern/pkg/ssh/shell"
)

// TestTold: what the client says is what is done where a shell reads it, and no terminal
// echoes it.
func TestTold(t *testing.T) {
	for line, want := range map[string]bool{
		"bash": true, "/bin/sh": true, "sh -s": true, "sh -s -- one": true, "bash -l": true, "bash -euo pipefail": true, "bash -": true,
		"bash --norc": true, "cat | sh": true, "cd /tmp && sh -x": true,
		"sh -c 'tar x'": false, "bash -lc uptime": false, "sh script": false, "bash -e script -s": false, "cat": false, "rsync --server . x": false,
		"echo sh": false,
	} {
		l, err := shell.Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		if got := (&Facts{Verb: Exec, Line: l}).Told(); got != want {
			t.Errorf("%q: %v", line, got)
		}
		if (&Facts{Verb: Exec, Line: l, Terminal: true}).Told() {
			t.Errorf("%q: what a terminal echoes", line)
		}
	}
	for _, c := range []struct {
		facts *Facts
		want  bool
	}{{&Facts{Verb: Shell}, true}, {&Facts{Verb: Shell, Terminal: true}, false}, {&Facts{Verb: Exec, Unknown: "?"}, false}, {nil, false}} {
		if got := c.facts.Told(); got != c.want {
			t.Errorf("%+v: %v", c.facts, got)
		}
	}
}
