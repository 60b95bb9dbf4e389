package approve

import (
	"maps"
	"slices"
	"sync"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// hub holds every hold as this replica saw it last, and tells who listens that one has
// changed. Holds in it are never changed in place. A listener hears which hold changed,
// never how: what it then reads is how things stand, so a slow one misses no outcome.
type hub struct {
	mu        sync.Mutex
	ready     chan struct{} // closed once the first listing is in
	holds     map[string]*typesv1.Hold
	listeners map[*listener]struct{}
	done      <-chan struct{} // closed when this replica ends
}

type listener struct {
	hub    *hub
	id     string        // of the one hold that it is about; empty is all
	waits  bool          // whether it stands for a session that waits
	signal chan struct{} // has one element when dirty is not empty
	dirty  map[string]struct{}
}

func newHub() *hub {
	return &hub{ready: make(chan struct{}), holds: map[string]*typesv1.Hold{}, listeners: map[*listener]struct{}{}}
}

func (h *hub) listen(id string, waits bool) *listener {
	l := &listener{hub: h, id: id, waits: waits, signal: make(chan struct{}, 1), dirty: map[string]struct{}{}}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners[l] = struct{}{}
	return l
}

// close ends l, and reports whether others wait for the same hold here.
func (l *listener) close() (others bool) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	delete(l.hub.listeners, l)
	for o := range l.hub.listeners {
		others = others || o.waits && o.id == l.id
	}
	return others
}

// take returns what has changed since the last take.
func (l *listener) take() []string {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	ids := slices.Sorted(maps.Keys(l.dirty))
	clear(l.dirty)
	return ids
}

// tell must be called with mu held.
func (h *hub) tell(id string) {
	for l := range h.listeners {
		if l.id != "" && l.id != id {
			continue
		}
		l.dirty[id] = struct{}{}
		select {
		case l.signal <- struct{}{}:
		default:
		}
	}
}

// replace sets all holds, after a listing.
func (h *hub) replace(holds map[string]*typesv1.Hold) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.holds
	h.holds = holds
	for id := range before {
		h.tell(id)
	}
	for id := range holds {
		if _, ok := before[id]; !ok {
			h.tell(id)
		}
	}
	select {
	case <-h.ready:
	default:
		close(h.ready)
	}
}

// set sets one hold; nil is gone.
func (h *hub) set(id string, hold *typesv1.Hold) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if hold == nil {
		delete(h.holds, id)
	} else {
		h.holds[id] = hold
	}
	h.tell(id)
}

// tellWaiting tells of everything that waits for people: whom it asks may be others now.
func (h *hub) tellWaiting() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, hold := range h.holds {
		if Waiting(hold) {
			h.tell(id)
		}
	}
}

func (h *hub) get(id string) *typesv1.Hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.holds[id]
}

func (h *hub) all() []*typesv1.Hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.holds))
}

// waitingUnder counts what waits for people under a grant, as far as this replica saw.
func (h *hub) waitingUnder(grant string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, hold := range h.holds {
		if hold.GetGrant() == grant && Waiting(hold) {
			n++
		}
	}
	return n
}

// under are the ids of what is open under a grant.
func (h *hub) under(grant string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ids []string
	for id, hold := range h.holds {
		if hold.GetGrant() == grant && open(hold) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (h *hub) endsWith(done <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = done
}

func (h *hub) ends() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done
}
