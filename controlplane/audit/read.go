package audit

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/trail"
)

// readPage is how many entries are read at once, and maxScan how many one List looks at.
const (
	readPage = 500
	maxScan  = 5000
)

// Query says which entries. The zero Query is the newest ones.
type Query struct {
	Actor  string
	Action string
	Object string    // entries about this object, maybe among others
	Since  time.Time // at or after
	Before int64     // only entries before this sequence; 0 means all
	Limit  int       // at most this many; 0 means 100
}

func (q Query) matches(e *apiv1.AuditEntry) bool {
	return (q.Action == "" || e.GetAction() == q.Action) && (q.Actor == "" || e.GetActor() == q.Actor || slices.Contains(e.GetActors(), q.Actor)) &&
		(q.Object == "" || slices.Contains(strings.Fields(e.GetObject()), q.Object))
}

// List reads entries, newest first. next is the Before of the next page, 0 where there
// is none; a page may be short, or empty, and still have a next one: no call looks at
// more than a few thousand entries.
func (l *Log) List(ctx context.Context, q Query) (entries []*apiv1.AuditEntry, next int64, err error) {
	if q.Limit <= 0 {
		q.Limit = 100
	}
	before := q.Before
	if before <= 0 {
		h, err := l.readHead(ctx)
		if err != nil {
			return nil, 0, err
		}
		before = h.entry.GetSequence() + 1
	}
	for scanned := 0; before > 1 && scanned < maxScan; {
		page, err := l.read(ctx, max(0, before-1-readPage), before)
		if err != nil {
			return nil, 0, err
		}
		for _, e := range slices.Backward(page) {
			if !q.Since.IsZero() && e.GetTime().AsTime().Before(q.Since) {
				return entries, 0, nil // older ones are older still
			}
			before = e.GetSequence()
			if q.matches(e) {
				entries = append(entries, e)
			}
			if len(entries) == q.Limit {
				return entries, nextOf(before), nil
			}
		}
		scanned += len(page)
	}
	return entries, nextOf(before), nil
}

// Tells reports whether an object was ever acted on so. It reads the log, back to where it
// was; all of it where it never was.
func (l *Log) Tells(ctx context.Context, action, object string) (bool, error) {
	for q := (Query{Action: action, Object: object, Limit: 1}); ; {
		entries, next, err := l.List(ctx, q)
		if err != nil || len(entries) > 0 || next == 0 {
			return len(entries) > 0, err
		}
		q.Before = next
	}
}

func nextOf(before int64) int64 {
	if before <= 1 {
		return 0
	}
	return before
}

// read reads the entries after one sequence and before another, and sees that none is
// missing.
func (l *Log) read(ctx context.Context, after, before int64) ([]*apiv1.AuditEntry, error) {
	n := int(before - after - 1)
	stored, _, err := l.store.List(ctx, KindEntry, entryKey(after).Name, n)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	values := make([][]byte, 0, n)
	if first := before; len(stored) < n || stored[0].Key != entryKey(after+1) {
		if len(stored) > 0 {
			if first, err = strconv.ParseInt(stored[0].Name, 10, 64); err != nil {
				return nil, broken(after+1, "the entry is missing")
			}
		}
		if values, err = l.gone(values, after, min(first, before)); err != nil {
			return nil, err
		}
	}
	for _, s := range stored[:min(len(stored), n-len(values))] {
		values = append(values, s.Value)
	}
	if len(values) < n {
		return nil, broken(after+int64(len(values))+1, "an entry is missing")
	}
	entries := make([]*apiv1.AuditEntry, n)
	for i, value := range values {
		want := after + int64(i) + 1
		e := &apiv1.AuditEntry{}
		if proto.Unmarshal(value, e) != nil || e.GetSequence() != want {
			return nil, broken(want, "the entry is missing, or cannot be read")
		}
		entries[i] = e
	}
	return entries, nil
}

// gone reads what has left the store after one sequence and before another.
func (l *Log) gone(values [][]byte, after, before int64) ([][]byte, error) {
	if l.moved == nil {
		return nil, broken(after+1, "the entry is missing")
	}
	size, err := l.moved.Size()
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if int64(size) < before-1 {
		return nil, broken(after+1, "the entry is missing, here and in the log's folder")
	}
	left := before - 1 - after
	for leaf, err := range l.moved.Leaves(uint64(after), size) { // the last ones are in files by their size
		if err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
		if left--; left < 0 {
			break
		}
		values = append(values, leaf)
	}
	return values, nil
}

// A BrokenError says where the log is not what was written.
type BrokenError = trail.BrokenError

func broken(sequence int64, why string) error {
	return &BrokenError{Sequence: sequence, Reason: why}
}

// Verify computes the chain anew, up to the newest entry, and returns that: its
// sequence and hash stand for the whole log. A *BrokenError says where it does not hold.
func (l *Log) Verify(ctx context.Context) (*apiv1.AuditEntry, error) {
	h, err := l.readHead(ctx)
	if err != nil {
		return nil, err
	}
	last := h.entry.GetSequence()
	var before []byte
	for after := int64(0); after < last; after += readPage {
		page, err := l.read(ctx, after, min(after+readPage, last)+1)
		if err != nil {
			return nil, err
		}
		for _, e := range page {
			if !bytes.Equal(e.GetHash(), trail.Chain(before, e)) {
				return nil, broken(e.GetSequence(), "its hash is not that of its content and of what came before")
			}
			before = e.GetHash()
		}
	}
	if !bytes.Equal(before, h.entry.GetHash()) {
		return nil, broken(last, "it is not the entry that was written last")
	}
	beyond, _, err := l.store.List(ctx, KindEntry, entryKey(last).Name, 1)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if len(beyond) > 0 {
		// Written since the head was read, or by somebody who passed it by.
		if again, err := l.readHead(ctx); err != nil || again.entry.GetSequence() == last {
			return nil, broken(last+1, "it is there and was never written")
		}
	}
	return h.entry, nil
}
