package publish

import (
	"cmp"
	"iter"
	"slices"
	"sync"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

// A layer is an immutable set of items in order of ref.
type layer struct{ items []*item }

// newLayer sorts the items, and answers with old where it holds just the same.
func newLayer(items []*item, old *layer) *layer {
	slices.SortFunc(items, func(a, b *item) int { return cmp.Compare(a.ref, b.ref) })
	if old != nil && slices.Equal(items, old.items) {
		return old
	}
	return &layer{items}
}

// diff yields what is new or changed in to, and what of from is gone.
func diff(from, to *layer) (put []*item, removed []*item) {
	if from == to {
		return nil, nil
	}
	var a []*item
	if from != nil {
		a = from.items
	}
	b := to.items
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].ref < b[0].ref:
			removed, a = append(removed, a[0]), a[1:]
		case len(a) == 0 || b[0].ref < a[0].ref:
			put, b = append(put, b[0]), b[1:]
		default:
			if a[0] != b[0] {
				put = append(put, b[0])
			}
			a, b = a[1:], b[1:]
		}
	}
	return put, removed
}

// A content is all that a node can hold. Contents are equal when they hold the same
// layers, so comparing two is comparing pointers.
type content struct {
	urgent *layer // locks and ended grants, the same for every node
	scoped *layer // the rest, by what the node reaches
	keys   *Keys
}

// A state is a content as of a version. The zero state is that of a cold node.
type state struct {
	version postern.Version
	content
}

func (s state) isZero() bool { return s.scoped == nil }

// A published is a state that nodes are to reach. It is immutable.
type published struct {
	state
	hash func() object.Hash // of its objects; found once
}

func newPublished(s state) *published {
	return &published{state: s, hash: sync.OnceValue(func() object.Hash { return object.HashSet(objects(s.urgent, s.scoped)) })}
}

// size is how many items it holds.
func (p *published) size() int { return len(p.urgent.items) + len(p.scoped.items) }

// objects are the objects of two layers in order of ref; ended grants are none.
func objects(a, b *layer) iter.Seq2[string, object.Hash] {
	return func(yield func(string, object.Hash) bool) {
		x, y := a.items, b.items
		for len(x) > 0 || len(y) > 0 {
			var next *item
			if len(y) == 0 || len(x) > 0 && x[0].ref < y[0].ref {
				next, x = x[0], x[1:]
			} else {
				next, y = y[0], y[1:]
			}
			if next.plain != nil && !yield(next.ref, next.hash) {
				return
			}
		}
	}
}

// update is what takes a node from one state to another, and says which version it then
// has; from the zero state it is a snapshot.
func update(from, to state, says postern.Version) *nodev1.Update {
	u := &nodev1.Update{
		Version:  &typesv1.Version{Epoch: says.Epoch, Revision: says.Revision},
		Snapshot: from.isZero(),
	}
	add := func(from, to *layer) {
		put, removed := diff(from, to)
		for _, it := range put {
			if it.end != nil {
				u.EndedGrants = append(u.EndedGrants, it.end)
			} else {
				u.Objects = append(u.Objects, it.plain)
			}
		}
		for _, it := range removed {
			if it.end == nil {
				u.Removed = append(u.Removed, it.ref)
			}
		}
	}
	add(from.urgent, to.urgent)
	add(from.scoped, to.scoped)
	if from.keys != to.keys {
		u.Issuers = to.keys.Issuers
		u.GrantKeys, u.ClientCas, u.SshUserCas, u.Ca, u.SshHostCa = to.keys.Grants, to.keys.ClientCAs, to.keys.SSHUserCAs, to.keys.House, to.keys.SSHHostCA
	}
	return u
}
