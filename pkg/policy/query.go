package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// A Query asks whether one connection or one statement may go through. The zero Query
// is denied.
type Query struct {
	Grant    *postern.Grant
	Resource postern.ResourceName
	Node     postern.NodeName
	Facts    Facts // nil for DecideConnect
	Request  Request
	Usage    Usage
	// Covered is the version up to which the node enforces everything, where that is
	// beyond the snapshot's own: nothing that concerns the node has changed since.
	Covered postern.Version
	// EstimatedRows is what the target's planner estimates; nil where nobody asked it.
	// Decision.Missing asks for it.
	EstimatedRows *int64
}

// Facts are what an engine found out about a statement: *sql.Facts, *ssh.Facts or
// *http.Facts and *mcp.Facts. Any other are not understood, and so denied.
type Facts interface {
	// Effect is the worst that the statement may do.
	Effect() postern.Effect
}

// Request is what is known of the way in which the subject asks.
type Request struct {
	Time    time.Time
	Address string // of the client, with or without a port
	Region  string // of the node
	Client  string // the program that the client names
	Ticket  string
	Reason  string
}

// Usage is what a grant or session has used so far, whichever its limits count.
type Usage struct {
	Rows, Bytes, Statements int64
	Age                     time.Duration // since the grant began
}

// Terms are the parsed terms of a task. Durations of 0 and counts of -1 mean no bound,
// but for Duration, MaxStaleness and SessionGrace, which are always set.
type Terms struct {
	Purpose                                   string
	Duration, StatementTimeout, Idle, Session time.Duration
	Rows, Bytes, Statements, Sessions         int64
	Rate                                      Rate // of statements, of a grant at a node; zero bounds nothing
	PerGrant                                  bool // rows, bytes and statements are counted per grant, not per session
	RecordRead, RecordWrite                   RecordMode
	ResultRows                                int  // rows of each result that are kept; 0 keeps none
	StoreRaw                                  bool // what masks of a node hide is kept apart
	Pool                                      bool // one lease a grant and node, not one a session
	MaxStaleness, SessionGrace                time.Duration
	ReadOnly                                  bool // nothing that is permitted can change data
	Unrestricted                              bool // everything is permitted, unmasked
}

// Rate is so many at once, and so many more in each span of time.
type Rate struct {
	N   int
	Per time.Duration
}

func (r Rate) String() string {
	return fmt.Sprintf("%d in %s", r.N, map[time.Duration]string{time.Second: "a second", time.Minute: "a minute", time.Hour: "an hour"}[r.Per])
}

// maxRate is the most that a rate may say.
const maxRate = 1_000_000

// parseRate reads "20/s", "100/m" or "1000/h"; nothing is the zero Rate.
func parseRate(s string) (Rate, error) {
	if s == "" {
		return Rate{}, nil
	}
	count, span, _ := strings.Cut(s, "/")
	n, err := strconv.Atoi(count)
	per := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[span]
	if err != nil || n < 1 || n > maxRate || per == 0 || strconv.Itoa(n) != count {
		return Rate{}, fmt.Errorf("%q is not a rate such as 20/s, 100/m or 1000/h", s)
	}
	return Rate{n, per}, nil
}

// RecordMode says how durable a record must be before a statement is forwarded.
type RecordMode uint8

// The modes, from the strictest.
const (
	Remote RecordMode = iota // acked by storage
	Disk                     // synced to the node's disk
	Local                    // survives the process
	Async                    // at most 200 ms are lost
)

func (m RecordMode) String() string {
	switch m {
	case Disk:
		return "disk"
	case Local:
		return "local"
	case Async:
		return "async"
	case Remote:
	}
	return "remote"
}

// What Decision.Rule says of denials that are not the policy's usual no; a gate maps
// them to the protocol's own errors.
const (
	// LimitsSuffix ends the Rule of a denial because a limit is used up.
	LimitsSuffix = "/limits"
	// LockPrefix begins the Rule of a denial by a Lock; its name follows.
	LockPrefix = "lock/"
	// GrantPrefix begins the Rule of a denial because the grant is missing, over, or
	// newer than this node's policy.
	GrantPrefix = "grant/"
)

// An Offer is a task that a binding offers to a subject.
type Offer struct {
	Task      postern.TaskName
	Binding   string
	Purpose   string
	Resources []postern.ResourceName // sorted
	Approval  *postern.Approval      // nil: taken at once
	Duration  time.Duration          // of a grant
	Expires   time.Time              // of the binding; zero means never
	Bound     *typesv1.GrantBound    // what the grant ends with; nil: nothing
}

// A RoleGrant is a role that a subject has over Postern itself.
type RoleGrant struct {
	Role    string            // viewer, operator, auditor, rawreader or admin
	Scope   map[string]string // labels that objects must carry; empty means all
	Binding string            // the RoleBinding that gives it
}
