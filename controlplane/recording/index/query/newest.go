package query

import (
	"cmp"
	"slices"

	"github.com/posterngate/postern/controlplane/recording/index"
)

// A hit is a statement that is asked for.
type hit struct {
	no     int64 // of its session
	id     string
	row    index.Row
	day    int64
	packed *index.Packed // instead of row, whose text is yet to be read
	spot   spot
}

// A spot is where a statement stands in an answer.
type spot struct {
	at     int64 // microseconds
	id     string
	number uint64
}

func (s spot) compare(o spot) int {
	return cmp.Or(cmp.Compare(s.at, o.at), cmp.Compare(s.id, o.id), cmp.Compare(s.number, o.number))
}

func (s spot) less(o spot) bool { return s.compare(o) < 0 }

// newest keeps the newest of the hits that it is given.
type newest struct {
	limit int
	hits  []hit
	cut   bool
	floor spot // of the oldest that is kept, once some were left out
}

func (n *newest) add(h hit) {
	if n.cut && h.spot.less(n.floor) {
		return
	}
	if n.hits = append(n.hits, h); len(n.hits) >= 2*n.limit {
		n.sort()
	}
}

// full reports whether nothing older than the floor can count.
func (n *newest) full() bool {
	if !n.cut && len(n.hits) >= n.limit {
		n.sort()
	}
	return n.cut
}

func (n *newest) sort() {
	slices.SortFunc(n.hits, func(a, b hit) int { return b.spot.compare(a.spot) })
	if len(n.hits) >= n.limit {
		clear(n.hits[n.limit:])
		n.hits = n.hits[:n.limit]
		n.cut, n.floor = true, n.hits[n.limit-1].spot
	}
}

// sorted are the hits that count, the newest first.
func (n *newest) sorted() []hit {
	n.sort()
	return n.hits
}
