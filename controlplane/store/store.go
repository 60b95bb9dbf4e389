// Package store is where the control plane keeps its state: small values by kind and
// name, changed only by transactions that say which revision they expect. No type of
// the implementation shows here. storetest holds every implementation to this contract.
package store

import (
	"context"
	"errors"
	"fmt"
)

// Key names a value.
type Key struct{ Kind, Name string }

func (k Key) String() string { return k.Kind + "/" + k.Name }

// Entry is a value as it is stored.
type Entry struct {
	Key
	Value    []byte
	Revision int64 // of the last change; unique per transaction, and growing
}

// AnyRevision as Op.If asks for nothing.
const AnyRevision int64 = -1

// Op is one change of a transaction.
type Op struct {
	Key
	Value  []byte
	Delete bool
	Check  bool // change nothing, only require If
	// If is the revision that the key must have: 0 means that it must not exist,
	// AnyRevision that all will do.
	If int64
}

// Limits of one value and of one transaction.
const (
	MaxValueBytes = 64 << 10
	MaxOps        = 100
)

// Errors of a Store. A ConflictError is asked for with errors.As.
var (
	ErrNotFound  = errors.New("store: not found")
	ErrCompacted = errors.New("store: that revision has been compacted away")
)

// ConflictError says which key was not at the revision that a transaction expected.
type ConflictError struct {
	Key
	Want, Have int64
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("store: %s is at revision %d, not %d", e.Key, e.Have, e.Want)
}

// A Store keeps values. It is safe for concurrent use. Every read is linearizable.
type Store interface {
	// Get reads one value, or ErrNotFound.
	Get(ctx context.Context, k Key) (Entry, error)
	// List reads up to limit values of a kind in order of name, beginning after the
	// name given; limit 0 means all. The revision is that of the whole store at the
	// read; all pages of a listing without a limit are of one revision.
	List(ctx context.Context, kind, after string, limit int) (entries []Entry, revision int64, err error)
	// Commit makes all changes or none, and returns the revision that has them.
	Commit(ctx context.Context, ops ...Op) (revision int64, err error)
	// Watch tells every change of these kinds (all where none is given) from revision
	// from on, including it; 0 means from now on.
	Watch(ctx context.Context, from int64, kinds ...string) (Watcher, error)
	// Epoch is the random id under which revisions can be compared. A restore from
	// backup must renew it: NewEpoch.
	Epoch(ctx context.Context) (string, error)
	// NewEpoch makes and stores a new epoch.
	NewEpoch(ctx context.Context) (string, error)
	// Lead runs fn while this process leads the named election, again and again until
	// ctx is done. fn's ctx ends when leadership is lost. fn must use guard as one Op
	// of every Commit, so that a leader that was replaced changes nothing.
	Lead(ctx context.Context, name string, fn func(ctx context.Context, guard Op) error) error
	// Ping asks for a linearizable answer, for readiness.
	Ping(ctx context.Context) error
	Close() error
}

// A Watcher tells changes in order of revision. It is for one goroutine.
type Watcher interface {
	// Next waits for the next batch: all changes of one or more revisions, never a part
	// of one. ErrCompacted means that changes were missed: list again.
	Next(ctx context.Context) (Batch, error)
	Close()
}

// Batch is changes up to and including Revision. Without events it says only that
// nothing else happened up to there.
type Batch struct {
	Revision int64
	Events   []Event
}

// Event is one change.
type Event struct {
	Entry        // for a deletion, Value is nil and Revision that of the deletion
	Deleted bool
}
