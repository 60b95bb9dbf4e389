package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/store"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

// A Tree is the Merkle log, open for writing by one process. It is for one goroutine.
type Tree interface {
	// Size is how many leaves there are.
	Size(ctx context.Context) (uint64, error)
	// Append adds leaves, of which the first gets the index first, and returns once a
	// signed checkpoint tells of all of them. After an error some may have been added.
	Append(ctx context.Context, first uint64, leaves [][]byte) error
	Close(ctx context.Context) error
}

const (
	// restAfter is how long the tree stays open while nothing comes: an open one looks at its
	// files all the time. It is longer than the tree takes to remove what it needs no more.
	restAfter = 15 * time.Second
	drainPage = 200
	// keepInStore is how many of the newest entries stay in the store although the tree
	// has them, so that every replica answers for them quickly.
	keepInStore = 2000
	// trimPage is how many entries one transaction deletes.
	trimPage = store.MaxOps - 4
)

// trimmed is what the store keeps of entries that are gone from it.
type trimmed struct{ Through int64 }

func trimmedKey() store.Key { return store.Key{Kind: KindHead, Name: "trimmed"} }

// Drain moves entries to the tree, in order and each once, as soon as they are appended,
// until ctx is done, and trims the store. The index of a leaf is its sequence less one, so
// that whoever drains next begins with what is missing. Of all replicas the leader drains;
// one whose tree is not the log's changes nothing. The tree is opened for what there is to
// move, and closed while nothing comes.
func (l *Log) Drain(ctx context.Context, open func(ctx context.Context) (Tree, error)) error {
	return l.store.Lead(ctx, "auditlog", func(ctx context.Context, guard store.Op) error {
		w, err := l.store.Watch(ctx, 0, KindHead)
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		defer w.Close()
		for {
			revision, err := l.drainUntilRest(ctx, w, open, guard)
			if err == nil {
				err = appended(ctx, w, revision)
			}
			if err != nil {
				return err
			}
		}
	})
}

// drainUntilRest opens the tree and drains until nothing was appended for restAfter. The
// revision is that of the newest entry.
func (l *Log) drainUntilRest(ctx context.Context, w store.Watcher, open func(ctx context.Context) (Tree, error), guard store.Op) (revision int64, err error) {
	tree, err := open(ctx)
	if err != nil {
		return 0, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), appendTimeout)
		defer cancel()
		err = errors.Join(err, tree.Close(closing))
	}()
	if err := l.check(ctx, tree); err != nil {
		return 0, err
	}
	for {
		if revision, err = l.drain(ctx, tree, guard); err != nil {
			return 0, err
		}
		rest, cancel := context.WithTimeout(ctx, restAfter)
		err := appended(rest, w, revision)
		cancel()
		switch {
		case err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			return revision, nil
		case err != nil:
			return 0, err
		}
	}
}

// appended waits until an entry was appended after a revision, by whichever replica.
func appended(ctx context.Context, w store.Watcher, after int64) error {
	for {
		b, err := w.Next(ctx)
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		for _, e := range b.Events {
			if e.Key == headKey() && e.Revision > after {
				return nil
			}
		}
	}
}

// check sees that a tree is the one that the store was trimmed for, by what is in both.
func (l *Log) check(ctx context.Context, tree Tree) error {
	size, err := tree.Size(ctx)
	if err != nil {
		return err
	}
	gone, _, err := l.trimmed(ctx)
	if err != nil {
		return err
	}
	if int64(size) < gone.Through {
		return fmt.Errorf("audit: this folder holds %d entries of the log, and the store was trimmed of %d: it is not the log's folder, which all replicas must share", size, gone.Through)
	}
	return l.fits(ctx, size)
}

// drain moves what there is. The revision is that of the newest entry.
func (l *Log) drain(ctx context.Context, tree Tree, guard store.Op) (revision int64, err error) {
	h, err := l.readHead(ctx)
	if err != nil {
		return 0, err
	}
	last := h.entry.GetSequence()
	size, err := tree.Size(ctx)
	if err != nil {
		return 0, err
	}
	for int64(size) < last {
		leaves, err := l.leaves(ctx, int64(size), min(last-int64(size), drainPage))
		if err != nil {
			return 0, err
		}
		if err := tree.Append(ctx, size, leaves); err != nil {
			return 0, err
		}
		size += uint64(len(leaves))
	}
	return h.revision, l.trim(ctx, min(int64(size), last-keepInStore), guard)
}

// leaves are n entries behind a sequence, as they are stored.
func (l *Log) leaves(ctx context.Context, after, n int64) ([][]byte, error) {
	stored, _, err := l.store.List(ctx, KindEntry, entryKey(after).Name, int(n))
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if int64(len(stored)) < n {
		return nil, broken(after+int64(len(stored))+1, "an entry is missing")
	}
	leaves := make([][]byte, n)
	for i, s := range stored {
		e := &apiv1.AuditEntry{}
		if want := after + int64(i) + 1; s.Key != entryKey(want) || proto.Unmarshal(s.Value, e) != nil || e.GetSequence() != want {
			return nil, broken(want, "the entry is missing, or cannot be read")
		}
		leaves[i] = s.Value
	}
	return leaves, nil
}

func (l *Log) trimmed(ctx context.Context) (t trimmed, revision int64, err error) {
	e, err := l.store.Get(ctx, trimmedKey())
	if errors.Is(err, store.ErrNotFound) {
		return trimmed{}, 0, nil
	}
	if err == nil {
		err = json.Unmarshal(e.Value, &t)
	}
	if err != nil {
		return trimmed{}, 0, fmt.Errorf("audit: %w", err)
	}
	return t, e.Revision, nil
}

// trim deletes entries up to a sequence from the store, while the guards hold.
func (l *Log) trim(ctx context.Context, through int64, guards ...store.Op) error {
	t, revision, err := l.trimmed(ctx)
	if err != nil {
		return err
	}
	for t.Through < through {
		to := min(through, t.Through+trimPage)
		ops := slices.Clone(guards)
		for n := t.Through + 1; n <= to; n++ {
			ops = append(ops, store.Op{Key: entryKey(n), Delete: true, If: store.AnyRevision})
		}
		value, err := json.Marshal(trimmed{to})
		if err != nil {
			return err
		}
		if revision, err = l.store.Commit(ctx, append(ops, store.Op{Key: trimmedKey(), Value: value, If: revision})...); err != nil {
			return fmt.Errorf("audit: trim the store: %w", err)
		}
		t.Through = to
	}
	return nil
}
