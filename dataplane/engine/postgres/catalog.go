package postgres

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"weak"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// A catalog is what is known of one database, with the look-ups that the wire needs. It
// is immutable; a refresh that finds nothing new keeps it.
type catalog struct {
	*sql.Catalog
	byOID map[uint32]*sql.Relation
	types map[uint32]typeName
}

type typeName struct {
	sql.Name
	kind byte
}

func newCatalog(c *sql.Catalog) *catalog {
	cat := &catalog{Catalog: c, byOID: make(map[uint32]*sql.Relation, len(c.Relations)), types: make(map[uint32]typeName, len(c.Types))}
	for _, r := range c.Relations {
		cat.byOID[r.OID] = r
	}
	for n, t := range c.Types {
		cat.types[t.OID] = typeName{n, t.Kind}
	}
	return cat
}

// firstUserOID is the first number that the target gives to objects of users.
const firstUserOID = 16384

// parameter reports whether a client may declare a parameter of this type. A domain
// runs its checks, and whatever holds a domain does too, so that of the users' types
// only enums and base types, and arrays of these, are taken.
func (c *catalog) parameter(oid uint32) bool {
	if oid < firstUserOID {
		return true
	}
	t, ok := c.types[oid]
	if !ok {
		return false
	}
	if element, array := strings.CutPrefix(t.Name.Name, "_"); array && t.kind == 'b' {
		e, ok := c.Types[sql.Name{Schema: t.Schema, Name: element}]
		return ok && (e.Kind == 'e' || e.Kind == 'b')
	}
	return t.kind == 'e' || t.kind == 'b'
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
)

// catalogs keeps one catalogue a database, for all sessions.
type catalogs struct {
	engine *Engine

	mu    sync.Mutex
	slots map[string]*slot
}

// A slot is one database's. turn is held by the one who reads it anew.
type slot struct {
	turn chan struct{}

	mu      sync.Mutex
	catalog *catalog
	state   string // of the rows that it was made of
	read    time.Time
	failed  time.Time // when it could not be compared
	expired uint64    // counts how often it was found to be out of date
	made    []weak.Pointer[sql.Catalog]
	crowded time.Time // when too many of those made were last found in memory
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
	return sl.catalog
}

// unread notes that the catalogue could not be compared, and is what may be used all the
// same.
func (sl *slot) unread() *catalog {
	sl.mu.Lock()
	sl.failed = time.Now()
	sl.mu.Unlock()
	return sl.known(false)
}

// last is the catalogue that was read last, however old it is.
func (cs *catalogs) last(key string) *catalog {
	sl := cs.slot(key)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	return sl.catalog
}

// expire makes the next get read the catalogue anew.
func (cs *catalogs) expire(key string) {
	sl := cs.slot(key)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.read = time.Time{}
	sl.expired++
}

// crowded reports whether as many catalogues of a database are in memory as may be. It may
// take as long as collecting garbage does.
func (cs *catalogs) crowded(key string) bool {
	sl := cs.slot(key)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	most := cs.engine.limits.Catalogs
	if sl.alive() < most || time.Since(sl.crowded) < catalogRetry {
		return len(sl.made) >= most
	}
	runtime.GC() // those that nobody keeps are there until then
	if sl.alive() < most {
		return false
	}
	sl.crowded = time.Now()
	return true
}

// alive counts the catalogues that are in memory, and forgets the others. sl.mu is held.
func (sl *slot) alive() int {
	sl.made = slices.DeleteFunc(sl.made, func(c weak.Pointer[sql.Catalog]) bool { return c.Value() == nil })
	return len(sl.made)
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
	if read == nil {
		return sl.catalog, nil
	}
	sl.state = state
	if sl.catalog == nil || sl.catalog.Version != read.Version {
		sl.catalog = newCatalog(read)
		sl.alive()
		sl.made = append(sl.made, weak.Make(read))
		cs.engine.shelf.clear() // it rests on those before
		cs.engine.log.Info("catalogue read", "resource", s.Terms().Resource, "relations", len(read.Relations), "took", time.Since(began))
	}
	return sl.catalog, nil
}
