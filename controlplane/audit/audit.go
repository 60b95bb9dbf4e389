// Package audit keeps what people did to Postern: entries that are only ever appended,
// each chained to the one before by its hash, and written in the same transaction as
// the change they tell of. The store is their outbox: Drain moves them, in order and
// each once, into a Merkle log whose key no database holds, and then trims the store.
package audit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/store"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/trail"
)

// note is what a call tells the one who watches it.
type note struct{ wrote atomic.Bool }

// The kinds under which the log is kept: entries by their sequence, and a copy of the
// newest one, on whose revision every append depends.
const (
	KindEntry = "audit"
	KindHead  = "audithead"
)

// OutcomeOK is the outcome of what was done.
const OutcomeOK = "ok"

// Entry is one thing that somebody did, or tried to do, to Postern.
type Entry struct {
	Actor   string   // who; the subject's name, or such as "node/n1"
	Actors  []string // who acted for Actor, the nearest first; those of Through where nil
	Address string   // from where
	Action  string   // what: the RPC, or such as node.register
	Object  string   // to what, such as task/sales-report; several with a space between
	Outcome string   // OutcomeOK where empty, or why not
	Detail  any      // more, for readers: a message, map, slice or struct; kept as JSON without secrets

	changes []*apiv1.AuditChange
}

// Log is the audit log. It is safe for concurrent use.
type Log struct {
	store store.Store
	now   func() time.Time
	turn  chan struct{} // held by the one who appends: other replicas are contention enough
	head  *head         // the newest entry as far as is known; guarded by turn
	moved Moved         // where entries go from the store; nil while they stay there

	mu      sync.Mutex
	waiting []*waiter // entries of their own that nobody has taken yet
}

// A waiter is an entry on its way to be appended with others.
type waiter struct {
	entry Entry
	done  chan error
}

// Moved reads what has left the store. It is safe for concurrent use.
type Moved interface {
	// Size is how many entries there are; the entry of sequence n has the index n-1.
	Size() (uint64, error)
	// Leaves reads entries from an index on, up to a size.
	Leaves(from, size uint64) iter.Seq2[[]byte, error]
}

type head struct {
	revision int64
	entry    *apiv1.AuditEntry
}

// New opens the log in a store.
func New(s store.Store, now func() time.Time) *Log {
	return &Log{store: s, now: now, turn: make(chan struct{}, 1)}
}

// WithMoved lets the log read what has left the store. It is called before all else.
func (l *Log) WithMoved(m Moved) *Log {
	l.moved = m
	return l
}

func headKey() store.Key { return store.Key{Kind: KindHead, Name: "head"} }

func entryKey(sequence int64) store.Key {
	return store.Key{Kind: KindEntry, Name: fmt.Sprintf("%020d", sequence)}
}

// Op returns the operations that append e, for the Commit of the change that e tells
// of, and a function to call with the revision of that Commit. A ConflictError that
// IsConflict knows means that another entry was first: ask again. Commit does all of
// that; Op is for those who cannot use it.
func (l *Log) Op(ctx context.Context, e Entry) ([]store.Op, func(revision int64), error) {
	h, err := l.readHead(ctx)
	if err != nil {
		return nil, nil, err
	}
	ops, _, err := l.ops(h, e)
	return ops, func(int64) { noted(ctx) }, err
}

// ErrTooMuch is a change that, with what the log keeps of it, is more than one transaction.
var ErrTooMuch = errors.New("audit: the change and its before and after do not fit one transaction")

// IsConflict reports whether err says that another entry was appended first, and not
// that the change itself came too late.
func IsConflict(err error) bool {
	var c *store.ConflictError
	return errors.As(err, &c) && (c.Kind == KindHead || c.Kind == KindEntry)
}

func (l *Log) readHead(ctx context.Context) (*head, error) {
	e, err := l.store.Get(ctx, headKey())
	if errors.Is(err, store.ErrNotFound) {
		return &head{entry: &apiv1.AuditEntry{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	h := &head{revision: e.Revision, entry: &apiv1.AuditEntry{}}
	if err := proto.Unmarshal(e.Value, h.entry); err != nil {
		return nil, fmt.Errorf("audit: read the head: %w", err)
	}
	return h, nil
}

// ops appends e after h. Time never goes back within the log, whatever the clocks of
// replicas say, so that it can be searched by time.
func (l *Log) ops(h *head, e Entry) ([]store.Op, *apiv1.AuditEntry, error) {
	at := l.now()
	if last := h.entry.GetTime().AsTime(); h.revision != 0 && last.After(at) {
		at = last
	}
	if e.Outcome == "" {
		e.Outcome = OutcomeOK
	}
	next := &apiv1.AuditEntry{
		Sequence: h.entry.GetSequence() + 1, Time: timestamppb.New(at),
		Actor: short(e.Actor), Address: short(e.Address), Action: short(e.Action),
		Object: text(e.Object, maxObjects), Outcome: short(e.Outcome), Detail: detail(e.Detail),
		Changes: e.changes,
	}
	for _, a := range e.Actors[:min(len(e.Actors), maxActors)] {
		next.Actors = append(next.Actors, short(a))
	}
	next.Hash = trail.Chain(h.entry.GetHash(), next)
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(next)
	if err != nil {
		return nil, nil, fmt.Errorf("audit: %w", err)
	}
	return []store.Op{
		{Key: headKey(), Value: value, If: h.revision},
		{Key: entryKey(next.GetSequence()), Value: value},
	}, next, nil
}

const retryWait = 20 * time.Millisecond

// maxTogether is how many entries of their own go into one transaction; the longest
// of them must fit.
const maxTogether = 20

// Append appends an entry of its own. Entries that come at once share a transaction.
func (l *Log) Append(ctx context.Context, e Entry) error {
	w := &waiter{entry: e.through(ctx), done: make(chan error, 1)}
	l.mu.Lock()
	l.waiting = append(l.waiting, w)
	l.mu.Unlock()
	for {
		select {
		case err := <-w.done:
			if err == nil {
				noted(ctx)
			}
			return err
		case l.turn <- struct{}{}:
			l.appendWaiting(ctx)
			<-l.turn
		case <-ctx.Done():
			return l.giveUp(w, fmt.Errorf("audit: %w", context.Cause(ctx)))
		}
	}
}

// giveUp takes w back; where somebody is at work on it already, what comes of it counts.
func (l *Log) giveUp(w *waiter, err error) error {
	l.mu.Lock()
	i := slices.Index(l.waiting, w)
	if i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	}
	l.mu.Unlock()
	if i >= 0 {
		return err
	}
	return <-w.done
}

// appendWaiting appends a batch of those that wait; the turn is the caller's.
func (l *Log) appendWaiting(ctx context.Context) {
	l.mu.Lock()
	batch := slices.Clone(l.waiting[:min(len(l.waiting), maxTogether)])
	l.waiting = slices.Delete(l.waiting, 0, len(batch))
	l.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	entries := make([]Entry, len(batch))
	for i, w := range batch {
		entries[i] = w.entry
	}
	// The batch is not the caller's alone, so that it must not fail with the caller.
	together, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendTimeout)
	defer cancel()
	_, err := l.commit(together, entries, nil)
	for _, w := range batch {
		w.done <- err
	}
}

// appendTimeout bounds one transaction of a batch, and all its retries.
const appendTimeout = 10 * time.Second

// Commit makes the change of ops and appends e in one transaction, with what ops change,
// before and after; a long one takes several entries. ErrTooMuch says that it does not fit. Other entries that
// were first make it try again, until ctx is done; a ConflictError is always of ops.
func (l *Log) Commit(ctx context.Context, e Entry, ops ...store.Op) (int64, error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, fmt.Errorf("audit: %w", context.Cause(ctx))
	}
	defer func() { <-l.turn }()
	rev, err := l.commit(ctx, []Entry{e.through(ctx)}, ops)
	if err == nil {
		noted(ctx)
	}
	return rev, err
}

// commit makes the change and appends entries; the turn is the caller's.
func (l *Log) commit(ctx context.Context, entries []Entry, ops []store.Op) (int64, error) {
	for {
		if l.head == nil {
			h, err := l.readHead(ctx)
			if err != nil {
				return 0, err
			}
			l.head = h
		}
		all, last, err := l.together(ctx, l.head, entries, ops)
		if err != nil {
			return 0, err
		}
		l.head = nil // known again only after a success
		rev, err := l.store.Commit(ctx, all...)
		if err == nil {
			l.head = &head{rev, last}
			return rev, nil
		}
		if !IsConflict(err) {
			return 0, err
		}
		if !run.Pause(ctx, rand.N(retryWait)) {
			return 0, fmt.Errorf("audit: %w", context.Cause(ctx))
		}
	}
}

// Check says whether Commit of the same would be too much, ErrTooMuch, and makes no change.
func (l *Log) Check(ctx context.Context, e Entry, ops ...store.Op) error {
	h, err := l.readHead(ctx)
	if err != nil {
		return err
	}
	_, _, err = l.together(ctx, h, []Entry{e.through(ctx)}, ops)
	return err
}

// together is a change and its entries as one transaction, and the last of the entries. The
// change comes first, so that a conflict of its own is the one that is named.
func (l *Log) together(ctx context.Context, h *head, entries []Entry, ops []store.Op) ([]store.Op, *apiv1.AuditEntry, error) {
	changes, err := l.changesOf(ctx, ops)
	if err != nil {
		return nil, nil, fmt.Errorf("audit: read what is changed: %w", err)
	}
	told := entries
	if len(changes) > 0 {
		told = split(entries[0], changes) // a change has one entry
	}
	own, last, err := l.opsOf(h, told)
	if err != nil {
		return nil, nil, err
	}
	all := append(ops[:len(ops):len(ops)], own...)
	if len(told) > len(entries) && store.CheckOps(all) != nil {
		return nil, nil, ErrTooMuch
	}
	return all, last, nil
}

// opsOf appends entries after h.
func (l *Log) opsOf(h *head, entries []Entry) (ops []store.Op, last *apiv1.AuditEntry, err error) {
	at := &head{h.revision, h.entry}
	for _, e := range entries {
		own, next, err := l.ops(at, e)
		if err != nil {
			return nil, nil, err
		}
		if len(ops) > 0 {
			ops[0] = own[0] // the head is the last of them
		} else {
			ops = own[:1]
		}
		ops = append(ops, own[1])
		at.entry = next
	}
	return ops, at.entry, nil
}

// maxActors bounds the chain of those who act for one another in an entry.
const maxActors = 16

type throughKey struct{}

type through struct {
	actor  string
	actors []string
}

// Through returns a context in which what actor does is done by actors, the nearest first:
// every entry of actor's that is made under it says so.
func Through(ctx context.Context, actor string, actors []string) context.Context {
	if len(actors) == 0 {
		return ctx
	}
	return context.WithValue(ctx, throughKey{}, through{actor, actors})
}

// through is the entry with those who act for its actor.
func (e Entry) through(ctx context.Context) Entry {
	if by, ok := ctx.Value(throughKey{}).(through); ok && e.Actors == nil && e.Actor == by.actor {
		e.Actors = by.actors
	}
	return e
}

type noteKey struct{}

// Watched returns a context, and a function that tells whether an entry was appended
// under it: so that a call that wrote its own entry gets no second one.
func Watched(ctx context.Context) (context.Context, func() bool) {
	n := new(note)
	return context.WithValue(ctx, noteKey{}, n), n.wrote.Load
}

// Settled tells the one who watches ctx that the call needs no entry, for it changed
// nothing.
func Settled(ctx context.Context) { noted(ctx) }

func noted(ctx context.Context) {
	if n, ok := ctx.Value(noteKey{}).(*note); ok {
		n.wrote.Store(true)
	}
}

type tellKey struct{}

// Telling returns a context under which Before calls tell.
func Telling(ctx context.Context, tell func(ctx context.Context, before any) error) context.Context {
	return context.WithValue(ctx, tellKey{}, tell)
}

// Before writes the entry of a call, with how that was which it is about to change: for what
// is not kept in the store, and so cannot be changed and told of in one transaction. After
// an error it must not be done.
func Before(ctx context.Context, detail any) error {
	tell, ok := ctx.Value(tellKey{}).(func(context.Context, any) error)
	if !ok {
		return errors.New("audit: nobody writes down what is done under this context")
	}
	return tell(ctx, detail)
}
