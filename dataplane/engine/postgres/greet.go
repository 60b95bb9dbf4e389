package postgres

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// shownStatus are the settings of the target that a client is told of. The name of the
// account is not among them.
var shownStatus = map[string]bool{
	"server_version": true, "server_encoding": true, "client_encoding": true, "DateStyle": true, "TimeZone": true,
	"IntervalStyle": true, "integer_datetimes": true, "standard_conforming_strings": true, "application_name": true,
	"is_superuser": true, "in_hot_standby": true, "default_transaction_read_only": true, "scram_iterations": true,
}

var authenticationOk = []byte{'R', 0, 0, 0, 8, 0, 0, 0, 0}

// greet tells the client that it is in, with a key of our own to cancel by.
func (c *conn) greet(h *hello, l *login, authenticated bool) error {
	var key [8]byte
	if _, err := rand.Read(key[:]); err != nil {
		return fmt.Errorf("cancel key: %w", err)
	}
	key[0] &= 0x7f // a process id is positive
	c.s.OnCancel(key[:], c.onCancel)
	c.program = h.claim.ClientProgram

	var b []byte
	if !authenticated {
		b = append(b, authenticationOk...)
	}
	for _, name := range slices.Sorted(maps.Keys(l.status)) {
		value := l.status[name]
		if name == "application_name" {
			value = h.claim.ClientProgram
		}
		if shownStatus[name] {
			b = appendStatus(b, name, clean(value))
		}
	}
	b, at := begin(b, 'K')
	b = binary.BigEndian.AppendUint32(b, binary.BigEndian.Uint32(key[:4]))
	b = end(append(b, key[4:]...), at)
	return c.out.write(appendReady(b, 'I'), false)
}

// awaitSession completes the authentication and lets the client wait until people have
// let the session in. A client that leaves, or speaks before it is asked, gives up.
func (e *Engine) awaitSession(ctx context.Context, s engine.Session, h *hello) error {
	w, ok := s.(engine.Waiter)
	if !ok {
		return errors.New("postgres: the session must be let in, and nobody can")
	}
	if _, err := h.conn.Write(authenticationOk); err != nil {
		return fmt.Errorf("await: %w", err)
	}
	g := run.New(ctx)
	wait, giveUp := context.WithCancelCause(s.Context())
	defer giveUp(nil)
	defer context.AfterFunc(ctx, func() { giveUp(context.Cause(ctx)) })()
	g.Go("client", func(context.Context) error {
		var b [1]byte
		if _, err := h.conn.Read(b[:]); !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
			giveUp(pump.ErrGone)
		}
		return nil
	})
	out := clientOut{conn: h.conn}
	err := w.AwaitSession(wait, func(text string) {
		if werr := out.insert(notice(text)); werr != nil {
			giveUp(pump.ErrGone)
		}
	})
	pump.Poke(h.conn)
	if gerr := g.Wait(); err == nil {
		err = gerr
	}
	_ = h.conn.SetReadDeadline(time.Time{})
	switch cause := context.Cause(wait); {
	case cause != nil && s.Context().Err() != nil:
		return context.Cause(s.Context())
	case cause != nil:
		return &postern.Refusal{Code: postern.CodeCancelled, Reason: "the client gave up waiting", Cause: cause}
	}
	return err
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
