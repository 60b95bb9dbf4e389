package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/store"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

// Fits reports whether the store goes on where the log's folder ends. It does not where one
// of them was put back to a backup, or is another house's: then nothing may be written, and
// nobody let in, for what was taken back since would be good again, and nobody told.
func (l *Log) Fits(ctx context.Context) error {
	size, err := l.moved.Size() // before the store is asked, which has every entry first
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return l.fits(ctx, size)
}

func (l *Log) fits(ctx context.Context, size uint64) error {
	h, err := l.readHead(ctx)
	if err != nil {
		return err
	}
	if h.entry.GetSequence() < int64(size) {
		return fmt.Errorf("audit: the log holds %d entries and the store tells of %d: if the store was put back to a backup, run postern-control epoch", size, h.entry.GetSequence())
	}
	if size == 0 || l.moved == nil {
		return nil
	}
	e, err := l.store.Get(ctx, entryKey(int64(size)))
	if errors.Is(err, store.ErrNotFound) {
		return nil // trimmed up to here
	}
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return l.same(size, size, e.Value)
}

// same sees that the entry of a sequence is in the log's folder, of that size, what it is in
// the store.
func (l *Log) same(sequence, size uint64, stored []byte) error {
	for leaf, err := range l.moved.Leaves(sequence-1, size) {
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		if !bytes.Equal(leaf, stored) {
			return broken(int64(sequence), "the store and the log have two entries in its place")
		}
		break
	}
	return nil
}

// Resume lets a store that was put back to a backup go on behind what the log holds, and
// writes into the log that it was, under the name of its new epoch; no replica may run. Lost
// is called with each entry that the log holds and the store knows nothing of any more, in
// order; its error ends Resume. Entries that the store had since, and the log has not, stay.
func (l *Log) Resume(ctx context.Context, epoch string, lost func(*apiv1.AuditEntry) error) error {
	size, err := l.moved.Size()
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	h, err := l.readHead(ctx)
	if err != nil {
		return err
	}
	known := h.entry.GetSequence()
	if known >= int64(size) {
		if err := l.fits(ctx, size); err != nil {
			return err
		}
		return l.resume(ctx, h, epoch, known)
	}
	if known > 0 {
		e, err := l.store.Get(ctx, headKey())
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		if err := l.same(uint64(known), size, e.Value); err != nil {
			return err
		}
	}
	for leaf, err := range l.moved.Leaves(uint64(known), size) {
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		h.entry = &apiv1.AuditEntry{}
		if err := proto.Unmarshal(leaf, h.entry); err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		if err := lost(h.entry); err != nil {
			return err
		}
	}
	// The log has them all; behind a gap the store's would be no part of it.
	if err := l.trim(ctx, known); err != nil {
		return err
	}
	return l.resume(ctx, h, epoch, known)
}

// resume appends behind h that the store was put back, and knows the entries up to a sequence.
func (l *Log) resume(ctx context.Context, h *head, epoch string, known int64) error {
	ops, _, err := l.ops(h, Entry{
		Actor: "system", Action: "store.restore", Object: "store/" + epoch,
		Detail: map[string]any{"known": known, "lost": h.entry.GetSequence() - known},
	})
	if err != nil {
		return err
	}
	if _, err := l.store.Commit(ctx, ops...); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}
