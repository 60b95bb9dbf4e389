package userapi

import (
	"iter"
	"slices"
	"sync"

	"github.com/posterngate/postern/controlplane/store"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

// decoded remembers what entries of the replica mean, so that one change does not read
// ten thousand objects anew. Its objects are shared and never changed.
type decoded struct {
	mu    sync.Mutex
	kept  map[store.Key]kept
	bound int // how many are kept before the next look at which are still there
}

type kept struct {
	revision int64
	object   *typesv1.Object
	shown    *typesv1.Object // as it is answered; nil before somebody asked
}

// object reads an entry; nil where it cannot be read, which is as if it were not there.
func (d *decoded) object(e store.Entry) *typesv1.Object {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.read(e).object
}

// answer is an entry as it is answered; nil where it cannot be read.
func (d *decoded) answer(e store.Entry) *typesv1.Object {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.read(e)
	if k.shown == nil && k.object != nil {
		k.shown = shown(k.object)
		d.kept[e.Key] = k
	}
	return k.shown
}

// read is what is kept of an entry; d.mu is held.
func (d *decoded) read(e store.Entry) kept {
	if k, ok := d.kept[e.Key]; ok && k.revision == e.Revision {
		return k
	}
	o, err := store.DecodeObject(e)
	if err != nil {
		return kept{}
	}
	if d.kept == nil {
		d.kept = make(map[store.Key]kept)
	}
	k := kept{revision: e.Revision, object: o}
	d.kept[e.Key] = k
	return k
}

// prune drops what is no longer there, once that may be half of it all.
func (d *decoded) prune(v *store.View) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.kept) < d.bound {
		return
	}
	for k := range d.kept {
		if _, ok := v.Get(k); !ok {
			delete(d.kept, k)
		}
	}
	d.bound = 2*len(d.kept) + pruneSlack
}

const pruneSlack = 1000

// world is every policy object: those of a view, with changes laid over it. It is an
// authz.World.
type world struct {
	view    *store.View
	decoded *decoded
	changed map[store.Key]*typesv1.Object // nil for what is deleted
}

// with is w after more changes.
func (w world) with(changed map[store.Key]*typesv1.Object) world {
	w.changed = changed
	return w
}

// entry is the stored entry of an object, whatever is laid over it.
func (w world) entry(k store.Key) (store.Entry, bool) { return w.view.Get(k) }

// Lookup implements authz.World.
func (w world) Lookup(kind, name string) *typesv1.Object {
	k := store.Key{Kind: kind, Name: name}
	if o, ok := w.changed[k]; ok {
		return o
	}
	if e, ok := w.view.Get(k); ok {
		return w.decoded.object(e)
	}
	return nil
}

// All implements authz.World.
func (w world) All(kind string) iter.Seq[*typesv1.Object] {
	return func(yield func(*typesv1.Object) bool) {
		for e := range w.view.All(kind) {
			if _, ok := w.changed[e.Key]; ok {
				continue
			}
			if o := w.decoded.object(e); o != nil && !yield(o) {
				return
			}
		}
		for k, o := range w.changed {
			if k.Kind == kind && o != nil && !yield(o) {
				return
			}
		}
	}
}

// everything is every object.
func (w world) everything() []*typesv1.Object {
	var all []*typesv1.Object
	for _, kind := range object.Kinds() {
		all = slices.AppendSeq(all, w.All(kind))
	}
	return all
}
