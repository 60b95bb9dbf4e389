// Package hosts runs a catalogue of ways around a rule for commands through a real node to
// a real sshd, and judges them by what ran there: what was missed, and what was refused
// although it is honest.
package hosts

import (
	"embed"
	"fmt"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed testdata/*.yaml
var files embed.FS

// An Entry is one thing that a client asks for, with the answer that it must get.
type Entry struct {
	ID    string
	Class string
	Want  string // allow, deny or no_leak
	Task  string // the catalogue's one command where empty
	Note  string

	Does     string // exec, shell, subsystem, channel, request or ask
	Text     string
	Quoted   string            // Text as a Go string literal
	Terminal bool              // a terminal is asked for first
	After    string            // a command that runs first on the same connection
	Typed    string            // what is typed
	Address  string            // of a channel or request
	Env      map[string]string // asked for first
	Says     []string          // what the program says, part by part, as Go string literals
}

// Load reads the committed entries of one file; dir stands for ${DIR}.
func Load(name, dir string) ([]Entry, error) {
	b, err := files.ReadFile("testdata/" + name)
	if err != nil {
		return nil, err
	}
	var out []Entry
	if err := yaml.UnmarshalStrict(b, &out); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	seen := map[string]bool{}
	for i := range out {
		e := &out[i]
		if e.ID == "" || seen[e.ID] || e.Class == "" || e.Want != "allow" && e.Want != "deny" && e.Want != "no_leak" {
			return nil, fmt.Errorf("%s: entry %q needs an id of its own, a class and an answer", name, e.ID)
		}
		seen[e.ID] = true
		if e.Quoted != "" {
			if e.Text, err = strconv.Unquote(e.Quoted); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", name, e.ID, err)
			}
		}
		if e.Task == "" {
			e.Task = "ssh-nginx-restart"
		}
		for i := range e.Says {
			if e.Says[i], err = strconv.Unquote(e.Says[i]); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", name, e.ID, err)
			}
		}
		for _, s := range []*string{&e.Text, &e.Typed} {
			*s = strings.ReplaceAll(*s, "${DIR}", dir)
		}
	}
	return out, nil
}
