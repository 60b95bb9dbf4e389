package gate

import (
	"sync"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// Bounds of a Cache. Longer texts are judged each time: they are rare and large.
const (
	maxCachedText    = 16 << 10 // bytes
	maxCachedEntries = 4096     // per generation
)

// A Cache keeps what was judged, by full text, so that a collision can never grant. It
// is of one snapshot, whatever its locks: a new one empties it. Entries that are used stay, the rest go
// when a generation is full. It is safe for concurrent use.
type Cache struct {
	mu         sync.RWMutex
	snapshot   *policy.Snapshot
	young, old map[cacheKey]*engine.Admission
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
	if len(k.text) > maxCachedText {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.snapshot.SameRules(s) {
		c.snapshot = s
		c.young, c.old = map[cacheKey]*engine.Admission{}, nil
	}
	if len(c.young) >= maxCachedEntries {
		c.young, c.old = map[cacheKey]*engine.Admission{}, c.young
	}
	c.young[k] = a
}
