package credential

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// Kind is the kind of the ledger's entries in the store.
const Kind = "lease"

// state is where a lease stands.
type state string

const (
	stateIntent      state = "intent"      // nothing done yet
	stateToken       state = "token"       // the source has given what a handle undoes
	stateActive      state = "active"      // lent
	stateRevoking    state = "revoking"    // must end
	stateRevoked     state = "revoked"     // ended before its time
	stateExpired     state = "expired"     // its time was over
	stateIrrevocable state = "irrevocable" // the source would not end it: for people
)

// arrows are the only changes that the ledger makes; each is one compare-and-swap. Where
// nothing is made for a loan it becomes active at once, and ends at once.
var arrows = map[state][]state{
	"":            {stateIntent, stateActive},
	stateIntent:   {stateToken, stateActive, stateRevoking},
	stateToken:    {stateToken, stateActive, stateRevoking},
	stateActive:   {stateActive, stateRevoking, stateRevoked, stateExpired},
	stateRevoking: {stateRevoking, stateRevoked, stateExpired, stateIrrevocable},
	stateRevoked:  {stateIntent, stateActive},
	stateExpired:  {stateIntent, stateActive},
}

// lending reports whether a source may be at work for the lease.
func (s state) lending() bool { return s == stateIntent || s == stateToken }

func (s state) ended() bool {
	return s == stateRevoked || s == stateExpired || s == stateIrrevocable
}

// lease is one entry of the ledger. It holds no credential.
type lease struct {
	id       postern.LeaseID
	revision int64            // of the entry; 0 for one that does not exist
	subject  *typesv1.Subject // of the grant, while the credential is made

	State    state                `json:"state"`
	Node     postern.NodeName     `json:"node"`
	Process  string               `json:"process,omitempty"` // of the node
	Session  postern.SessionID    `json:"session"`
	Grant    postern.GrantID      `json:"grant,omitempty"`
	Task     postern.TaskName     `json:"task,omitempty"`
	Resource postern.ResourceName `json:"resource"`
	Purpose  string               `json:"purpose"`
	Source   string               `json:"source"`
	Where    string               `json:"where"` // path or secret, for people
	Account  string               `json:"account,omitempty"`
	Handle   []byte               `json:"handle,omitempty"` // sealed by the Keeper
	Created  time.Time            `json:"created"`
	Updated  time.Time            `json:"updated"`
	Until    time.Time            `json:"until"`             // the absolute end
	Expires  time.Time            `json:"expires"`           // the end if it is not renewed
	Bound    time.Time            `json:"bound,omitzero"`    // the source's own end
	Reason   string               `json:"reason,omitempty"`  // why it ends
	Tries    int                  `json:"tries,omitempty"`   // to revoke
	NextTry  time.Time            `json:"nextTry,omitzero"`  // to revoke
	Problem  string               `json:"problem,omitempty"` // the last try's error
}

// leaseID is the one name of a session's lease, so that asking twice finds it.
func leaseID(node postern.NodeName, session postern.SessionID, purpose string) postern.LeaseID {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s", node, session, purpose))
	return postern.LeaseID("l-" + hex.EncodeToString(sum[:12]))
}

// ledger keeps leases in the store.
type ledger struct {
	store  store.Store
	keeper Keeper
	now    func() time.Time
}

func (l ledger) key(id postern.LeaseID) store.Key { return store.Key{Kind: Kind, Name: string(id)} }

// get reads one lease; store.ErrNotFound where there is none.
func (l ledger) get(ctx context.Context, id postern.LeaseID) (lease, error) {
	e, err := l.store.Get(ctx, l.key(id))
	if err != nil {
		return lease{}, err
	}
	return decode(e)
}

// all reads those of these leases that there are.
func (l ledger) all(ctx context.Context, ids ...postern.LeaseID) ([]lease, error) {
	keys := make([]store.Key, len(ids))
	for i, id := range ids {
		keys[i] = l.key(id)
	}
	entries, err := l.store.GetAll(ctx, keys...)
	if err != nil {
		return nil, err
	}
	found := make([]lease, len(entries))
	for i, e := range entries {
		if found[i], err = decode(e); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func decode(e store.Entry) (lease, error) {
	var one lease
	if err := json.Unmarshal(e.Value, &one); err != nil {
		return lease{}, fmt.Errorf("lease %s is unreadable: %w", e.Name, err)
	}
	one.id, one.revision = postern.LeaseID(e.Name), e.Revision
	return one, nil
}

// move writes the lease in a new state, if the entry is as it was read; change edits
// the lease first. Further operations stand or fall with it. A *store.ConflictError
// means that somebody else moved it.
func (l ledger) move(ctx context.Context, one *lease, to state, change func(*lease), with ...store.Op) error {
	if !slices.Contains(arrows[one.State], to) {
		return fmt.Errorf("lease %s cannot go from %q to %q", one.id, one.State, to)
	}
	next := *one
	next.State, next.Updated = to, l.now()
	if change != nil {
		change(&next)
	}
	value, err := json.Marshal(next)
	if err != nil {
		return err
	}
	op := store.Op{Key: l.key(one.id), Value: value, If: one.revision}
	if next.revision, err = l.store.Commit(ctx, append(with, op)...); err != nil {
		return fmt.Errorf("write lease %s as %s: %w", one.id, to, err)
	}
	*one = next
	return nil
}

// Under lists the leases that these grants have on the ledger, by id.
func (b *Broker) Under(ctx context.Context, grants []*typesv1.Grant) ([]*apiv1.LeaseStatus, error) {
	of := make(map[postern.GrantID]bool, len(grants))
	for _, g := range grants {
		of[postern.GrantID(g.GetId())] = true
	}
	if len(of) == 0 {
		return nil, nil
	}
	entries, _, err := b.cfg.Store.List(ctx, Kind, "", 0)
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var out []*apiv1.LeaseStatus
	for _, e := range entries {
		one, err := decode(e)
		if err != nil { // which is seen to by nobody; the others are
			b.cfg.Logger.WarnContext(ctx, "a lease is damaged and passed over", "error", err)
			continue
		}
		if of[one.Grant] {
			out = append(out, &apiv1.LeaseStatus{
				Id: string(one.id), Grant: string(one.Grant), Session: string(one.Session), Node: string(one.Node),
				Resource: string(one.Resource), Account: one.Account, State: string(one.State),
			})
		}
	}
	return out, nil
}

func handleAAD(id postern.LeaseID) []byte { return []byte("lease/" + string(id) + "/handle") }

// seal hides a handle: with an accessor, one could end or look at somebody's token.
func (l ledger) seal(ctx context.Context, id postern.LeaseID, handle []byte) ([]byte, error) {
	if len(handle) == 0 {
		return nil, nil
	}
	sealed, err := l.keeper.Seal(ctx, handle, handleAAD(id))
	if err != nil {
		return nil, fmt.Errorf("seal the handle of lease %s: %w", id, err)
	}
	return sealed, nil
}

func (l ledger) open(ctx context.Context, one lease) ([]byte, error) {
	if len(one.Handle) == 0 {
		return nil, nil
	}
	handle, err := l.keeper.Open(ctx, one.Handle, handleAAD(one.id))
	if err != nil {
		return nil, fmt.Errorf("open the handle of lease %s: %w", one.id, err)
	}
	return handle, nil
}

// Lent is a lease as the ledger tells of it, for people.
type Lent struct {
	ID              postern.LeaseID
	Node            postern.NodeName
	Grant           postern.GrantID
	Task            postern.TaskName
	Resource        postern.ResourceName
	Account         string
	Purpose, Source string
	Where           string // path or secret
	Session         postern.SessionID
	Live            bool // it is out, or may be
	Made            bool // the account was made for this loan, and goes with it
	Created         time.Time
	Until           time.Time // the absolute end
	State           string
}

// made reports whether a source makes a login, or a token, for each lease.
func made(l *lease) bool {
	return l.Source == sourceWall || l.Source == sourceOAuth || l.Source == sourceVault && (strings.Contains(l.Where, "/creds/") || strings.Contains(l.Where, "/sign/"))
}

// read reports whether what a source lends is there already and stays as it is: nothing is
// made for a loan that would have to be undone.
func read(source string) bool { return source == sourceSealed }

// Lent lists all leases of a resource that the ledger has and whose account is known,
// those that ended within the hour among them, as far as they are kept.
func (b *Broker) Lent(ctx context.Context, r postern.ResourceName) ([]Lent, error) {
	return b.Loans(ctx, func(l *Lent) bool { return l.Resource == r && l.Account != "" })
}

// Loans lists the leases of the ledger that are to be kept.
func (b *Broker) Loans(ctx context.Context, keep func(*Lent) bool) ([]Lent, error) {
	entries, _, err := b.cfg.Store.List(ctx, Kind, "", 0)
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var out []Lent
	for _, e := range entries {
		one, err := decode(e)
		if err != nil {
			return nil, err
		}
		l := Lent{
			one.id, one.Node, one.Grant, one.Task, one.Resource, one.Account, one.Purpose, one.Source, one.Where, one.Session,
			!one.State.ended(), made(&one), one.Created, one.Until, string(one.State),
		}
		if keep(&l) {
			out = append(out, l)
		}
	}
	return out, nil
}
