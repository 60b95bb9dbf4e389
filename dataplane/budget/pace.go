package budget

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/posterngate/postern/pkg/policy"
)

// A Pace bounds how many statements the sessions of a grant begin in a time, at this node. It
// is safe for concurrent use; nil lets nothing pass that a rate bounds.
type Pace struct {
	mu     sync.Mutex
	of     policy.Rate
	bucket *rate.Limiter
}

// Allow counts one statement at now, or reports that it is too soon for it. Where policy has
// changed the rate, it counts anew.
func (p *Pace) Allow(now time.Time, r policy.Rate) bool {
	if r.N <= 0 {
		return true
	}
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of != r {
		p.of, p.bucket = r, rate.NewLimiter(rate.Limit(float64(r.N)/r.Per.Seconds()), r.N)
	}
	return p.bucket.AllowN(now, 1)
}
