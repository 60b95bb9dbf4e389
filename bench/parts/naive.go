package parts

import (
	"context"
	"encoding/json"
	"net"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/pkg/run"
)

// naive decodes every message with pgproto3, encodes it again and sends it on at once:
// how a proxy for PostgreSQL is written first.
func naive(_ context.Context, g *run.Group, settings json.RawMessage) (any, func(string) (any, error), error) {
	var s Backend
	if err := json.Unmarshal(settings, &s); err != nil {
		return nil, nil, err
	}
	hello, err := serve(g, func(ctx context.Context, client *net.TCPConn) {
		server, err := dial(s.Backend)
		if err != nil {
			return
		}
		defer func() { _ = server.Close() }()
		_ = decodeAll(ctx, client, server)
	})
	return hello, nil, err
}

func decodeAll(ctx context.Context, client, server *net.TCPConn) error {
	back := pgproto3.NewBackend(client, client)
	front := pgproto3.NewFrontend(server, server)
	first, err := back.ReceiveStartupMessage()
	if err != nil {
		return err
	}
	front.Send(first)
	if err := front.Flush(); err != nil {
		return err
	}
	if err := login(back, front); err != nil {
		return err
	}
	both(ctx, client, server,
		func() error {
			for {
				m, err := back.Receive()
				if err != nil {
					return err
				}
				front.Send(m)
				if err := front.Flush(); err != nil {
					return err
				}
			}
		},
		func() error {
			for {
				m, err := front.Receive()
				if err != nil {
					return err
				}
				back.Send(m)
				if err := back.Flush(); err != nil {
					return err
				}
			}
		})
	return nil
}

// login passes the messages of authentication on, whose meaning hangs on the one before.
func login(back *pgproto3.Backend, front *pgproto3.Frontend) error {
	for {
		m, err := front.Receive()
		if err != nil {
			return err
		}
		back.Send(m)
		if err := back.Flush(); err != nil {
			return err
		}
		kind, answer := uint32(pgproto3.AuthTypeOk), false
		switch m.(type) {
		case *pgproto3.AuthenticationSASL:
			kind, answer = pgproto3.AuthTypeSASL, true
		case *pgproto3.AuthenticationSASLContinue:
			kind, answer = pgproto3.AuthTypeSASLContinue, true
		case *pgproto3.AuthenticationOk:
			return nil
		}
		if !answer {
			continue
		}
		if err := back.SetAuthType(kind); err != nil {
			return err
		}
		a, err := back.Receive()
		if err != nil {
			return err
		}
		front.Send(a)
		if err := front.Flush(); err != nil {
			return err
		}
	}
}
