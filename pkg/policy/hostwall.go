package policy

import (
	"strings"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/ssh/shell"
)

// HostLogin is what a login made for one session of a task must be good for at a host
// that can bound logins itself, and no more. The zero value is good for commands without
// a terminal.
type HostLogin struct {
	// Command is the only one that the task allows; empty where there are several, or
	// where its words are not all spelt out.
	Command  string
	Terminal bool
	Forward  bool // connecting or listening elsewhere
}

// HostLogin is the wall that a host can put around logins of a task.
func (s *Snapshot) HostLogin(t postern.TaskName) HostLogin {
	task, ok := s.tasks[t]
	if !ok {
		return HostLogin{}
	}
	if task.terms.Unrestricted {
		return HostLogin{Terminal: true, Forward: true}
	}
	var out HostLogin
	for _, p := range task.channels {
		out.Terminal = out.Terminal || p.channel.terminal && !p.channel.guard // the guard's lines run without
		out.Forward = out.Forward || len(p.channel.destinations) > 0
	}
	if len(task.channels) == 1 {
		out.Command = task.channels[0].channel.only()
	}
	return out
}

// only is the one command line that an exec permit allows, as it is forwarded; empty
// where it allows more.
func (ch *channel) only() string {
	if len(ch.argv) == 0 || ch.rest {
		return ""
	}
	words := make([]string, len(ch.argv))
	for i, w := range ch.argv {
		if strings.Contains(w, "*") {
			return ""
		}
		words[i] = shell.Quote(w)
	}
	return strings.Join(words, " ")
}
