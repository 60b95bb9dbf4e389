package gate

import (
	"sync"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// Bounds of a Cache. Longer texts are judged each time: they are rare and large.
const (
	maxCachedText    = 16 << 10 // bytes
	maxCachedEntries = 4096     // per generation
	maxCachedBytes   = 32 << 20 // per generation
)

// A Cache keeps what was judged, by full text, so that a collision can never grant. It
// is of one snapshot, whatever its locks: a new one empties it. Entries that are used stay, the rest go
// when a generation is full. It is safe for concurrent use.
type Cache struct {
	mu         sync.RWMutex
	snapshot   *policy.Snapshot
	young, old map[cacheKey]*engine.Admission
	bytes      int // of young
}

// cacheKey is everything that a verdict without further dependencies rests on, beside
// the snapshot.
type cacheKey struct {
	grant    postern.GrantID
	resource postern.ResourceName
	context  string
	text     string
}

// NewCache makes an empty Cache.
func NewCache() *Cache {
	return &Cache{young: map[cacheKey]*engine.Admission{}}
}

func (c *Cache) get(s *policy.Snapshot, k cacheKey) *engine.Admission {
	c.mu.RLock()
	if !c.snapshot.SameRules(s) {
		c.mu.RUnlock()
		return nil
	}
	a, old := c.young[k], c.old[k]
	c.mu.RUnlock()
	if a == nil && old != nil {
		c.put(s, k, old)
		return old
	}
	return a
}

func (c *Cache) put(s *policy.Snapshot, k cacheKey, a *engine.Admission) {
	size := sizeOf(k, a)
	if len(k.text) > maxCachedText || size > maxCachedBytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.snapshot.SameRules(s) {
		c.snapshot = s
		c.young, c.old, c.bytes = map[cacheKey]*engine.Admission{}, nil, 0
	}
	if c.young[k] != nil {
		return // somebody else's, judged meanwhile
	}
	if len(c.young) >= maxCachedEntries || c.bytes+size > maxCachedBytes {
		c.young, c.old, c.bytes = map[cacheKey]*engine.Admission{}, c.young, 0
	}
	c.young[k] = a
	c.bytes += size
}

// sizeOf is roughly how many bytes an entry keeps.
func sizeOf(k cacheKey, a *engine.Admission) int {
	n := len(k.context) + len(k.text) + len(a.Forward)
	if ad, ok := a.Gate.(*admitted); ok {
		if f, ok := ad.facts.(*sql.Facts); ok && f != nil {
			n += f.Size()
		}
	}
	return n
}
