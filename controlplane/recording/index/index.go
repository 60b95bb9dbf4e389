// Package index keeps what is known of recorded sessions in rows: where each recording's
// chain stands, what the session did, its statements and what they used. sqlite is the
// embedded default, postgres is for several replicas; indextest holds both to the
// contract. The rows can be made again from the recordings; legal holds, of which these say
// nothing, the recording service keeps besides.
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
	MaxName = 1 << 10 // bytes of a subject, a mask, and what was used: what rows are found by must fit a page of PostgreSQL
	MaxPage = 1001    // rows of one answer: the API's largest page, and one that tells of more
)

// Errors of an Index.
var (
	ErrNotFound = errors.New("index: not found")
	// ErrConflict means that the chain does not stand where an Update expects it.
	ErrConflict = errors.New("index: the chain stands elsewhere")
	// ErrRefused means that the database has looked at an Update and does not keep what it
	// says, now or later: a text that its encoding does not have, a row that it has no room for.
	ErrRefused = errors.New("index: the database does not keep this")
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
	// Lost says that End ended the recording. Commit does not heed it: the recording goes on
	// with whatever follows.
	Lost    bool
	Node    postern.NodeName // that ships it
	Tally   record.Tally
	NodeKey []byte // the key that the seal was verified with: PKIX, DER
}

// Stored is a chunk as it is kept.
type Stored struct {
	Hash record.Hash
	Size int // bytes
}

// Update is all that one chunk changes, and the seal where it came with it. It is made at
// once or not at all.
type Update struct {
	Session *typesv1.Session // the whole row as it is now
	Head    Head             // as it is now, Chunks further
	// Chunks are those by which the chain goes on: one, or one and the seal.
	Chunks []Stored
	// Earlier is the highest number of a statement of the chunks before.
	Earlier uint64
	// Statements were judged in this chunk. One that was held and then let through comes
	// twice: the later judgement stands, with the text of the first where it has none.
	Statements []Statement
	Outcomes   []Outcome // of statements that began in this chunk or an earlier one
	// Alerts are notes that somebody should see; the index keeps none.
	Alerts []string
}

// From is the number of the first of the chunks.
func (u *Update) From() uint32 { return u.Head.Next - uint32(len(u.Chunks)) }

// Statement is one execution that was judged.
type Statement struct {
	Number  uint64 // within the session, from 1
	Seq     uint64 // of its event
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
	Bytes    int64
	Affected int64
	Code     string
	Tag      string
	Duration time.Duration
}

// Filter narrows a list. Zero fields do not.
type Filter struct {
	Subject, Task, Resource string
	People                  bool // of no workload
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

// Query asks for statements. Zero fields do not narrow it.
type Query struct {
	Session, Subject, Task, Resource, Account, Node string
	// Text asks for statements that have all its words, in any order; a word that ends
	// with * stands for all that begin so.
	Text string
	// Column asks for statements that used it: "schema.table.column", or "schema.table"
	// for any use of the relation. Roles narrows that to one of these uses.
	Column       string
	Roles        record.Role
	Verdict      *postern.Verdict // after people, where the statement was held
	Since, Until time.Time
	// Before continues an answer behind the last statement of the page before.
	Before *Spot
	Limit  int // 1 to MaxPage
}

// Spot is where a statement stands in an answer: by time, session and number, all
// falling.
type Spot struct {
	Time    time.Time
	Session string
	Number  uint64
}

// Found is a statement and the session that it is of.
type Found struct {
	Session *typesv1.Session // shared by the statements of one page
	Row
}

// Who asks which sessions used something. Zero fields do not narrow it.
type Who struct {
	// Name is "schema.table.column", or "schema.table" for any use of the relation; empty
	// asks for all sessions that lived in the time, and tells of each as a whole.
	Name              string
	Roles             record.Role // one of these uses
	Subject, Resource string
	Since, Until      time.Time
	Before            *Place // by the last use
	Limit             int    // 1 to MaxPage
}

// Use is one session's use of what was asked for, in the time that was asked for.
type Use struct {
	Session     *typesv1.Session
	Roles       record.Role
	Masks       []string // through which it was read, in order; "" is none
	First, Last time.Time
	Statements  int64
}

// Usage asks by what and from where somebody or something is used. Zero fields do not
// narrow it.
type Usage struct {
	Subject, Task, Resource, Account, Workload string
	// Name is any of the others but the task.
	Name         string
	Since, Until time.Time // sessions that lived in this time
}

// Used is all sessions that are alike, summed up.
type Used struct {
	Subject, Workload, Task, Resource, Account, Node, Region string
	ClientHost, ClientProgram                                string
	Sessions, Statements, Rows                               int64
	First, Last                                              time.Time
	Doubted                                                  bool // whose they are cannot be believed
}

// Taker is somebody who took a task, in the groups that they had then.
type Taker struct {
	Subject, Workload string
	Groups            []string
	Last              time.Time
}

// MaxUsed bounds the rows of one Usage, and of Takers.
const MaxUsed = 10_000

// An Index keeps the rows. It is safe for concurrent use. What Commit changed may be
// lost by a power failure, but only whole, and the newest first: recordings are
// reconciled at the next start.
type Index interface {
	// Head is where a recording's chain stands; zero for one that is not known.
	Head(ctx context.Context, id postern.SessionID) (Head, error)
	// Chunk is the hash of one chunk, or ErrNotFound.
	Chunk(ctx context.Context, id postern.SessionID, number uint32) (record.Hash, error)
	// Commit makes an update, if the chain stands just before it; else ErrConflict. It
	// keeps nothing of u.
	Commit(ctx context.Context, u *Update) error
	// Session is the row of one session, or ErrNotFound.
	Session(ctx context.Context, id postern.SessionID) (*typesv1.Session, error)
	// Sessions lists rows, the newest first.
	Sessions(ctx context.Context, f Filter) ([]*typesv1.Session, error)
	// Statements lists a session's statements with their outcomes, in order of their
	// numbers, beginning behind after, at most limit of them.
	Statements(ctx context.Context, id postern.SessionID, after uint64, limit int) ([]Row, error)
	// Search finds statements, the newest first.
	Search(ctx context.Context, q Query) ([]Found, error)
	// Who tells sessions that used something, by their last use, the newest first.
	Who(ctx context.Context, q Who) ([]Use, error)
	// Usage sums up sessions, the last used first; at most MaxUsed rows.
	Usage(ctx context.Context, q Usage) ([]Used, error)
	// Takers are all who took a task, on one resource where that is not empty, the last first;
	// at most MaxUsed. Sessions of which it is doubted whose they are count for nobody.
	Takers(ctx context.Context, task, resource string) ([]Taker, error)

	// Open lists recordings that have no end, in order of their ids, beginning behind after,
	// at most limit of them.
	Open(ctx context.Context, after postern.SessionID, limit int) ([]*typesv1.Session, error)
	// End ends an open recording as truncated, with the last event that is known, if the
	// chain stands at next; else ErrConflict. A session that had ended keeps its reason.
	End(ctx context.Context, id postern.SessionID, next uint32, reason string) error

	// Hold keeps a session beyond its time until it is let go with an empty reason;
	// ErrNotFound where there is none.
	Hold(ctx context.Context, id postern.SessionID, reason string) error
	// Old lists sessions that ended, began on a day before that of before, and are not
	// held, the oldest first; at most MaxPage.
	Old(ctx context.Context, before time.Time) ([]*typesv1.Session, error)
	// Forget removes all rows of sessions that Old listed, but for those that were held
	// in the meantime, and tells which went.
	Forget(ctx context.Context, ids []postern.SessionID) ([]postern.SessionID, error)
	Close() error
}

// Row is a statement and its outcome, where it has one.
type Row struct {
	Statement
	Outcome *Outcome
}
