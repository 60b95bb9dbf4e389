package authz

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/postern"
)

// A limit bounds how often one subject, or one address of which nobody signed in, may call
// the methods that share its name.
type limit struct {
	name  string
	rate  rate.Limit // a second, in the long run
	burst int        // at once
}

// The limits.
var (
	LimitLogin    = limit{"login", 20, 200}    // how to sign in
	LimitExchange = limit{"exchange", 20, 200} // a grant for a token
	LimitAsk      = limit{"ask", 1, 60}        // people, for a grant
	LimitApprove  = limit{"approve", 5, 100}   // an answer to people
)

// maxBuckets bounds how many callers are counted at once; those who have not called for
// long are forgotten first.
const maxBuckets = 20_000

type bucketKey struct{ limit, who string }

// buckets count calls. They are safe for concurrent use.
type buckets struct {
	mu  sync.Mutex
	all map[bucketKey]*rate.Limiter
}

// take counts one call of somebody, and says no where it is one too many.
func (b *buckets) take(l limit, who string, now time.Time) error {
	if l.name == "" {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k := bucketKey{l.name, who}
	one := b.all[k]
	if one == nil {
		if len(b.all) >= maxBuckets {
			b.forget(now)
		}
		if b.all == nil {
			b.all = make(map[bucketKey]*rate.Limiter)
		}
		one = rate.NewLimiter(l.rate, l.burst)
		b.all[k] = one
	}
	if one.AllowN(now, 1) {
		return nil
	}
	wait := time.Duration((1 - one.TokensAt(now)) / float64(l.rate) * float64(time.Second))
	return fault.New(codes.ResourceExhausted, "limit %q: %s may do this %d times at once and then %v times a second; try again in %s", l.name, who, l.burst, l.rate, wait.Round(100*time.Millisecond)).WithKind(postern.CodeLimit.String())
}

// forget drops the buckets that are full again: nothing is lost with them. Where none is,
// all are dropped: a flood of callers must not fill the memory.
func (b *buckets) forget(now time.Time) {
	for k, one := range b.all {
		if one.TokensAt(now) >= float64(one.Burst()) {
			delete(b.all, k)
		}
	}
	if len(b.all) >= maxBuckets {
		clear(b.all)
	}
}

// counted is under which name calls are counted: of the caller, or of the address where
// nobody signed in.
func counted(c *Caller, address string) string {
	if c != nil && c.Subject.Name != "" {
		return c.Subject.Name
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	return fmt.Sprintf("the address %.60s", host)
}

// Limited is a page or endpoint beside the methods that asks for no token, within a limit
// for each address.
func (i *Interceptor) Limited(l limit, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := i.buckets.take(l, counted(nil, r.RemoteAddr), i.cfg.Now()); err != nil {
			w.Header().Set("Retry-After", "1")
			http.Error(w, fault.From(err).Reason, http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r)
	})
}
