// Package cases tests policy as one tests code: a file beside the tasks says who does
// what, and which answer is wanted. Cases are judged by the compiled policy itself, so
// that they say what nodes would; SQL text alone needs a catalogue and a parser, and so
// somebody to ask.
package cases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// Bounds of a file.
const (
	MaxBytes = 1 << 20
	MaxCases = 10_000
)

// A File is what people write.
type File struct {
	Cases []Case `json:"cases"`
}

// A Case is somebody who does something. Just one of Can and Statement is set.
type Case struct {
	Name      string    `json:"name"`
	Subject   Subject   `json:"subject"`
	Task      string    `json:"task"`      // empty with can: whichever of their tasks allows most
	Resource  string    `json:"resource"`  // of statement; empty where the task reaches one alone
	Can       string    `json:"can"`       // such as "select warehouse:sales.customers.email"
	Statement string    `json:"statement"` // SQL, or a command line
	At        time.Time `json:"at"`        // when; now where unset
	Address   string    `json:"address"`   // where the client is
	Client    string    `json:"client"`    // the program that it names
	Region    string    `json:"region"`    // of the node
	Reason    string    `json:"reason"`    // why the grant is asked for; it may name a ticket
	Want      Want      `json:"want"`
}

// Subject is who acts.
type Subject struct {
	Name     string         `json:"name"`
	Email    string         `json:"email"`
	Groups   []string       `json:"groups"`
	Claims   map[string]any `json:"claims"`
	MFA      bool           `json:"mfa"`
	Workload string         `json:"workload"`
	Actor    string         `json:"actor"`
}

// Subject is s as policy knows it.
func (s Subject) Subject() postern.Subject {
	return postern.Subject{Name: s.Name, Email: s.Email, Groups: s.Groups, Claims: s.Claims, MFA: s.MFA, Workload: s.Workload, Actor: s.Actor}
}

// Want is what must come of it; what is left out is not looked at, but the verdict.
type Want struct {
	Verdict  string            `json:"verdict"`  // allow, hold or deny
	Rule     string            `json:"rule"`     // exactly
	Approval string            `json:"approval"` // the rule that people are asked by
	Reason   string            `json:"reason"`   // is in it
	Mask     string            `json:"mask"`     // of can's column; "none" for as it is
	Masked   map[string]string `json:"masked"`   // of statement: just these, by column
}

// Outcome is what came of a case.
type Outcome struct {
	Verdict, Rule, Approval, Reason string
	Task                            postern.TaskName
	Masked                          map[string]string // mask by schema.table.column
}

// Explain says what would come of SQL text of somebody who holds a task.
type Explain func(ctx context.Context, c *Case, task postern.TaskName, resource postern.ResourceName) (Outcome, error)

// ErrNotRun is of a case that needs Explain where there is none.
var ErrNotRun = errors.New("a statement needs a catalogue, and so a server to ask")

// Parse reads a file. An error names the case.
func Parse(text []byte) (*File, error) {
	if len(text) > MaxBytes {
		return nil, fmt.Errorf("is longer than %d bytes", MaxBytes)
	}
	var read struct {
		Cases []json.RawMessage `json:"cases"`
	}
	if err := yaml.UnmarshalStrict(text, &read); err != nil {
		return nil, err
	}
	if len(read.Cases) == 0 || len(read.Cases) > MaxCases {
		return nil, fmt.Errorf("has %d cases, want 1 to %d", len(read.Cases), MaxCases)
	}
	f := &File{Cases: make([]Case, len(read.Cases))}
	for i := range f.Cases {
		c := &f.Cases[i]
		err := yaml.UnmarshalStrict(read.Cases[i], c)
		if c.Name == "" {
			c.Name = strings.TrimSpace(c.Subject.Name + ": " + c.Can + c.Statement)
		}
		if err == nil {
			err = c.check()
		}
		if err != nil {
			return nil, fmt.Errorf("case %d (%s): %w", i+1, c.Name, err)
		}
	}
	return f, nil
}

func (c *Case) check() error {
	switch {
	case c.Subject.Name == "":
		return errors.New("subject.name is required")
	case (c.Can == "") == (c.Statement == ""):
		return errors.New("needs just one of can and statement")
	case c.Statement != "" && c.Task == "":
		return errors.New("task is required with statement")
	case c.Want.Verdict != "allow" && c.Want.Verdict != "hold" && c.Want.Verdict != "deny":
		return fmt.Errorf("want.verdict is %q, want allow, hold or deny", c.Want.Verdict)
	case c.Can == "" && c.Want.Mask != "":
		return errors.New("want.mask belongs to can; a statement has want.masked")
	case c.Statement == "" && c.Want.Masked != nil:
		return errors.New("want.masked belongs to statement; can has want.mask")
	}
	return nil
}

// Run judges a case by a policy at a time, and lists in which ways the outcome is not
// what was wanted. An error means that it could not be judged.
func (c *Case) Run(ctx context.Context, s *policy.Snapshot, now time.Time, explain Explain) (Outcome, []string, error) {
	if !c.At.IsZero() {
		now = c.At
	}
	var out Outcome
	var err error
	mask := ""
	if c.Can != "" {
		verb, object, ok := cutLast(c.Can)
		if !ok {
			verb, object = c.Can, ""
		}
		var target *policy.Target
		if target, err = s.Target(verb, object); err != nil {
			return out, nil, err
		}
		out = c.can(s, target, now)
		mask = out.Masked[target.On+"."+target.Column]
	} else if out, err = c.statement(ctx, s, now, explain); err != nil {
		return out, nil, err
	}
	return out, c.Want.differs(&out, mask), nil
}

// cutLast parts "create table warehouse:sales" before the resource: the word that has the
// first colon, or the last one. What stands after the colon may have spaces.
func cutLast(text string) (verb, object string, ok bool) {
	head, _, _ := strings.Cut(text, ":")
	i := strings.LastIndexByte(head, ' ')
	if i < 0 {
		return "", "", false
	}
	return text[:i], text[i+1:], true
}

func (w *Want) differs(o *Outcome, mask string) (out []string) {
	same := func(what, got, want string) {
		if want != "" && got != want {
			out = append(out, fmt.Sprintf("%s is %q, want %q", what, got, want))
		}
	}
	same("verdict", o.Verdict, w.Verdict)
	same("rule", o.Rule, w.Rule)
	same("approval", o.Approval, w.Approval)
	if !strings.Contains(o.Reason, w.Reason) {
		out = append(out, fmt.Sprintf("reason is %q, want %q in it", o.Reason, w.Reason))
	}
	if mask == "" {
		mask = "none"
	}
	same("mask", mask, w.Mask)
	for column, want := range w.Masked {
		same("mask of "+column, o.Masked[column], want)
	}
	if w.Masked != nil {
		for column, got := range o.Masked {
			if _, ok := w.Masked[column]; !ok {
				out = append(out, fmt.Sprintf("%s is masked by %s, which was not wanted", column, got))
			}
		}
	}
	return out
}
