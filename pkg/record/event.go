package record

import (
	"math"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

// Limits of the format. A reader refuses what is larger before it allocates.
const (
	MaxFrameBody = 64 << 10  // bytes of one frame's body
	MaxEvent     = 64 << 20  // bytes of one event
	MaxItems     = 1 << 17   // entries of all lists of an event
	MaxFrames    = 512 << 10 // bytes of a chunk's body once decoded
	MaxChunk     = 1 << 20   // bytes of a whole chunk
	MaxStored    = 2 << 20   // bytes of a chunk, with the seal behind it
	MaxName      = 128       // bytes of a session's id
	maxKeyID     = 64        // bytes of a recording key's id
	maxWrapped   = 255       // bytes of a data key that is sealed to it
)

// Kind says what an event tells.
type Kind uint8

// The kinds.
const (
	KindOpened   Kind = iota + 1 // Session: who, what for, from where
	KindIntent                   // a statement is about to be forwarded
	KindFinished                 // how that statement ended
	KindDenied                   // a statement was refused
	KindHeld                     // a statement or the session waits for people
	KindSettled                  // what people said: Verdict, People, Reason
	KindRows                     // rows that were passed on, as the client got them
	KindChunk                    // data without columns: COPY, terminals, bodies
	KindNote                     // a fact that is no statement: Tag says which kind, Text what
	KindClosed                   // the session ended: Reason
)

func (k Kind) String() string {
	switch k {
	case KindOpened:
		return "opened"
	case KindIntent:
		return "intent"
	case KindFinished:
		return "finished"
	case KindDenied:
		return "denied"
	case KindHeld:
		return "held"
	case KindSettled:
		return "settled"
	case KindRows:
		return "rows"
	case KindChunk:
		return "chunk"
	case KindNote:
		return "note"
	case KindClosed:
		return "closed"
	}
	return "unknown"
}

// Next as the Statement of an event asks its recorder for the next number: where many
// executions begin at once, only who writes the events down knows which was first.
const Next uint64 = math.MaxUint64

// Event is one fact of a session. Which fields are set depends on the kind. An Event
// owns nothing: whoever fills it in may reuse it and all it points to once it is encoded.
type Event struct {
	Seq  uint64    // from 1; set by the recorder
	Time time.Time // wall clock, to the microsecond; it may step
	Kind Kind
	// Elapsed is the time since the session began by a clock that never steps; set by
	// the recorder.
	Elapsed time.Duration

	Session *Session // Opened

	// Statement numbers the executions of the session from 1, in the order of their first
	// events, and ties Intent, Rows, Finished and the others together; 0 where the event
	// is of no statement.
	Statement uint64
	Text      string  // Intent, Denied, Held: as the client sent it; Note: the fact
	Params    []Param // of one execution
	Hash      []byte  // SHA-256 of Text; nil where it was not computed
	Verdict   postern.Verdict
	Rule      string
	Reason    string  // why denied, what people said, why closed
	Forward   string  // what was sent to the resource, where it is not Text
	Touched   []Touch // what the statement uses
	Effect    postern.Effect
	Level     postern.Level
	Version   postern.Version // the policy that judged, where it is not the session's

	Rows     int64  // returned; in a Rows event, those in Data
	Bytes    int64  // of rows returned
	Affected int64  // rows changed, or -1 where the protocol does not say
	Tag      string // command tag; in a Note, which kind of fact
	Code     string // the protocol's error code; empty where all went well
	Message  string // the error as the client saw it
	Duration time.Duration

	Hold   string   // id
	People []string // who must say, or who said, yes

	// Encoding names how Data is written, such as EncodingDataRow.
	Encoding  string
	Columns   []Column // of the result; only with the first Rows of a statement
	Data      []byte
	Direction Direction

	// Raw is set by WithRaw alone: Data is as it was before its masks.
	Raw bool

	// Shape, where it is not nil, is a pointer that tells an Encoder what need not be written
	// again: two events of one Shape and Tag say the same by Verdict, Rule, Touched, Effect,
	// Level and Version, and where their Text is the same, by Hash. It is not written itself.
	Shape any
}

// Session is who opened a session, what for, and from where.
type Session struct {
	ID            postern.SessionID
	Subject       string
	Groups        []string
	Workload      string
	Actors        []string // who acts for the subject, the nearest first
	Grant         postern.GrantID
	Task          postern.TaskName
	Resource      postern.ResourceName
	Protocol      postern.Protocol
	Node          postern.NodeName
	Region        string
	ClientAddress string // address and port
	ClientProgram string // as the client named it
	Version       postern.Version
	Level         postern.Level
	Account       string
	Database      string
	Raw           bool // what masks hide is recorded too, in the session's raw recording
}

// Param is one bound value.
type Param struct {
	Value  string // as the client sent it
	Null   bool
	Binary bool   // Value is in the protocol's binary format
	Text   string // what a binary Value says, where the engine can read it
}

// Touch is one relation or column that a statement uses.
type Touch struct {
	Column string // "schema.table.column", or "schema.table" where no column is named
	Role   Role
	Mask   string // the mask that it was read through; empty for none
	View   string // the view that reads it, where the statement names that instead
}

// Role says how a column is used; the bits combine. The first three are those of the
// SQL facts.
type Role uint8

// The roles.
const (
	RoleOutput    Role = 1 << iota // reaches the result as it is
	RoleComputed                   // reaches the result through an expression
	RolePredicate                  // decides which rows there are, or their order
	RoleWrite                      // is written
)

// Names are the roles as people are told them.
func (r Role) Names() []string {
	var out []string
	for i, name := range []string{"out", "computed", "predicate", "write"} {
		if r&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// Column is one column of a result.
type Column struct {
	Name   string
	Type   uint32 // the protocol's own type id
	Binary bool
	Masked bool
}

// Direction says which way the data of a Chunk event went.
type Direction uint8

// The directions.
const (
	ToClient Direction = iota
	ToTarget
)

// EncodingDataRow is PostgreSQL's DataRow messages, whole and one after another.
const EncodingDataRow = "postgres/datarow"
