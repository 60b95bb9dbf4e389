package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/wire"
)

// Bounds of a connection that goes from one session to the next.
const (
	resetTime = 5 * time.Second        // until the target has answered
	leaveTime = 100 * time.Millisecond // to send what resets it
)

// noteConnection is the kind of the note that says which connection a session got.
const noteConnection = "connection"

// Dialled, Born and Close make a login an engine.Kept.
func (l *login) Dialled() net.Conn { return l.dialled }

// Born is when it was made.
func (l *login) Born() time.Time { return l.born }

// Close says goodbye to the target, if it listens.
func (l *login) Close() error {
	_ = l.conn.SetWriteDeadline(time.Now().Add(leaveTime))
	_, _ = l.conn.Write(appendEmpty(nil, 'X'))
	return pump.HangUp(l.conn)
}

// connect gives a session its connection to the target: one that an earlier session of the
// same grant has left, where its terms say so, or a new one.
func (e *Engine) connect(ctx context.Context, s engine.Session, params startup) (*login, error) {
	pool, ok := s.(engine.Reuser)
	if s.Terms().Pool == "" || !ok {
		return e.login(ctx, s, engine.PurposeSession, params)
	}
	key := reuseKey(s, params)
	for {
		kept := pool.Reuse(key)
		if kept == nil {
			break
		}
		l, ok := kept.(*login)
		if !ok {
			_ = kept.Close()
			continue
		}
		err := l.again(ctx, s)
		if err == nil {
			l.pool = pool
			return l, s.Note(noteConnection, l.told("used before"))
		}
		_ = l.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		e.log.Debug("a connection could not be used again", "session", s.ID(), "error", err)
	}
	l, err := e.login(ctx, s, engine.PurposeSession, params)
	if err != nil {
		return nil, err
	}
	l.pool, l.under, l.rest = pool, key, maps.Clone(l.status)
	if err := l.name(ctx, s, nil); err != nil {
		_ = l.Close()
		return nil, unreachable(s.Terms(), err)
	}
	return l, s.Note(noteConnection, l.told("new"))
}

// told is the connection as the target's own log knows it.
func (l *login) told(how string) string {
	return "process " + strconv.FormatUint(uint64(l.key.pid), 10) + " at the resource, " + how
}

// reuseKey is all that makes a connection what it is, but for its account: where it goes
// and what it is started with.
func reuseKey(s engine.Session, params startup) string {
	t := s.Terms()
	if hole.Is("reuse-any-start") {
		params = nil
	}
	return strings.Join([]string{
		catalogKey(t), t.TLS.Mode, t.TLS.ServerName, string(t.TLS.CA), t.Level.String(), strconv.FormatBool(t.Own),
		string(startupPacket(s, engine.PurposeSession, "", params)),
	}, "\x00")
}

// resetText ends what a session has made and set at the target.
const resetText = "DISCARD ALL"

// again makes a connection that was left a session's: what was sent when it was left must
// have succeeded, and left it as it was when it was new.
func (l *login) again(ctx context.Context, s engine.Session) error {
	err := s.Lend(ctx, engine.PurposeSession, func(cred *engine.Credential) error {
		if cred.Account != l.account {
			return errors.New("it is logged in with another account")
		}
		l.tokens = tokensOf(cred)
		return nil
	})
	if err == nil && hole.Is("reuse-unreset") {
		err = l.name(ctx, s, nil)
	} else if err == nil {
		err = l.name(ctx, s, []string{resetText})
	}
	if err == nil {
		err = l.pin(s.Terms())
	}
	if err != nil {
		l.tokens.wipe()
	}
	return err
}

// name tells the target whose session it is from now on, and reads its answers: to that,
// and before it to what was sent earlier, by their tags.
func (l *login) name(ctx context.Context, s engine.Session, before []string) error {
	if err := l.conn.SetDeadline(time.Now().Add(resetTime)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	program := applicationName(s)
	if _, err := l.conn.Write(appendQuery(nil, "SET application_name = '"+strings.ReplaceAll(program, "'", "''")+"'")); err != nil {
		return err
	}
	in := inbox{r: l.conn}
	for i, tag := range append(slices.Clip(before), "SET") {
		if err := l.answered(&in, tag, i == 0 && len(before) > 0); err != nil {
			return err
		}
	}
	if !in.empty() || l.status["application_name"] != program {
		return errors.New("the resource said something else than it was asked")
	}
	for name, value := range l.status {
		if name != "application_name" && l.rest[name] != value && !hole.Is("reuse-unproved") {
			return fmt.Errorf("the setting %s is not what it was", name)
		}
	}
	if !stop() {
		return context.Cause(ctx)
	}
	return l.conn.SetDeadline(time.Time{})
}

// answered reads the answer to one query. Notifications may come until what asked for them
// was ended.
func (l *login) answered(in *inbox, tag string, notified bool) error {
	done := false
	for {
		typ, body, err := in.next()
		if err != nil {
			return err
		}
		switch {
		case typ == 'S':
			l.report(body)
		case typ == 'N', typ == 'A' && notified && !done:
		case typ == 'E':
			return targetError(body)
		case typ == 'C' && !done && string(commandTag(body)) == tag:
			done = true
		case typ == 'Z' && done && string(body) == "I":
			return nil
		default:
			return fmt.Errorf("the resource sent message %q while it was reset", typ)
		}
	}
}

// report notes what the target says of a setting.
func (l *login) report(body []byte) {
	c := wire.Read(body)
	name, value := string(c.CString()), string(c.CString())
	if c.Done() == nil {
		l.status[name] = value
	}
}

// leave resets the connection and leaves it for the next session of the grant. It does so
// only where the client has left a connection at rest: nothing is under way at the target,
// no transaction is open, every byte of its was understood, and no cancel request was ever
// sent that could still hit what comes next.
func (c *conn) leave(cause error) bool {
	l := c.login
	var r *postern.Refusal
	left := errors.Is(cause, errLeft) || errors.Is(cause, io.EOF) || errors.Is(cause, pump.ErrGone)
	if l.pool == nil || !left || errors.As(cause, &r) || c.s.Context().Err() != nil {
		return false
	}
	c.mu.Lock()
	rest := c.q.n == 0 && !c.open && c.status == 'I' && !c.poison && c.skip == skipNone && !c.copying &&
		!c.cancelling && (!c.cancelSent || hole.Is("reuse-cancelled")) && c.tail == 0 && c.stream == 0 && c.behind == 0 && !c.lastWords
	c.mu.Unlock()
	if !rest {
		return false
	}
	l.conn, l.tokens = c.target, nil
	if l.conn.SetReadDeadline(time.Time{}) != nil || l.conn.SetWriteDeadline(time.Now().Add(leaveTime)) != nil {
		return false
	}
	if !hole.Is("reuse-unreset") {
		if _, err := l.conn.Write(appendQuery(nil, resetText)); err != nil {
			return false
		}
	}
	if l.conn.SetWriteDeadline(time.Time{}) != nil {
		return false
	}
	l.pool.Leave(l.under, l)
	return true
}
