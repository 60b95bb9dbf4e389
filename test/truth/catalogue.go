// Package truth holds a catalogue of inputs that defeat guardrails, runs them through a
// real node to two worlds, and judges what came back: what should have been denied and
// was not, what leaked, and what was refused although it is honest.
package truth

import (
	"embed"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgproto3"
	"sigs.k8s.io/yaml"

	"github.com/posterngate/postern/test/twoworlds"
)

//go:embed testdata/*.yaml
var files embed.FS

// An Entry is one input with the answer that it must get.
type Entry struct {
	ID    string
	Class string
	Task  string
	Want  Want
	// WantResult is what is wanted at level result, where that is stricter.
	WantResult Want
	// WantNative is what is wanted at level native, where the target refuses more.
	WantNative Want
	Note       string

	SQL     []string          // each one simple query
	Wire    []message         // what a client sends
	Startup map[string]string // startup parameters
	Segment bool              // a startup packet in clear text follows the request for TLS at once
	Ends    bool              // the session may end with it
	Says    string            // exactly what the last answer is, as a Transcript prints it; optional
	Tells   string            // part of the message of the last answer's error; optional
	Before  string            // SQL that runs in both targets first, past Postern
	After   string            // and last
}

// Want is the answer that an entry must get; the catalogue says what each means.
type Want string

// The answers.
const (
	Allow   Want = "allow"
	Mask    Want = "mask"
	Deny    Want = "deny"
	NoLeak  Want = "no_leak"
	Bounded Want = "bounded"
)

// want is the answer at a level.
func (e *Entry) want(l twoworlds.Level) Want {
	switch {
	case l == twoworlds.Result && e.WantResult != "":
		return e.WantResult
	case (l == twoworlds.Native || l == twoworlds.Wall) && e.WantNative != "":
		return e.WantNative
	}
	return e.Want
}

// Load reads the committed entries of one file.
func Load(name string) ([]Entry, error) {
	b, err := files.ReadFile("testdata/" + name)
	if err != nil {
		return nil, err
	}
	var out []Entry
	if err := yaml.UnmarshalStrict(b, &out); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	seen := map[string]bool{}
	for _, e := range out {
		switch e.Want {
		case Allow, Mask, Deny, NoLeak, Bounded:
		default:
			return nil, fmt.Errorf("%s: %s wants %q", name, e.ID, e.Want)
		}
		if e.ID == "" || seen[e.ID] || e.Task == "" || e.Class == "" {
			return nil, fmt.Errorf("%s: entry %q needs an id of its own, a class and a task", name, e.ID)
		}
		seen[e.ID] = true
		if _, err := e.steps(); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", name, e.ID, err)
		}
	}
	return out, nil
}

// A message is one thing that a client sends; exactly one of the pointers is set, or one
// of the flags.
type message struct {
	Query    *string  // a simple query
	Quoted   string   // the same, as a Go string literal
	Parse    *string  // text
	Name     string   // of Parse's statement
	Types    []uint32 // of Parse's parameters
	Bind     *string  // statement
	Portal   string   // of Bind
	Params   []*string
	Results  []int16 // formats
	Describe *string // statement
	Execute  *string // portal
	Rows     uint32  // at most, of Execute
	Close    *string // statement
	Sync     bool
	Flush    bool
	Copy     *string // data
	CopyDone bool
	Call     uint32    // OID of a function
	Args     []*string // of Call
	Raw      string    // bytes, as a Go string literal
	Ready    int       // answers that Raw gets
	Both     string    // SQL in both targets, past Postern
}

func args(texts []*string) [][]byte {
	out := make([][]byte, len(texts))
	for i, s := range texts {
		if s != nil {
			out[i] = []byte(*s)
		}
	}
	return out
}

// proto is the message as the protocol has it; nil where it is none of it.
func (m *message) proto() (pgproto3.FrontendMessage, error) {
	switch {
	case m.Query != nil:
		return &pgproto3.Query{String: *m.Query}, nil
	case m.Quoted != "":
		s, err := strconv.Unquote(m.Quoted)
		return &pgproto3.Query{String: s}, err
	case m.Parse != nil:
		return &pgproto3.Parse{Name: m.Name, Query: *m.Parse, ParameterOIDs: m.Types}, nil
	case m.Bind != nil:
		return &pgproto3.Bind{DestinationPortal: m.Portal, PreparedStatement: *m.Bind, Parameters: args(m.Params), ResultFormatCodes: m.Results}, nil
	case m.Describe != nil:
		return &pgproto3.Describe{ObjectType: 'S', Name: *m.Describe}, nil
	case m.Execute != nil:
		return &pgproto3.Execute{Portal: *m.Execute, MaxRows: m.Rows}, nil
	case m.Close != nil:
		return &pgproto3.Close{ObjectType: 'S', Name: *m.Close}, nil
	case m.Sync:
		return &pgproto3.Sync{}, nil
	case m.Flush:
		return &pgproto3.Flush{}, nil
	case m.Copy != nil:
		return &pgproto3.CopyData{Data: []byte(*m.Copy)}, nil
	case m.CopyDone:
		return &pgproto3.CopyDone{}, nil
	case m.Call != 0:
		return &pgproto3.FunctionCall{Function: m.Call, Arguments: args(m.Args)}, nil
	}
	return nil, nil
}

// steps are the entry's exchanges: each ends with what the server answers to.
func (e *Entry) steps() ([]twoworlds.Step, error) {
	var steps []twoworlds.Step
	for _, text := range e.SQL {
		steps = append(steps, twoworlds.Query(text))
	}
	var open twoworlds.Step
	flush := func() {
		if len(open.Send) > 0 {
			steps = append(steps, open)
			open = twoworlds.Step{}
		}
	}
	answered := false
	for i := range e.Wire {
		m := &e.Wire[i]
		copying := m.Copy != nil || m.CopyDone
		if answered && !copying {
			flush()
			answered = false
		}
		p, err := m.proto()
		switch {
		case err != nil:
			return nil, err
		case p != nil:
			open.Send = append(open.Send, p)
			switch p.(type) {
			case *pgproto3.Query, *pgproto3.Sync, *pgproto3.FunctionCall:
				answered = true
			}
		case m.Both != "":
			flush()
			steps = append(steps, twoworlds.Step{Both: m.Both})
		case m.Raw != "":
			flush()
			raw, err := strconv.Unquote(m.Raw)
			if err != nil {
				return nil, err
			}
			steps = append(steps, twoworlds.Step{Raw: []byte(raw), Ready: m.Ready})
		default:
			return nil, fmt.Errorf("message %d is none", i+1)
		}
	}
	flush()
	return steps, nil
}
