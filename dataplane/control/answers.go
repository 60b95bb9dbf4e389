package control

import (
	"crypto/sha256"
	"sync"
	"time"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// maxAnswers bounds the grants that may be opened again without asking.
	maxAnswers = 4096
	// maxReuse bounds for how long, whatever the control plane says.
	maxReuse = time.Minute
	// heardWithin is how lately the node must have heard from the control plane for that: it
	// asks each second.
	heardWithin = 2500 * time.Millisecond
)

// answers are grants that the control plane has opened here a moment ago. What it said is
// gone by again for as long as it has allowed, and only while nothing has changed since it
// was asked: one update of policy, a lock, a grant that ended somewhere, or a stream that
// broke, and everybody is asked for again. It is safe for concurrent use.
type answers struct {
	mu   sync.Mutex
	kept map[asked]answer
}

// asked is what a client has shown, and what for.
type asked struct {
	token          [sha256.Size]byte
	task, resource string
}

type answer struct {
	grant *postern.Grant
	until time.Time
	at    moment
}

// A moment is what an answer was given under. The zero moment is none.
type moment struct {
	link    *link
	updates uint64 // that were applied
}

// moment is that of now; zero where the control plane does not answer.
func (c *Client) moment() moment {
	c.mu.Lock()
	up := c.up
	c.mu.Unlock()
	if up == nil || c.Staleness() > heardWithin {
		return moment{}
	}
	return moment{up, c.cfg.Snapshot.Updates()}
}

// askedBy is what a request shows. It is false for certificates, which are asked for each
// time.
func askedBy(r *nodev1.OpenGrantRequest) (asked, bool) {
	ok := r.GetToken() != "" && len(r.GetClientCertificate()) == 0 && len(r.GetSshCertificate()) == 0
	return asked{sha256.Sum256([]byte(r.GetToken())), r.GetTask(), r.GetResource()}, ok
}

// find is the grant that was opened for just this, or nil.
func (a *answers) find(what asked, at moment, now time.Time) *postern.Grant {
	if at == (moment{}) {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	had, ok := a.kept[what]
	switch {
	case !ok:
		return nil
	case had.at != at || !now.Before(had.until) || !now.Before(had.grant.End):
		delete(a.kept, what)
		return nil
	}
	return had.grant
}

// keep remembers an answer.
func (a *answers) keep(what asked, is answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.kept == nil || len(a.kept) >= maxAnswers {
		a.kept = map[asked]answer{}
	}
	a.kept[what] = is
}
