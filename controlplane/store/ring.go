package store

import (
	"cmp"
	"slices"
)

// ring keeps the last changes, so that whoever saw an earlier version need not read
// everything again. Its bounds are on revisions and on bytes.
type ring struct {
	most    int // revisions
	batches []Batch
	bytes   int
	floor   int64 // everything after this revision is here
}

const (
	ringRevisions = 8192
	fewRevisions  = 256 // where nobody asks what happened
	ringBytes     = 64 << 20
)

func (r *ring) reset(floor int64) { *r = ring{most: r.most, floor: floor} }

func size(b Batch) int {
	n := 0
	for _, e := range b.Events {
		n += len(e.Value) + len(e.Name) + 64
	}
	return n
}

func (r *ring) add(b Batch) {
	if len(b.Events) == 0 {
		return
	}
	r.batches = append(r.batches, b)
	r.bytes += size(b)
	for len(r.batches) > r.most || r.bytes > ringBytes {
		old := r.batches[0]
		r.batches[0] = Batch{} // the array lives on for a while
		r.batches = r.batches[1:]
		r.bytes -= size(old)
		r.floor = old.Revision
	}
}

// since are the events after a revision; false where some are no longer here.
func (r *ring) since(revision int64) ([]Event, bool) {
	if revision < r.floor {
		return nil, false
	}
	first, _ := slices.BinarySearchFunc(r.batches, revision+1, func(b Batch, rev int64) int { return cmp.Compare(b.Revision, rev) })
	var events []Event
	for _, b := range r.batches[first:] {
		events = append(events, b.Events...)
	}
	return events, true
}
