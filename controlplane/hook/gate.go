package hook

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// Before it is known who signed a message a secret is read: so many times a second for one
	// address, and for all together from which nothing good has come.
	messageRate   = 50
	strangersRate = 200
	// atOnce is how many seconds' worth may come at once.
	atOnce = 4
	// maxSenders bounds the addresses that are counted.
	maxSenders = 4096
	// An address is a network of this size: who has one has all of it.
	bitsV6 = 64
)

// A Gate bounds how many messages are looked at before it is known who sent them. Strangers
// have room of their own, so that they take none from who has sent something good. It is safe
// for concurrent use.
type Gate struct {
	each      int
	mu        sync.Mutex
	senders   map[netip.Prefix]*sender
	strangers *rate.Limiter
}

// A sender is an address that messages came from.
type sender struct {
	bucket *rate.Limiter
	known  bool // a good one came
}

// NewGate makes a Gate that nothing has come through: so many messages a second from each
// address, and from all strangers together.
func NewGate(each, strangers int) *Gate {
	return &Gate{each: each, senders: map[netip.Prefix]*sender{}, strangers: limiter(strangers)}
}

func limiter(each int) *rate.Limiter { return rate.NewLimiter(rate.Limit(each), atOnce*each) }

// MessageGate is the Gate before what is signed with a secret.
func MessageGate() *Gate { return NewGate(messageRate, strangersRate) }

// Allow counts a message, and reports whether it may be looked at.
func (g *Gate) Allow(r *http.Request, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	from := network(r)
	s := g.senders[from]
	if s == nil {
		if len(g.senders) >= maxSenders {
			g.forget(now)
		}
		s = &sender{bucket: limiter(g.each)}
		g.senders[from] = s
	}
	return s.bucket.AllowN(now, 1) && (s.known || g.strangers.AllowN(now, 1))
}

// Good notes that a message was good.
func (g *Gate) Good(r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.senders[network(r)]; s != nil {
		s.known = true
	}
}

// forget makes room: strangers go first, and all of them, for what is counted of them
// together stays.
func (g *Gate) forget(now time.Time) {
	for from, s := range g.senders {
		if !s.known {
			delete(g.senders, from)
		}
	}
	for from, s := range g.senders {
		if len(g.senders) < maxSenders {
			return
		}
		if s.bucket.TokensAt(now) >= float64(s.bucket.Burst()) {
			delete(g.senders, from)
		}
	}
	if len(g.senders) >= maxSenders {
		clear(g.senders)
	}
}

// network is where a request came from. What is no address is one network.
func network(r *http.Request) netip.Prefix {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = bitsV6
	}
	p, _ := addr.Prefix(bits) // of an address without a zone
	return p
}
