// Package engine is the contract between the house and the code that terminates one
// protocol. An engine turns bytes into Statements and answers into bytes; it decides
// nothing, keeps no credential, and reaches no store, disk or control plane: all it has
// is its Session. The promises every engine keeps are tested by enginetest.
package engine

import (
	"context"
	"errors"
	"net"
	"time"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// An Engine terminates one protocol. It keeps no state of one client and is safe for
// concurrent use.
type Engine interface {
	// Protocol is the engine's one name.
	Protocol() postern.Protocol

	// Serve speaks to one client connection until either side ends. It reads the
	// client's half of the handshake under its own deadline, asks the door, and says
	// every refusal in the protocol's own form. It owns c and closes it. An error is
	// for operators; the client has been told already.
	Serve(ctx context.Context, c net.Conn, d Door) error
}

// A Door believes claims, or does not. It is safe for concurrent use.
type Door interface {
	// Open verifies a claim, asks policy, and records the session as opened. A refusal
	// is a *postern.Refusal. The caller must Close the session.
	Open(ctx context.Context, c Claim) (Session, error)
	// Cancel cancels what the session with this key runs, here or on whichever node
	// has it. An unknown key is no error, so that keys cannot be probed.
	Cancel(ctx context.Context, key []byte) error
}

// An Entrance is a Door at which browsers sign in, in three steps; its token is then the
// Token of their Claims. Errors are *postern.Refusal.
type Entrance interface {
	// BeginSignIn says where a browser signs in for a permission, that asked for host and
	// keeps verifier, a secret of its own.
	BeginSignIn(ctx context.Context, permission, host, verifier string) (url string, err error)
	// FinishSignIn takes what the browser came back with.
	FinishSignIn(ctx context.Context, host, code, verifier string) (token string, end time.Time, err error)
	// SignOut ends what a token opens and has opened, on every node.
	SignOut(ctx context.Context, token string) error
}

// A Claim is what a client says of itself, unverified.
type Claim struct {
	Protocol   postern.Protocol
	Permission string // "TASK.RESOURCE" or "TASK", as typed
	Token      secret.Bytes
	// Certificate is a client certificate whose key the handshake has proved to be the
	// client's: DER, or for SSH the wire form; nil where none was shown.
	Certificate []byte
	// SignIn, where the client has shown neither, is told once where a person can sign in;
	// Open then takes as long as that does, and ends with its context. It must not block.
	SignIn        func(SignIn)
	Database      string
	ClientAddress string
	ClientProgram string
}

// SignIn is where a person without anything to show can sign in.
type SignIn struct {
	URL, Code string
	Expires   time.Time
}

// A Session is one client connection under one grant: all that an engine can reach.
// It is safe for concurrent use.
type Session interface {
	ID() postern.SessionID
	// Terms is what the engine needs to know of resource and task. It does not change.
	Terms() *Terms
	// Context ends when the session must end; its cause is a *postern.Refusal to show
	// to the client. Once it is done the upstream connection is closed within 100 ms.
	Context() context.Context

	// Prepare judges a statement once. A denial is recorded and is a *postern.Refusal.
	Prepare(ctx context.Context, st *Statement) (*Admission, error)

	// Stale reports whether an admission was judged under a policy that is not enforced
	// any more, so that it is of no use for a statement that begins now. It is cheap.
	Stale(a *Admission) bool

	// Admit lets one execution through: policy version, budget, intent record. It does
	// not block on people or networks and on the path of a cached Read allocates
	// nothing. f is set up for the way back; the caller must end it with f.Done once
	// Admit has returned nil. ErrStale asks for a new Prepare, ErrHold for Await.
	Admit(a *Admission, args Args, f *Flow) error

	// Await waits for people; progress is called with texts for the client while it
	// waits. After nil, the very same execution is admitted once.
	Await(ctx context.Context, a *Admission, args Args, progress func(notice string)) error

	// OnCancel registers what to do when a client asks to cancel with this key. It
	// holds until the session is closed.
	OnCancel(key []byte, cancel func())

	// Lend gives fn a credential for the purpose; fn must not keep it: it is wiped
	// when fn returns, while the loan itself lasts until Close.
	Lend(ctx context.Context, p Purpose, fn func(*Credential) error) error

	// Vouch is a signed token that tells the resource who asks, where its terms want that.
	// It ends within minutes, and is asked for at each use.
	Vouch(ctx context.Context) (string, error)

	// PinServer notes what a server of MCP says of itself and what people have let be, for
	// all nodes, and tells all that is known of it. The session's grant and resource are
	// filled in.
	PinServer(ctx context.Context, told *nodev1.PinServerRequest) (*nodev1.ServerPins, error)

	// Dial opens a connection to the resource that the session owns, so that a kill
	// reaches it. TLS is the engine's business.
	Dial(ctx context.Context) (net.Conn, error)

	// Reached tells how the way to the resource went: err is nil where the engine has connected
	// and logged in to it, and otherwise why not, for operators. ctx is what it went under: where
	// that was cancelled, nothing was found out.
	Reached(ctx context.Context, err error)

	// Unread records the denial of a statement that is too long to be kept; hash is the
	// SHA-256 of its text, of size bytes.
	Unread(size int64, hash []byte, why *postern.Refusal) error

	// Note records a fact that is no statement, such as a changed setting.
	Note(kind, text string) error

	// Close records why the session ended, gives leases back and closes what Dial
	// opened. It is idempotent.
	Close(why error)
}

// Purpose says what a credential is for.
type Purpose string

// The purposes.
const (
	PurposeSession Purpose = "session"
	PurposeCatalog Purpose = "catalog"
)

// Credential is what is lent.
type Credential struct {
	Account     string
	Password    secret.Bytes
	Certificate []byte // PEM, or for SSH as in an authorized_keys file
	PrivateKey  secret.Bytes
	// SessionToken stands beside a temporary access key: Account and Password.
	SessionToken secret.Bytes
	MaskKeys     map[string]secret.Bytes // of masks of method token, by name; of sessions alone
}

// Terms is what an engine needs to know of the resource and the task.
type Terms struct {
	Node     postern.NodeName
	Subject  string
	Grant    postern.GrantID
	Task     postern.TaskName
	Resource postern.ResourceName
	Host     string // of the resource
	Port     int
	Database string
	TLS      TLSTerms
	SSH      SSHTerms
	HTTP     HTTPTerms
	Pins     []Setting // settings held fixed, sorted by name
	Level    postern.Level

	// Pool names the connections that sessions of the grant have one after the other;
	// empty where each session makes its own.
	Pool postern.SessionID

	StatementTimeout time.Duration // 0 means no bound
	Idle             time.Duration
	// ReadOnly is true where nothing that the task permits can change data.
	ReadOnly bool
	// Own is true where everything is allowed and the client's own bytes go through.
	Own bool
	// Hold is true where people must say yes before the session may begin; the engine
	// then completes the handshake and calls AwaitSession.
	Hold bool
}

// TLSTerms says how to verify the resource.
type TLSTerms struct {
	Mode       string // verify-full, verify-ca or disable
	CA         []byte // PEM; the system's where empty
	ServerName string
}

// SSHTerms says how to know a host: by its keys, or by who certifies them, each as in an
// authorized_keys file.
type SSHTerms struct{ HostKeys, HostCAs []string }

// HTTPTerms says how to speak to an HTTP resource.
type HTTPTerms struct {
	Authority string // what is sent as Host
	Auth      string // how the credential is shown: bearer, basic, header, sigv4, certificate or none
	Header    string // of Auth header
	Region    string // of Auth sigv4
	Service   string // of Auth sigv4
	Identity  bool   // the resource is told who asks
}

// Setting is one session setting.
type Setting struct{ Name, Value string }

// A Waiter is a Session that people must let in before its first statement.
type Waiter interface {
	// AwaitSession waits for people, as Await does.
	AwaitSession(ctx context.Context, progress func(notice string)) error
}

// A Lender is a Session that tells whether Lend must wait for somebody.
type Lender interface{ Lent(p Purpose) bool }

// A Reuser is a Session that may have a connection of an earlier session of the same
// grant, where its terms name a Pool.
type Reuser interface {
	// Reuse gives a connection that was left under the key, or nil. It is this session's
	// then, as if Dial had made it.
	Reuse(key string) Kept
	// Leave keeps a connection for a later session, or closes it. It must be at rest, and
	// nothing that was sent over it may still have an effect.
	Leave(key string, k Kept)
}

// Kept is a connection with which its engine can go on later.
type Kept interface {
	// Dialled is the connection as Dial gave it.
	Dialled() net.Conn
	// Born is when it was made.
	Born() time.Time
	Close() error
}

// A Statement is the unit that is judged.
type Statement struct {
	// Text is the statement as the client sent it.
	Text string
	// Context names everything beside the text that changes its meaning: catalogue
	// version and settings. It is part of the cache key.
	Context string
	// Analyse finds the facts. It is called at most once, on a miss, and may take
	// milliseconds. ErrOutdated leaves the statement unjudged and unrecorded.
	Analyse func(ctx context.Context) (Analysis, error)
	// Private marks a statement whose verdict depends on objects of this session, so
	// that it is not cached across sessions.
	Private bool
	// Meets reports whether the engine itself meets what a decision at level result
	// asks for, and masks of content at any level, by changing values on their way back;
	// an error denies. Nil meets
	// nothing. The decision must not be changed or kept.
	Meets func(an Analysis, d *postern.Decision) error
	// Estimate asks the resource how many rows a text that may be sent would return or
	// change, without running it. Nil where that cannot be asked. It may take
	// milliseconds.
	Estimate func(ctx context.Context, text string) (rows int64, err error)
	// Body reads what a request carries into the facts, because a rule reads it. Nil
	// where there is none. It may wait for the client.
	Body func(ctx context.Context) error
}

// ErrOutdated is what Analyse returns, and Prepare with it, where what it goes by may have
// changed in a way that matters: the engine looks, and asks again.
var ErrOutdated = errors.New("what the statement was analysed by may be out of date")

// An Analysis is one understood statement.
type Analysis interface {
	// Facts for policy, such as *sql.Facts.
	Facts() any
	// Plain reports whether the client's own bytes cannot mean anything else.
	Plain() bool
	// Canonical is the re-emitted statement.
	Canonical() string
	// Rewrite is the statement that meets the obligations, or an error: one that
	// cannot be met denies.
	Rewrite(obligations []postern.Obligation) (string, error)
}

// A Shedder is an Analysis that keeps much more than its facts. Shed is called once it was
// judged, and before anybody else has it: nothing is rewritten after, and of Canonical there is
// what was asked for before.
type Shedder interface{ Shed() }

// An Admission is a statement that was judged and not denied. It may be shared by
// sessions and is immutable.
type Admission struct {
	// Text is the statement as the client sent it.
	Text     string
	Decision postern.Decision
	// Forward is what may be sent to the resource.
	Forward string
	// Own is true where Forward is the client's own text, byte for byte.
	Own      bool
	Analysis Analysis
	// Waits is true where letting it through, or what it gives, may take longer than a
	// moment: records wait for a disk or for storage, or a share of a limit is asked for.
	Waits bool
	// Gate belongs to the gate.
	Gate any
}

// Args are the parameters of one execution. The slices are valid during the call alone.
type Args struct {
	Formats []int16 // 0 text, 1 binary; as the client sent them
	Values  [][]byte
	// Null marks a value as NULL.
	Null func(i int) bool
	// Text is a binary value as people read it, where the engine knows its type; nil
	// where it knows none. It may be slow.
	Text func(i int) (string, bool)
	// Beside is recorded with the values and is nothing that people approve: all headers of a
	// request, of which those that they do are a value.
	Beside []string
}

// What Admit may ask for.
var (
	// ErrStale asks for a new Prepare: policy has changed.
	ErrStale = errors.New("engine: policy has changed since the statement was prepared")
	// ErrHold asks for Await: people must say yes to this execution.
	ErrHold = errors.New("engine: people must approve this execution")
)
