package authz

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/pkg/fault"
)

// LoginAction is the audit entry of a token that is seen for the first time.
const LoginAction = "login"

// maxLogins bounds the tokens that are remembered; past it some are told once more.
const maxLogins = 20_000

// logins are the tokens that the audit log knows of, by their hash, with their ends. It
// is safe for concurrent use.
type logins struct {
	mu   sync.Mutex
	seen map[[sha256.Size]byte]time.Time
}

// first reports whether a token is seen for the first time.
func (l *logins) first(hash [sha256.Size]byte, until, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.seen[hash]; known {
		return false
	}
	if len(l.seen) >= maxLogins {
		for h, end := range l.seen {
			if !end.After(now) {
				delete(l.seen, h)
			}
		}
	}
	if len(l.seen) >= maxLogins || l.seen == nil {
		l.seen = make(map[[sha256.Size]byte]time.Time)
	}
	l.seen[hash] = until
	return true
}

func (l *logins) forget(hash [sha256.Size]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.seen, hash)
}

// login tells the audit log of a token that this process has not seen before: signing in
// happens at the issuer, and this is the first that the house learns of it.
func (i *Interceptor) login(ctx context.Context, c *Caller, bearer string) error {
	hash := sha256.Sum256([]byte(bearer))
	if !i.logins.first(hash, c.Expires, i.cfg.Now()) {
		return nil
	}
	detail := map[string]any{"groups": c.Subject.Groups, "mfa": c.Subject.MFA, "roles": c.RoleNames()}
	if !c.Expires.IsZero() {
		detail["until"] = c.Expires.UTC()
	}
	err := i.cfg.Audit.Append(ctx, audit.Entry{Actor: c.Subject.Name, Actors: c.Subject.Actors(), Address: c.Address, Action: LoginAction, Object: "subject/" + c.Subject.Name, Detail: detail})
	if err != nil {
		i.logins.forget(hash)
		return fault.Wrap(err, codes.Unavailable, "the login could not be written to the audit log, and so it does not count; try again")
	}
	return nil
}
