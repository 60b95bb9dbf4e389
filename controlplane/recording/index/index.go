// Package index keeps what is known of recorded sessions in rows: where each recording's
// chain stands, what the session did, and its statements. sqlite is the embedded
// default; indextest holds every implementation to the contract.
package index

import (
	"context"
	"errors"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// Limits of rows and pages.
const (
	MaxText = 8 << 10 // bytes of a statement's text in the index; the recording has all of it
	MaxPage = 1001    // rows of one answer: the API's largest page, and one that tells of more
)

// Errors of an Index.
var (
	ErrNotFound = errors.New("index: not found")
	// ErrConflict means that the chain does not stand where an Update expects it.
	ErrConflict = errors.New("index: the chain stands elsewhere")
)

// Head is where the chain of a recording stands. The zero Head is of a recording that
// nothing is known of.
type Head struct {
	Next     uint32 // index of the chunk that must follow
	Previous record.Hash
	Span     record.Span
	// OpenFrom is the chunk in which the event began that Span says goes on.
	OpenFrom uint32
	Sealed   bool
	Node     postern.NodeName // that ships it
	Tally    record.Tally
	NodeKey  []byte // the key that the seal was verified with: PKIX, DER
}

// Update is all that one chunk changes. It is made at once or not at all.
type Update struct {
	Session *typesv1.Session // the whole row as it is now
	Head    Head             // as it is now: one chunk further
	Hash    record.Hash      // of the chunk
	Size    int              // bytes of the chunk
	// Statements were judged in this chunk. One that was held and then let through comes
	// twice: the later judgement stands, with the time and seq of the first.
	Statements []Statement
	Outcomes   []Outcome // of statements that began in this chunk or an earlier one
	Touches    []Touch
}

// Statement is one execution that was judged.
type Statement struct {
	Number  uint64 // within the session, from 1
	Seq     uint64 // of its first event
	Time    time.Time
	Text    string // at most MaxText bytes
	Verdict postern.Verdict
	Rule    string
	Reason  string
	Touched []record.Touch
}

// Outcome is what became of a statement.
type Outcome struct {
	Number   uint64
	Verdict  postern.Verdict // of people, where it was held
	Rows     int64
	Affected int64
	Code     string
	Tag      string
	Duration time.Duration
}

// Touch sums up what one chunk says of a session's use of one relation or column.
type Touch struct {
	record.Touch
	First, Last time.Time
	Statements  int64
}

// Filter narrows a list. Zero fields do not.
type Filter struct {
	Subject, Task, Resource string
	Live                    bool // has not ended
	Since, Until            time.Time
	// Before continues a list behind the last session of the page before.
	Before *Place
	Limit  int // 1 to MaxPage
}

// Place is where a session stands in a list: by its beginning, then by its id.
type Place struct {
	Start time.Time
	ID    string
}

// An Index keeps the rows. It is safe for concurrent use. What Commit changed may be
// lost by a power failure, but only whole, and the newest first: recordings are
// reconciled at the next start.
type Index interface {
	// Head is where a recording's chain stands; zero for one that is not known.
	Head(ctx context.Context, id postern.SessionID) (Head, error)
	// Chunk is the hash of one chunk, or ErrNotFound.
	Chunk(ctx context.Context, id postern.SessionID, number uint32) (record.Hash, error)
	// Commit makes an update, if the chain stands just before it; else ErrConflict.
	Commit(ctx context.Context, u *Update) error
	// Session is the row of one session, or ErrNotFound.
	Session(ctx context.Context, id postern.SessionID) (*typesv1.Session, error)
	// Sessions lists rows, the newest first.
	Sessions(ctx context.Context, f Filter) ([]*typesv1.Session, error)
	// Statements lists a session's statements with their outcomes, in order of their
	// numbers, beginning behind after, at most limit of them.
	Statements(ctx context.Context, id postern.SessionID, after uint64, limit int) ([]Row, error)
}

// Row is a statement and its outcome, where it has one.
type Row struct {
	Statement
	Outcome *Outcome
}
