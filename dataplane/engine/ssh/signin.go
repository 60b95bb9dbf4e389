package ssh

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// askAgain is how long a person who says that they have signed in is believed before
// they are asked again: a question that stands open is what shows that they are there.
const askAgain = 20 * time.Second

// The questions. The answer is not echoed, for it may be a token.
const (
	askSignedIn = "Press Enter once you have signed in, or paste a token: "
	askToken    = "Token (from: postern token): "
)

// signIn opens the session of somebody with a terminal and nothing else: they sign in on
// any device, or paste a token.
func (a *auth) signIn(m ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) error {
	if a.turnedAway {
		return errors.New("turned away already") // clients ask three times
	}
	defer a.e.signing.Add(-1)
	if a.e.signing.Add(1) > int64(a.e.limits.SignIns) {
		return refusedLogin(&postern.Refusal{Code: postern.CodeLimit, Reason: "too many people are signing in at this node", Hint: "try again, or another node"})
	}
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
