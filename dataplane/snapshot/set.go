package snapshot

import (
	"maps"
	"slices"
	"strings"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

// A set is some objects, by "kind/name". It is immutable; the zero set is empty.
type set struct {
	entries map[string]entry
	refs    []string // in order
}

type entry struct {
	object *typesv1.Object
	hash   object.Hash
}

func isLock(ref string) bool { return strings.HasPrefix(ref, "lock/") }

// says reports whether an update says anything of locks, or of the rest.
func says(u *nodev1.Update, locks bool) bool {
	return slices.ContainsFunc(u.GetRemoved(), func(ref string) bool { return isLock(ref) == locks }) ||
		slices.ContainsFunc(u.GetObjects(), func(o *typesv1.Object) bool { return (o.GetLock() != nil) == locks })
}

// with is the set after what u says of locks, or of the rest. It is s itself where that is
// nothing.
func (s set) with(u *nodev1.Update, locks bool) (set, error) {
	if !says(u, locks) {
		return s, nil
	}
	next := maps.Clone(s.entries)
	if next == nil {
		next = make(map[string]entry, len(u.GetObjects()))
	}
	for _, ref := range u.GetRemoved() {
		if isLock(ref) == locks {
			delete(next, ref)
		}
	}
	for _, o := range u.GetObjects() {
		if (o.GetLock() != nil) != locks {
			continue
		}
		ref := object.Ref(o)
		hash, err := object.HashOf(o)
		if err != nil {
			return set{}, err
		}
		next[ref] = entry{o, hash}
	}
	return set{next, slices.Sorted(maps.Keys(next))}, nil
}

// rehash is s with every hash found anew.
func (s set) rehash() (set, error) {
	fresh := make(map[string]entry, len(s.entries))
	for ref, e := range s.entries {
		hash, err := object.HashOf(e.object)
		if err != nil {
			return set{}, err
		}
		fresh[ref] = entry{e.object, hash}
	}
	return set{fresh, s.refs}, nil
}

func (s set) objects() []*typesv1.Object {
	list := make([]*typesv1.Object, 0, len(s.refs))
	for _, ref := range s.refs {
		list = append(list, s.entries[ref].object)
	}
	return list
}

// hashOf is over both sets in one order.
func hashOf(a, b set) object.Hash {
	return object.HashSet(func(yield func(string, object.Hash) bool) {
		x, y := a.refs, b.refs
		for len(x) > 0 || len(y) > 0 {
			next, of := &x, a
			if len(x) == 0 || len(y) > 0 && y[0] < x[0] {
				next, of = &y, b
			}
			ref := (*next)[0]
			*next = (*next)[1:]
			if !yield(ref, of.entries[ref].hash) {
				return
			}
		}
	})
}
