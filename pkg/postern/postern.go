// Package postern holds the nouns of the house: the names, answers and duties that
// every other package speaks of. It imports the standard library alone. Zero values
// deny: an unset Verdict, Effect, Grant or Decision never lets anything through.
package postern

import (
	"fmt"
	"time"
)

// Names and ids are distinct types, so that one cannot be passed for another.
type (
	// ResourceName names a thing that can be reached.
	ResourceName string
	// TaskName names a narrow permission.
	TaskName string
	// NodeName names a data-plane process.
	NodeName string
	// GrantID names one subject's right to one task.
	GrantID string
	// SessionID names one client connection to one resource under one grant.
	SessionID string
	// LeaseID names a credential on loan.
	LeaseID string
	// Protocol is the one name of a protocol: in configuration, policy, metrics and recordings.
	Protocol string
)

// Postgres is the PostgreSQL protocol, version 3.
const Postgres Protocol = "postgres"

// SSH is the Secure Shell protocol, version 2.
const SSH Protocol = "ssh"

// HTTP is HTTP/1.1 and HTTP/2, and what is spoken in it.
const HTTP Protocol = "http"

// RoleWall is the role of an enrolled process that makes roles and views at resources; a
// node has none.
const RoleWall = "wall"

// Version names all that a node enforces at once. Revisions of different epochs
// cannot be compared. The zero Version means that nothing was ever applied.
type Version struct {
	Epoch    string
	Revision int64
}

// IsZero reports whether nothing was ever applied.
func (v Version) IsZero() bool { return v == Version{} }

// Covers reports whether a node at v has applied everything up to w. It is false
// across epochs.
func (v Version) Covers(w Version) bool { return v.Epoch == w.Epoch && v.Revision >= w.Revision }

func (v Version) String() string { return fmt.Sprintf("%s/%d", v.Epoch, v.Revision) }

// Subject is a person, service or agent who acts.
type Subject struct {
	Name     string         // what whoami prints
	Email    string         // where the issuer says one
	Groups   []string       // as the issuer says them
	Claims   map[string]any // the other claims that conditions may read
	MFA      bool           // whether the login used more than one factor
	Workload string         // the Workload that this is, or empty for a person
	Actor    string         // who acts for the subject now, where a token was exchanged
	Via      []string       // for whom Actor does: those who acted before, the nearest first
}

// Actors are all who act for the subject, the nearest first; none where it acts itself.
func (s Subject) Actors() []string {
	if s.Actor == "" {
		return s.Via
	}
	return append([]string{s.Actor}, s.Via...)
}

// A Grant is one subject's right to one task until an absolute instant. The zero
// Grant has ended.
type Grant struct {
	ID         GrantID
	Subject    Subject
	Task       TaskName
	Binding    string
	Start, End time.Time
	MinVersion Version // a node that has not applied it must catch up or deny
	Approval   *Approval
	Reason     string // why it was asked for
	// Alternatives are other tasks that the subject may have on the resource. They are for
	// hints alone: nothing signs them.
	Alternatives []Alternative
}

// An Alternative is a task that a subject may have.
type Alternative struct {
	Task TaskName
	Asks bool // people are asked for the grant
}

// Approval says that people must say yes, and where. A nil *Approval asks nobody.
type Approval struct {
	Scope Scope
	Rule  string   // the name of an ApprovalRule
	Verbs []string // only for these verbs; empty means all
}

// Scope says what is parked for people.
type Scope string

// The scopes of a hold.
const (
	ScopeGrant     Scope = "grant"
	ScopeSession   Scope = "session"
	ScopeStatement Scope = "statement"
)

// Effect says what a statement does to the resource. Unknown is judged as the worst.
type Effect uint8

// The effects, from the worst to the mildest but for Unknown, which comes first.
const (
	EffectUnknown Effect = iota // could not tell
	EffectControl               // settings, sessions, privileges
	EffectDefine                // DDL
	EffectWrite
	EffectRead
	EffectNone // transaction control and the like: nothing is read or changed
)

func (e Effect) String() string {
	switch e {
	case EffectControl:
		return "control"
	case EffectDefine:
		return "define"
	case EffectWrite:
		return "write"
	case EffectRead:
		return "read"
	case EffectNone:
		return "none"
	case EffectUnknown:
	}
	return "unknown"
}

// Worse returns the worse of two effects.
func (e Effect) Worse(f Effect) Effect { return min(e, f) }

// Verdict is the word of a Decision. Deny is zero.
type Verdict uint8

// The verdicts.
const (
	VerdictDeny Verdict = iota
	VerdictHold
	VerdictAllow
)

func (v Verdict) String() string {
	switch v {
	case VerdictHold:
		return "hold"
	case VerdictAllow:
		return "allow"
	case VerdictDeny:
	}
	return "deny"
}

// Level is the guarantee that holds for a statement's masks.
type Level uint8

// The levels of guarantee. LevelNone enforces nothing: recorded only.
const (
	LevelNone   Level = iota // L0
	LevelResult              // L1: values are changed on the way back
	LevelSource              // L2: masked in the statement that is sent
	LevelNative              // L3: the target's own privileges
)

func (l Level) String() string { return fmt.Sprintf("L%d", uint8(l)) }

// A Decision answers one Query. The zero Decision denies.
type Decision struct {
	Verdict     Verdict
	Rule        string       // the rule that spoke, for the record: "task/part"
	Reason      string       // for the subject, in the protocol's own error: one clause, no period
	Detail      string       // what would have been allowed
	Hint        string       // what to do next
	Undefined   Undefined    // what kind of name does not exist, where it is denied for that
	Position    int          // of what is denied, in characters of the text from 1; 0 where nothing says so
	Obligations []Obligation // all must be met, or the answer is Deny
	Approval    *Approval    // who must say yes, with VerdictHold
	Missing     []Fact       // what must be fetched before this can be answered
	Effect      Effect
	Level       Level
	Deps        Deps    // what the verdict read beside the text
	Version     Version // the snapshot that answered
}

// Kinds of notes of a session that are more than text.
const (
	NoteAlert   = "alert"   // the audit log is told of it too
	NoteAccount = "account" // of the resource, that the session logs in as
)

// Fact names something that a decision needs and does not have.
type Fact string

// FactEstimatedRows is the row count that the target's planner estimates.
const FactEstimatedRows Fact = "estimatedRows"

// FactBody is the body of a request.
const FactBody Fact = "body"

// Deps says what a verdict read beside the statement's text, and so for how long it
// may be kept. The zero Deps may be kept until the snapshot changes.
type Deps struct {
	Time     bool // the clock
	Literals bool // literals or parameters
	Usage    bool // counters of the grant
	Beside   bool // what stands beside the text: headers, a body
}

// Cacheable reports whether the verdict may be kept for the same text.
func (d Deps) Cacheable() bool { return !d.Time && !d.Usage && !d.Beside }

// Obligation is a duty that comes with a decision; one that is not understood means
// Deny. Exactly one field is set.
type Obligation struct {
	Table       *TableRule // how a table's rows and columns may be seen
	MaxAffected int64      // the most rows that a statement may change
	MaxRows     int64      // the most rows that a statement may return
	// Blank is a function of pg_catalog that says how much room something takes: here it says
	// NULL.
	Blank string
	// Programs are the paths of what a command line runs, one for each of its commands:
	// these and nothing else that has their names.
	Programs []string
	// Env are the variables of the client that a command or shell may be given.
	Env []string
	// Guard gives, in the place of a shell, a prompt whose lines are judged one by one.
	Guard bool
	// Content says what is masked in what comes back where that is not rows of tables.
	Content *ContentRule
	// MCP has each message of the body judged by itself before it is sent on.
	MCP *MCPRule
}

// MCPRule says which messages of MCP a request may carry, each judged by itself, and what
// lists in the answers may name.
type MCPRule struct {
	Tools, Resources, Prompts []string          // patterns, in which "*" stands for any characters
	Pins                      map[string]string // hashes of tools by name, as package mcp makes them
}

// Names reports whether the rule names something of a list: tools, prompts, resources or
// resourceTemplates.
func (r *MCPRule) Names(list, name string) bool {
	patterns := r.Resources
	switch list {
	case "tools":
		patterns = r.Tools
	case "prompts":
		patterns = r.Prompts
	case "resources", "resourceTemplates":
	default:
		return false
	}
	for _, p := range patterns {
		if Like(p, name) {
			return true
		}
	}
	return false
}

// ContentRule says what is masked in a body or in what a command says. All of it applies.
type ContentRule struct {
	Fields []FieldRule  // by where it stands
	Detect []DetectRule // by what it looks like, wherever it stands: level L0
}

// FieldRule masks what stands at one place: a JSON pointer (RFC 6901) in which a name "*"
// stands for any name or index, or the name of a field in CSV and forms.
type FieldRule struct {
	Path string
	Mask *MaskRule
}

// DetectRule masks one kind of content, by the names of package detect.
type DetectRule struct {
	Kind string
	Mask *MaskRule
}

// TableRule says how one table may be read in a rewritten statement: only these
// columns, in this order, masked as said, and only the rows that the filter admits.
type TableRule struct {
	Schema, Table string
	Columns       []ColumnRule // every permitted column, in the table's own order
	Every         bool         // all other columns are permitted too, those of the server's own among them
	Filter        string       // an SQL expression over the table's columns; empty admits all rows
	View          *View        // at level native, what shows all this already; else nil
	// Names are relations whose numbers a filter speaks of: :relations in it stands for an
	// array of them, and :columns for one of their columns' numbers, as relation*65536+column.
	Names []RelationName
}

// RelationName names a relation and columns of it; without a table all of a schema.
type RelationName struct {
	Schema, Table string
	Columns       []string
}

// View is a view at the target that shows a table as a TableRule says.
type View struct{ Schema, Name string }

// ColumnRule is one permitted column and its mask.
type ColumnRule struct {
	Name string
	Mask *MaskRule // nil leaves the value as it is
}

// MaskMethod says how a mask changes a value.
type MaskMethod string

// The mask methods.
const (
	MaskRedact  MaskMethod = "redact"  // a constant
	MaskPartial MaskMethod = "partial" // all but the ends replaced
	MaskToken   MaskMethod = "token"   // equal values give equal tokens
	MaskNull    MaskMethod = "null"    // NULL
)

// MaskRule is a compiled Mask.
type MaskRule struct {
	Name                string // of the Mask object, for the record
	Method              MaskMethod
	Value               string
	KeepFirst, KeepLast int
	Domain              string
	Key                 string `json:",omitempty"` // of token: the Secret that holds its key
}

// Token reports whether values are changed on their way back, at whatever level: the key
// of tokens is in no statement.
func (m *MaskRule) Token() bool { return m != nil && m.Method == MaskToken }
