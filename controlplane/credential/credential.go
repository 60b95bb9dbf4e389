// Package credential lends credentials to nodes. The Broker keeps a ledger of leases in
// the store, written ahead of every step, so that whatever was lent is taken back: by
// the node that releases it, or by the sweeper when a lease is not renewed, its grant is
// over, or a control plane died half-way. The credential itself is sealed to the node's
// key and never logged; of it a Source may keep, sealed, what ends it. Where credentials come from is left to Sources; who
// may lend to whom is asked of Policy.
package credential

import (
	"context"
	"errors"
	"log/slog"
	"time"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"

	"github.com/posterngate/postern/controlplane/store"
)

// A Source lends credentials of one kind. It is safe for concurrent use. Its errors
// never carry a secret.
type Source interface {
	// Issue makes or reads a credential that ends at r.Until or before.
	Issue(ctx context.Context, r Request) (Issued, error)
	// Renew has the credential live until the time given, or as long as the source
	// allows, and returns until when it does.
	Renew(ctx context.Context, handle []byte, until time.Time) (time.Time, error)
	// Revoke ends the credential now. One that has ended already is no error.
	Revoke(ctx context.Context, handle []byte) error
}

// Request asks a Source for one credential.
type Request struct {
	Ref      *typesv1.CredentialRef // nil where the login is made by the resource's wall
	Lease    postern.LeaseID
	Grant    postern.GrantID
	Task     postern.TaskName // of the grant
	Subject  *typesv1.Subject // of the grant
	Resource postern.ResourceName
	Node     postern.NodeName
	Until    time.Time        // the absolute end: of the grant, for a session
	Host     policy.HostLogin // what a login at a host must be good for
	// Record keeps a handle by which Revoke undoes all that was done so far. A Source
	// calls it before it does what a crash must not leave behind.
	Record func(ctx context.Context, handle []byte) error
}

// Issued is what a Source lends. The receiver wipes it.
type Issued struct {
	Credential *nodev1.Credential
	Handle     []byte    // what Renew and Revoke need; nil where there is nothing to undo
	Expires    time.Time // when the source ends it; zero where it does not
}

// Policy says what is allowed. It answers from memory.
type Policy interface {
	// Resource is the resource as it is enforced, if the node may serve it.
	Resource(node postern.NodeName, r postern.ResourceName) (*typesv1.Resource, bool)
	// Login is the credential that sessions of the task use on the resource; nil where
	// the resource's wall makes each a login. It is false where the task does not reach
	// the resource.
	Login(t postern.TaskName, r postern.ResourceName) (*typesv1.CredentialRef, bool)
	// HostLogin is what a login of the task must be good for at a host.
	HostLogin(t postern.TaskName) policy.HostLogin
	// Tokens are the masks of method token of a task, by name.
	Tokens(t postern.TaskName) map[string]*postern.MaskRule
	// Grant is the grant, or a fault.Error of code NotFound.
	Grant(ctx context.Context, id postern.GrantID) (*typesv1.Grant, error)
	// Locked says why nothing is lent for a resource through a node under a grant now, or
	// nothing where no lock stands.
	Locked(g *typesv1.Grant, r postern.ResourceName, node postern.NodeName) string
	// Alone is how long a node may go on with sessions of a task while it does not hear
	// from the control plane; of no task, how long it may by default.
	Alone(t postern.TaskName) time.Duration
}

// A Keeper seals small values at rest. What was sealed opens only with the same aad.
type Keeper interface {
	Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	Open(ctx context.Context, sealed, aad []byte) ([]byte, error)
}

// Config is what a Broker needs. The durations have defaults.
type Config struct {
	Store  store.Store
	Policy Policy
	Keeper Keeper // seals handles before they touch the store
	Vault  Source // for references to Vault; nil refuses them
	Sealed Source // for references to Secret objects; nil refuses them
	OAuth  Source // for references to authorization servers; nil refuses them
	Wall   Source // for logins that the resource's wall makes; nil refuses them
	// Key reads the key of a mask from a Secret object; the caller wipes it. Nil where
	// there are none.
	Key    func(ctx context.Context, name string) (secret.Bytes, error)
	Logger *slog.Logger
	Now    func() time.Time // time.Now where nil
	// Last is the process of a node that was heard of last, when its stream was opened and
	// when it said something last; zero where nothing is known.
	Last func(node postern.NodeName) (process string, joined, seen time.Time)

	// TTL is how long a lease lives without a renewal where its task does not promise
	// more; 5 minutes where 0. The lease of a node that has been silent for longer than it
	// may go on alone ends before.
	TTL time.Duration
	// CatalogTTL is the absolute end of a lease for a catalogue or a wall; 15 minutes where 0.
	CatalogTTL time.Duration
	// Sweep is how often the sweeper looks; 5 seconds where 0.
	Sweep time.Duration
}

// Bounds that are no matter of taste.
const (
	// issueTimeout bounds one lending, from the first step to the last. Nothing that it
	// began is undone before: a source may still be at it, and what it makes after its
	// handle was revoked would be nobody's.
	issueTimeout = 30 * time.Second
	// awaySlack is how much later than the store says a node may have been heard of, and
	// for clocks that differ.
	awaySlack = 6 * time.Second
	// renewLeast is how much of a lease is left at the least when it is renewed for the last
	// time, where its source cannot give more.
	renewLeast = 5 * time.Second
	// revokeTimeout bounds one try to revoke.
	revokeTimeout = 15 * time.Second
	// replayWindow is how long an answer is kept for a node that asks again.
	replayWindow = time.Minute
	// overrun is how long after its end a source may still know a credential.
	overrun = time.Minute
	// giveUp is how long after that the sweeper goes on trying to revoke.
	giveUp = 10 * time.Minute
	// keepEnded is how long ended leases stay in the ledger, and maxEnded how many do: what
	// is kept for people to look at does not grow with how many sessions there are.
	keepEnded = time.Hour
	maxEnded  = 2000
	// revokers is how many leases the sweeper ends at once.
	revokers = 16
	// maxID bounds ids that nodes send.
	maxID = 128
)

// Purposes of a lease.
const (
	PurposeSession = "session"
	PurposeCatalog = "catalog"
	PurposeAdmin   = "admin" // for walls, and they borrow nothing else
)

// A Broker lends credentials and takes them back. It is safe for concurrent use.
type Broker struct {
	cfg     Config
	ledger  ledger
	locks   keyedLocks
	replies replies
}

// New makes a Broker.
func New(cfg Config) (*Broker, error) {
	if cfg.Store == nil || cfg.Policy == nil || cfg.Keeper == nil || cfg.Logger == nil {
		return nil, errors.New("credential: store, policy, keeper and logger are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Last == nil {
		cfg.Last = func(postern.NodeName) (string, time.Time, time.Time) { return "", time.Time{}, time.Time{} }
	}
	for d, value := range map[*time.Duration]time.Duration{
		&cfg.TTL: 5 * time.Minute, &cfg.CatalogTTL: 15 * time.Minute, &cfg.Sweep: 5 * time.Second,
	} {
		if *d == 0 {
			*d = value
		}
	}
	return &Broker{cfg: cfg, ledger: ledger{store: cfg.Store, keeper: cfg.Keeper, now: cfg.Now}}, nil
}

// source picks the Source of a reference.
func (b *Broker) source(name string) Source {
	switch name {
	case sourceVault:
		return b.cfg.Vault
	case sourceSealed:
		return b.cfg.Sealed
	case sourceWall:
		return b.cfg.Wall
	case sourceOAuth:
		return b.cfg.OAuth
	}
	return nil
}

const (
	sourceVault  = "vault"
	sourceSealed = "sealed"
	sourceWall   = "wall"
	sourceOAuth  = "oauth"
)

// sourceOf names the source of a reference, and where in it the credential lies.
func sourceOf(ref *typesv1.CredentialRef) (source, where string) {
	v, o := ref.GetVault(), ref.GetOauth()
	switch {
	case v != nil && ref.GetSealed() != "" || o != nil && (v != nil || ref.GetSealed() != ""):
		return "", ""
	case o != nil:
		return sourceOAuth, o.GetSecret() + " at " + o.GetTokenUrl()
	case v.GetRole() != "":
		return sourceVault, v.GetMount() + "/creds/" + v.GetRole()
	case v.GetSshRole() != "":
		return sourceVault, v.GetMount() + "/sign/" + v.GetSshRole()
	case v.GetStaticRole() != "":
		return sourceVault, v.GetMount() + "/static-creds/" + v.GetStaticRole()
	case v != nil:
		return sourceVault, v.GetMount() + "/data/" + v.GetPath()
	case ref.GetSealed() != "":
		return sourceSealed, ref.GetSealed()
	}
	return "", ""
}
