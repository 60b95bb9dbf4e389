package postern

import (
	"errors"
	"time"
)

// Code says which kind of no a Refusal is; engines map it to their protocol's own
// error. The zero Code is a denial by policy.
type Code uint8

// The codes.
const (
	CodeDenied      Code = iota // denied by policy
	CodeBadToken                // bad or dead token
	CodeNoGrant                 // no grant or binding
	CodeCancelled               // a hold was refused or timed out, or the client cancelled
	CodeKilled                  // killed, locked, or the grant is over
	CodeLimit                   // a limit is reached
	CodeProtocol                // the client broke the protocol
	CodeUnavailable             // recorder, control plane or target lost
	CodeStale                   // a prepared statement was judged under a policy that has changed
	CodeUndefined               // names what does not exist; the Reason is as the target would say it
)

func (c Code) String() string {
	switch c {
	case CodeBadToken:
		return "bad-token"
	case CodeNoGrant:
		return "no-grant"
	case CodeCancelled:
		return "cancelled"
	case CodeKilled:
		return "killed"
	case CodeLimit:
		return "limit"
	case CodeProtocol:
		return "protocol"
	case CodeUnavailable:
		return "unavailable"
	case CodeStale:
		return "stale"
	case CodeUndefined:
		return "undefined"
	case CodeDenied:
	}
	return "denied"
}

// Undefined is the kind of a name that does not exist at the resource.
type Undefined uint8

// The kinds. The zero Undefined is that of a name that is there.
const (
	_ Undefined = iota
	UndefinedColumn
	UndefinedRelation
	UndefinedFunction // or operator
	UndefinedType
)

// A Refusal is a no for the person who asked. Its texts are shown to that person in
// the protocol's own form, so they carry no secret, no value of a row, and nothing of
// the inside of the house.
type Refusal struct {
	Code   Code
	Reason string // what happened: one clause, lower case, no period
	Rule   string // the rule that spoke, such as "sales-report/permit"
	Detail string // what would have been allowed
	Hint   string // what to do next
	// Undefined is the kind of name that does not exist, with CodeUndefined.
	Undefined Undefined
	// Position is where in the statement, in characters from 1; 0 where nothing says so.
	Position int
	// After is when the same is worth another try; 0 where nothing says so.
	After time.Duration
	Cause error // for operators' logs only
}

func (r *Refusal) Error() string { return r.Reason }

func (r *Refusal) Unwrap() error { return r.Cause }

// AsRefusal returns the Refusal in err's chain. An error without one becomes
// CodeUnavailable with a text that says nothing of its cause.
func AsRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Code: CodeUnavailable, Reason: "the gateway could not do this safely", Hint: "try again; if it stays, tell the operators when it happened", Cause: err}
}
