package store

import (
	"iter"
	"slices"

	"github.com/posterngate/postern/pkg/postern"
)

// View is everything of some kinds at one version. It never changes; the values belong
// to it. The nil View is empty.
type View struct {
	version postern.Version
	kinds   map[string]*sorted
}

// Version is where the store was.
func (v *View) Version() postern.Version {
	if v == nil {
		return postern.Version{}
	}
	return v.version
}

// Get finds one entry.
func (v *View) Get(k Key) (Entry, bool) {
	if v == nil {
		return Entry{}, false
	}
	return v.kinds[k.Kind].get(k.Name)
}

// All are the entries of a kind in order of name.
func (v *View) All(kind string) iter.Seq[Entry] {
	if v == nil {
		return func(func(Entry) bool) {}
	}
	return v.kinds[kind].all()
}

// List is All as a new slice.
func (v *View) List(kind string) []Entry { return slices.Collect(v.All(kind)) }

// at is the same content at a later revision.
func (v *View) at(revision int64) *View {
	return &View{version: postern.Version{Epoch: v.version.Epoch, Revision: revision}, kinds: v.kinds}
}

// apply is v after the events of a batch.
func (v *View) apply(b Batch) *View {
	next := v.at(b.Revision)
	if len(b.Events) == 0 {
		return next
	}
	next.kinds = make(map[string]*sorted, len(v.kinds))
	for k, s := range v.kinds {
		next.kinds[k] = s
	}
	for _, ev := range b.Events {
		next.kinds[ev.Kind] = next.kinds[ev.Kind].with(ev)
	}
	return next
}

// diff is what happened from old to v, as events that came together at v's revision:
// the way over a gap in the history.
func (v *View) diff(old *View) []Event {
	var events []Event
	for kind := range v.kinds {
		for e := range v.All(kind) {
			if was, ok := old.Get(e.Key); !ok || was.Revision != e.Revision || string(was.Value) != string(e.Value) {
				events = append(events, Event{Entry: e})
			}
		}
		for e := range old.All(kind) {
			if _, ok := v.Get(e.Key); !ok {
				events = append(events, Event{Entry: Entry{Key: e.Key, Revision: v.version.Revision}, Deleted: true})
			}
		}
	}
	return events
}
