// Package ssh is what an SSH client asks a host to do, as facts for policy. Its folder
// shell knows the grammar of command lines.
package ssh

import (
	"path"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/ssh/shell"
)

// A Verb is one kind of request.
type Verb string

// The verbs. The zero Verb is allowed by nothing.
const (
	Exec    Verb = "exec"    // run a command line
	Shell   Verb = "shell"   // work interactively
	Files   Verb = "files"   // begin to work on files, of which each operation is then asked for
	Read    Verb = "read"    // read, list or look at files
	Write   Verb = "write"   // create, change or rename files
	Delete  Verb = "delete"  // remove files
	Connect Verb = "connect" // reach another host through this one
	Listen  Verb = "listen"  // have this host listen
)

// Facts are one request. They are not changed once they are made.
type Facts struct {
	Verb Verb
	// Unknown says what was not understood; nothing is allowed then.
	Unknown string
	// Line is what would run, of Exec.
	Line *shell.Line
	// Terminal is true where the client asked for one.
	Terminal bool
	// Paths are the canonical absolute paths of Read, Write and Delete, as asked for and as
	// the host resolves them; a rename has those of two.
	Paths []string
	// From and To are what a rename's names mean at the host; empty for all else.
	From, To string
	// Below is true where all that is below Paths is meant too: a folder is moved.
	Below bool
	// Home is where the account at the host is at home, a canonical path, of Write and Delete; empty
	// where it is not known.
	Home string
	// Asked is what the client called it, and all that a refusal repeats: what Paths came of
	// would tell what there is at the host. The Paths, where it is empty.
	Asked string
	// Address is the host:port of Connect and Listen.
	Address string
}

// Told reports whether what is done is what the client goes on to say and nothing echoes: to
// a shell without a terminal.
func (f *Facts) Told() bool {
	switch {
	case f == nil || f.Terminal:
		return false
	case f.Line == nil:
		return f.Verb == Shell
	}
	return slices.ContainsFunc(f.Line.Commands(), reads)
}

var shells = []string{"ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "rbash", "sh", "tcsh", "zsh"}

// reads reports whether a command is a shell that reads what it is to do from its input: it is
// given neither a line (-c) nor a script.
func reads(c shell.Command) bool {
	if !slices.Contains(shells, path.Base(c.Program())) {
		return false
	}
	named := false // by an option before: -o pipefail
	for _, a := range c.Argv[1:] {
		short := !strings.HasPrefix(a, "--") && len(a) > 1 && (a[0] == '-' || a[0] == '+')
		switch {
		case short && strings.Contains(a, "c"), !named && !short && !strings.HasPrefix(a, "-"):
			return false
		case short && strings.Contains(a, "s"):
			return true
		}
		named = short && strings.HasSuffix(a, "o")
	}
	return true
}

// Effect is the worst that the request may do.
func (f *Facts) Effect() postern.Effect {
	if f == nil || f.Unknown != "" {
		return postern.EffectUnknown
	}
	switch f.Verb {
	case Files, Read:
		return postern.EffectRead
	case Write, Delete:
		return postern.EffectWrite
	case Exec, Shell, Connect, Listen:
		return postern.EffectControl
	}
	return postern.EffectUnknown
}
