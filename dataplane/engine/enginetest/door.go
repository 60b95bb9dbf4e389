// Package enginetest holds every engine to the same promises. A Door stands in for the
// house: it opens sessions on a real target under a scripted policy, writes down what
// it was asked, and watches the way to the target for bytes that no admission covers.
// Run puts an engine through the promises that all protocols share; what is special to
// one protocol is tested beside its engine, with the same Door.
package enginetest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/posterngate/postern/dataplane/engine"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// Token is the only token that a Door believes.
const Token = "pst_test-token"

// A Policy is the script of a Door. It may be changed between statements with Door.Set.
type Policy struct {
	// Decide judges a statement; nil allows everything.
	Decide func(text string, facts any) postern.Decision
	// Rows and Bytes bound each execution; 0 means no bound.
	Rows, Bytes int64
	// Await is what people say to a held execution; nil says yes at once.
	Await func(ctx context.Context, progress func(string)) error
	// SignIn is what becomes of somebody who signs in elsewhere: it may tell where, and
	// wait; nil refuses.
	SignIn func(ctx context.Context, show func(engine.SignIn)) error
	// Version is the policy's version; changing it makes admissions stale.
	Version int64
	// Unrecordable makes every Admit fail.
	Unrecordable bool
	// Certificate is the one client certificate that is believed, where no token is shown.
	Certificate []byte
}

// A Door opens sessions on one target. It is safe for concurrent use.
type Door struct {
	tb    testing.TB
	terms engine.Terms
	cred  func(engine.Purpose) engine.Credential

	mu       sync.Mutex
	policy   Policy
	sessions []*Session
	claims   []engine.Claim
	cancels  map[string]func()
	pins     map[string]*nodev1.ServerPins // by path
	kept     map[string][]engine.Kept
}

// NewDoor makes a Door to the resource in terms. cred makes a credential for a purpose;
// the Door wipes it after each loan.
func NewDoor(tb testing.TB, terms engine.Terms, cred func(engine.Purpose) engine.Credential) *Door {
	d := &Door{tb: tb, terms: terms, cred: cred, cancels: map[string]func(){}, pins: map[string]*nodev1.ServerPins{}, kept: map[string][]engine.Kept{}}
	tb.Cleanup(func() { d.Forget() })
	return d
}

// Kept is how many connections wait for a session.
func (d *Door) Kept() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, kept := range d.kept {
		n += len(kept)
	}
	return n
}

// Forget closes the connections that wait for a session.
func (d *Door) Forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, kept := range d.kept {
		for _, k := range kept {
			_ = k.Close()
		}
	}
	clear(d.kept)
}

// Set changes the policy.
func (d *Door) Set(change func(*Policy)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.policy)
}

// Terms changes the terms of sessions to come.
func (d *Door) Terms(change func(*engine.Terms)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.terms)
}

func (d *Door) script() Policy {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.policy
}

// Last is the session that was opened last.
func (d *Door) Last() *Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.sessions) == 0 {
		d.tb.Fatal("no session was opened")
	}
	return d.sessions[len(d.sessions)-1]
}

// Opened is how many sessions were opened.
func (d *Door) Opened() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.sessions)
}

// Asked is how many claims were made.
func (d *Door) Asked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.claims)
}

// Claim is the last claim.
func (d *Door) Claim() engine.Claim {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.claims[len(d.claims)-1]
}

// Open believes Token and the policy's Certificate.
func (d *Door) Open(ctx context.Context, c engine.Claim) (engine.Session, error) {
	signedIn, err := d.signIn(ctx, c)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	good := c.Token.Equal(secret.FromString(Token)) && c.Certificate == nil ||
		c.Certificate != nil && c.Token.Len() == 0 && bytes.Equal(c.Certificate, d.policy.Certificate)
	good = good || signedIn && c.Token.Len() == 0 && c.Certificate == nil
	c.Token = secret.Bytes{} // the engine wipes it
	d.claims = append(d.claims, c)
	if !good {
		return nil, &postern.Refusal{Code: postern.CodeBadToken, Reason: "the token is not good", Hint: "get a new one: postern token"}
	}
	if c.Permission == "nobody.target" {
		return nil, &postern.Refusal{Code: postern.CodeNoGrant, Reason: `no binding gives you task "nobody"`, Hint: "postern tasks lists yours"}
	}
	sctx, end := context.WithCancelCause(context.Background())
	terms := d.terms
	if c.Database != "" {
		terms.Database = c.Database
	}
	s := &Session{door: d, id: postern.SessionID("s" + strconv.Itoa(len(d.sessions)+1)), terms: terms, ctx: sctx, end: end, closed: make(chan struct{})}
	d.sessions = append(d.sessions, s)
	return s, nil
}

// signIn asks the script about somebody who would sign in elsewhere.
func (d *Door) signIn(ctx context.Context, c engine.Claim) (bool, error) {
	fn := d.script().SignIn
	switch {
	case c.SignIn == nil:
		return false, nil
	case fn == nil:
		return false, &postern.Refusal{Code: postern.CodeBadToken, Reason: "nobody can sign in elsewhere"}
	}
	return true, fn(ctx, c.SignIn)
}

// Cancel runs what OnCancel registered.
func (d *Door) Cancel(_ context.Context, key []byte) error {
	d.mu.Lock()
	fn := d.cancels[string(key)]
	d.mu.Unlock()
	if fn != nil {
		fn()
	}
	return nil
}

// Serve runs an engine on a loopback port and returns its address; both end with the test.
func Serve(tb testing.TB, e engine.Engine, d engine.Door) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() {
					if v := recover(); v != nil {
						panic(fmt.Sprintf("the engine panicked: %v", v))
					}
				}()
				_ = e.Serve(ctx, c, d)
			})
		}
	})
	tb.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}
