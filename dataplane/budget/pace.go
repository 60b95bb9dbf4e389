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

// Allow counts one statement at now, or reports that it is too soon for it, and after what
// time it would not be; 0 is never. Where policy has changed the rate, it counts anew.
func (p *Pace) Allow(now time.Time, r policy.Rate) (ok bool, after time.Duration) {
	if r.N <= 0 {
		return true, 0
	}
	if p == nil {
		return false, 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of != r {
		p.of, p.bucket = r, rate.NewLimiter(rate.Limit(float64(r.N)/r.Per.Seconds()), r.N)
	}
	if p.bucket.AllowN(now, 1) {
		return true, 0
	}
	missing := 1 - p.bucket.TokensAt(now)
	return false, time.Duration(missing / float64(r.N) * float64(r.Per))
}
