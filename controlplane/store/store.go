// Package store is where the control plane keeps its state: small values by kind and
// name, changed only by transactions that say which revision they expect. No type of
// the implementation shows here. storetest holds every implementation to this contract.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// Limits of one name, of one value and of one transaction.
const (
	MaxNameBytes   = 512
	MaxValueBytes  = 64 << 10
	MaxOps         = 100
	MaxCommitBytes = 1 << 20 // of all values together
)

// KindEpoch is the kind of the one value that holds the epoch, so that one read of it
// tells both the epoch and the revision of the store.
const KindEpoch = "epoch"

// CheckOps says what is wrong with the operations of a transaction, or nil: every Store
// calls it before it sends anything.
func CheckOps(ops []Op) error {
	if len(ops) == 0 {
		return errors.New("store: an empty transaction")
	}
	if len(ops) > MaxOps {
		return fmt.Errorf("store: %d operations are more than the %d of one transaction", len(ops), MaxOps)
	}
	seen := make(map[Key]bool, len(ops))
	total := 0
	for _, o := range ops {
		if err := o.Key.check(); err != nil {
			return err
		}
		if len(o.Value) > MaxValueBytes {
			return fmt.Errorf("store: the value of %s has %d bytes, more than %d", o.Key, len(o.Value), MaxValueBytes)
		}
		if seen[o.Key] {
			return fmt.Errorf("store: %s is named twice in one transaction", o.Key)
		}
		seen[o.Key] = true
		total += len(o.Value)
	}
	if total > MaxCommitBytes {
		return fmt.Errorf("store: the transaction carries %d bytes, more than %d", total, MaxCommitBytes)
	}
	return nil
}

func (k Key) check() error {
	if k.Kind == "" || strings.ContainsAny(k.Kind, "/\x00") || k.Name == "" || len(k.Name) > MaxNameBytes {
		return fmt.Errorf("store: %.80q is not a key: a kind without slashes and a name of 1 to %d bytes", k.String(), MaxNameBytes)
	}
	return nil
}

// Errors of a Store.
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

// IsConflict reports whether err is a ConflictError: somebody else was first.
func IsConflict(err error) bool {
	var c *ConflictError
	return errors.As(err, &c)
}

// maxTries bounds how often a change is tried that others get ahead of.
const maxTries = 10

// Again tries a change anew, from reading what it rests on, while others get ahead of it. An
// error of which IsConflict is true says that they always did.
func Again[T any](try func() (T, error)) (T, error) {
	for range maxTries - 1 {
		if v, err := try(); !IsConflict(err) {
			return v, err
		}
	}
	return try()
}

// A Store keeps values. It is safe for concurrent use. Every read is linearizable.
type Store interface {
	// Get reads one value, or ErrNotFound.
	Get(ctx context.Context, k Key) (Entry, error)
	// GetAll reads those of these values that exist, as of one moment and in the order of
	// keys, of which there are at most MaxOps.
	GetAll(ctx context.Context, keys ...Key) ([]Entry, error)
	// List reads up to limit values of a kind in order of name, beginning after the
	// name given; limit 0 means all. The revision is that of the whole store at the
	// read; all pages of a listing without a limit are of one revision.
	List(ctx context.Context, kind, after string, limit int) (entries []Entry, revision int64, err error)
	// Commit makes all changes or none, and returns the revision that has them; no key
	// may be named twice. A *ConflictError names the first Op whose If did not hold. After
	// any other error the changes may have been made or not: read again.
	Commit(ctx context.Context, ops ...Op) (revision int64, err error)
	// Watch tells every change of these kinds (all where none is given) from revision
	// from on, including it; 0 means from now on. A revision that the store has not reached
	// yet is ErrCompacted: it is of another epoch. The Watcher ends with ctx.
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
	// of one; on a quiet store a batch without events about each second. ErrCompacted means
	// that changes were missed: list again. The Watcher is of no use after an error, but for the
	// end of ctx where it is not that of the watch: the next call tells what comes.
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
	Entry   // for a deletion, Value is nil and Revision that of the deletion
	Deleted bool
}
