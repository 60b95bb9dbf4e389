package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// A catalog is what is known of one database, with the look-ups that the wire needs. It
// is immutable; a refresh that finds nothing new keeps it. What is judged by it keeps its
// mark: the catalogue itself is kept by being the current one, and by what is under way.
type catalog struct {
	*sql.Catalog
	mark  mark
	byOID map[uint32]*sql.Relation
	types map[uint32]typeName
}

// A mark tells one catalogue from all others, also once that is gone, and does not keep it.
type mark = weak.Pointer[catalog]

type typeName struct {
	sql.Name
	sql.TypeInfo
}

func newCatalog(c *sql.Catalog) *catalog {
	cat := &catalog{Catalog: c, byOID: make(map[uint32]*sql.Relation, len(c.Relations)), types: make(map[uint32]typeName, len(c.Types))}
	for _, r := range c.Relations {
		cat.byOID[r.OID] = r
	}
	for n, t := range c.Types {
		cat.types[t.OID] = typeName{n, t}
	}
	cat.mark = weak.Make(cat)
	return cat
}

// firstUserOID is the first number that the target gives to objects of users.
const firstUserOID = 16384

// parameter reports whether a client may declare a parameter of this type. A domain
// runs its checks, and whatever holds a domain does too, so that of the users' types
// only enums and base types, and arrays of these, are taken; and none that users have
// defined casts for, which a text does not show.
func (c *catalog) parameter(oid uint32) bool {
	if oid < firstUserOID {
		return true
	}
	t, ok := c.types[oid]
	if !ok || len(c.Casts[t.Name]) > 0 {
		return false
	}
	if t.Element >= firstUserOID {
		t, ok = c.types[t.Element]
	}
	return ok && (t.Kind == 'e' || t.Kind == 'b')
}

// resolution is what beside the catalogue decides what a name means.
type resolution struct {
	user string
	path []string
}

// key is the part of a Statement's context that r makes. The user counts only where the
// path speaks of it, so that accounts that live for one session share what is cached.
func (r resolution) key() string {
	k := strings.Join(r.path, "\x00")
	if strings.Contains(k, "$user") {
		k += "\x00" + r.user
	}
	return k
}

// catalogKey names what a catalogue is of.
func catalogKey(t *engine.Terms) string {
	return string(t.Resource) + "\x00" + t.Host + ":" + strconv.Itoa(t.Port) + "/" + t.Database
}

const (
	// catalogDue is after which time a catalogue is compared with the target.
	catalogDue = 30 * time.Second
	// catalogAge is for how long it is believed while that does not succeed, or goes on.
	catalogAge = 2 * catalogDue
	// catalogRetry is how long nobody tries again after that.
	catalogRetry = 2 * time.Second
	// catalogDoubt is for how long a name that it does not have is believed not to exist.
	catalogDoubt = time.Second
)

// catalogs keeps one catalogue a database, for all sessions.
type catalogs struct {
	engine *Engine

	mu    sync.Mutex
	slots map[string]*slot
}

// A slot is one database's. turn is held by the one who reads it anew.
type slot struct {
	turn    chan struct{}
	catalog atomic.Pointer[catalog] // that was read last, however old it is; stored under mu

	mu      sync.Mutex // guards what follows
	state   string     // of the rows that it was made of
	read    time.Time
	failed  time.Time // when it could not be compared
	expired uint64    // counts how often it was found to be out of date
}

func (cs *catalogs) slot(key string) *slot {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	sl := cs.slots[key]
	if sl == nil {
		sl = &slot{turn: make(chan struct{}, 1)}
		cs.slots[key] = sl
	}
	return sl
}

// known is the catalogue, if it may be used: while it is fresh, or not too old either.
func (sl *slot) known(fresh bool) *catalog {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	age := time.Since(sl.read)
	if age >= catalogAge || fresh && age >= catalogDue && time.Since(sl.failed) >= catalogRetry {
		return nil
	}
	return sl.catalog.Load()
}

// doubtful reports whether a name that is missed may have been defined since.
func (sl *slot) doubtful() bool {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	return time.Since(sl.read) >= catalogDoubt && time.Since(sl.failed) >= catalogRetry
}

// unread notes that the catalogue could not be compared, and is what may be used all the
// same.
func (sl *slot) unread() *catalog {
	sl.mu.Lock()
	sl.failed = time.Now()
	sl.mu.Unlock()
	return sl.known(false)
}

// expire makes the next get read the catalogue anew.
func (cs *catalogs) expire(key string) {
	sl := cs.slot(key)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.read = time.Time{}
	sl.expired++
}

// get returns a catalogue of at most catalogAge. Where one is due it is compared over a
// connection of s, and read anew if it has changed; others go on with what is known, or
// wait where nothing is.
func (cs *catalogs) get(ctx context.Context, key string, s engine.Session) (*catalog, error) {
	sl := cs.slot(key)
	if c := sl.known(true); c != nil {
		return c, nil
	}
	select {
	case sl.turn <- struct{}{}:
	default:
		if c := sl.known(false); c != nil {
			return c, nil
		}
		select {
		case sl.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer func() { <-sl.turn }()
	if c := sl.known(true); c != nil {
		return c, nil
	}
	return cs.compare(ctx, sl, s)
}

// again is like get for somebody who misses a name: the catalogue is compared unless that was
// done a moment ago.
func (cs *catalogs) again(ctx context.Context, key string, s engine.Session) (*catalog, error) {
	sl := cs.slot(key)
	select {
	case sl.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-sl.turn }()
	if c := sl.known(true); c != nil && !sl.doubtful() {
		return c, nil
	}
	return cs.compare(ctx, sl, s)
}

// compare reads the catalogue anew if it has changed. The caller has the turn.
func (cs *catalogs) compare(ctx context.Context, sl *slot, s engine.Session) (*catalog, error) {
	began := time.Now() // what changes while it is read is not known to be in it
	sl.mu.Lock()
	known, expired := sl.state, sl.expired
	sl.mu.Unlock()
	read, state, err := cs.engine.readCatalog(ctx, s, known)
	if err != nil {
		if c := sl.unread(); c != nil && ctx.Err() == nil {
			cs.engine.log.Warn("the catalogue could not be compared; it is believed a while longer", "resource", s.Terms().Resource, "error", err)
			return c, nil
		}
		return nil, &postern.Refusal{
			Code: postern.CodeUnavailable, Reason: fmt.Sprintf("the names of resource %q cannot be read, so that no statement can be judged", s.Terms().Resource),
			Hint: "tell the operators", Cause: err,
		}
	}
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.expired == expired {
		sl.read = began
	}
	last := sl.catalog.Load()
	if read == nil {
		return last, nil
	}
	sl.state = state
	if last == nil || last.Version != read.Version {
		last = newCatalog(read)
		sl.catalog.Store(last)
		cs.engine.shelf.clear() // it rests on those before
		cs.engine.log.Info("catalogue read", "resource", s.Terms().Resource, "relations", len(read.Relations), "took", time.Since(began))
	}
	return last, nil
}
