package ssh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// askAgain is how long a person who says that they have signed in is believed before
// they are asked again: a question that stands open is what shows that they are there.
const askAgain = 20 * time.Second

// The questions. The answer is not echoed, for it may be a token. Programs that hold a token as
// a password (sshpass, asyncssh, lftp) look for that word at the end.
const (
	askSignedIn = "Press Enter once you have signed in, or give a token as the password: "
	askToken    = "A token (from: postern token) as the password: "
)

// signIn opens the session of somebody with a terminal and nothing else: they sign in on
// any device, or paste a token.
func (a *auth) signIn(m ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) error {
	if a.turnedAway {
		return errors.New("turned away already") // clients ask three times
	}
	from := network(a.addr)
	if r := a.e.signing.take(from, a.e.limits); r != nil {
		return refusedLogin(r)
	}
	defer a.e.signing.give(from)
	w := a.begin(m)
	defer w.giveUp()
	var text string
	question := askToken
	select {
	case where := <-w.where:
		if err := a.nc.SetDeadline(where.Expires.Add(a.e.limits.Handshake)); err != nil {
			return err
		}
		question = askSignedIn
		text = fmt.Sprintf("Sign in on any device:\n\n  %s\n\nIt must show the code %s and your address %s.\n", printable(where.URL), printable(where.Code), printable(a.addr))
	case <-w.ended:
		if w.err == nil {
			return w.take(a)
		}
		text = say(postern.AsRefusal(w.err)) // a token does without
	}
	for {
		answers, err := ask("", text, []string{question}, []bool{false})
		switch {
		case err != nil:
			return err
		case len(answers) != 1:
			return errors.New("not the one answer")
		case strings.TrimSpace(answers[0]) != "":
			w.giveUp()
			_, err := a.token(m, []byte(strings.TrimSpace(answers[0])))
			return err
		case question == askToken:
			return refusedLogin(w.err)
		}
		select {
		case <-w.ended:
			return w.take(a)
		case <-time.After(askAgain):
			text = "Nobody has signed in yet.\n"
		}
	}
}

// waiting is a door that is being opened by somebody who signs in elsewhere.
type waiting struct {
	where   chan engine.SignIn
	ended   chan struct{} // closed once session or err is set
	session engine.Session
	err     error
	group   *run.Group
	taken   bool
}

func (a *auth) begin(m ssh.ConnMetadata) *waiting {
	w := &waiting{where: make(chan engine.SignIn, 1), ended: make(chan struct{}), group: run.New(a.ctx)}
	w.group.Go("sign in", func(ctx context.Context) error {
		defer close(w.ended)
		w.session, w.err = a.door.Open(ctx, a.claim(m, engine.Claim{SignIn: func(where engine.SignIn) {
			select {
			case w.where <- where:
			default: // it has been told
			}
		}}))
		return nil
	})
	return w
}

// take makes what was opened the connection's session.
func (w *waiting) take(a *auth) error {
	if w.err != nil {
		a.turnedAway = true
		return refusedLogin(w.err)
	}
	if a.session != nil {
		return errors.New("opened already")
	}
	a.session, w.taken = w.session, true
	return nil
}

// giveUp ends the waiting. A session that nobody has taken is closed.
func (w *waiting) giveUp() {
	w.group.Stop()
	_ = w.group.Wait()
	if w.session != nil && !w.taken {
		w.session.Close(errGone)
		w.session = nil
	}
}

// turns are those who sign in now. One network has a few, so that who has nothing to show
// cannot keep all others out.
type turns struct {
	mu  sync.Mutex
	all int
	of  map[netip.Prefix]int
}

func (t *turns) take(from netip.Prefix, l Limits) *postern.Refusal {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.of[from] >= l.SignInsOf:
		return &postern.Refusal{Code: postern.CodeLimit, Reason: "too many people are signing in from your address", Hint: "try again, or use a token: postern token"}
	case t.all >= l.SignIns:
		return &postern.Refusal{Code: postern.CodeLimit, Reason: "too many people are signing in at this node", Hint: "try again, or another node"}
	}
	if t.of == nil {
		t.of = map[netip.Prefix]int{}
	}
	t.all++
	t.of[from]++
	return nil
}

func (t *turns) give(from netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all--
	if t.of[from]--; t.of[from] == 0 {
		delete(t.of, from)
	}
}

// network is whom an address counts as: itself, or of IPv6 the /64 that anybody has whole.
// What is no address is one of its own.
func network(addr string) netip.Prefix {
	at, _ := netip.ParseAddrPort(addr)
	a := at.Addr().Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p
	}
	return netip.PrefixFrom(a, a.BitLen())
}
