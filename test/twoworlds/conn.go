package twoworlds

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/test/servers"
)

// Bounds of one exchange: a node that does not answer, or does not stop, is at fault.
const (
	patience = 2 * time.Minute
	most     = 64 << 20
)

// A Conn is one client connection that speaks messages and keeps every byte it is told.
type Conn struct {
	conn net.Conn
	in   *bufio.Reader
	seen Transcript // of the startup
	over bool
}

// A Step is what a client sends in one write, and how many answers it then waits for.
type Step struct {
	Send  []pgproto3.FrontendMessage
	Raw   []byte // sent as it is, after Send
	Ready int    // ReadyForQuery to wait for beside those that Send asks for
	Both  string // SQL that runs in both targets instead, past Postern
}

// Query is a step of the simple protocol.
func Query(text string) Step {
	return Step{Send: []pgproto3.FrontendMessage{&pgproto3.Query{String: text}}}
}

// Extended is a step of the extended protocol, without parameters; results come in the
// format, 0 for text and 1 for binary.
func Extended(text string, format int16) Step {
	return Step{Send: []pgproto3.FrontendMessage{
		&pgproto3.Parse{Query: text}, &pgproto3.Describe{ObjectType: 'S'}, &pgproto3.Bind{ResultFormatCodes: []int16{format}},
		&pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{},
	}}
}

// bytes are what goes over the wire, and how many ReadyForQuery come back.
func (s *Step) bytes() (out []byte, ready int, err error) {
	ready = s.Ready
	for _, m := range s.Send {
		switch m.(type) {
		case *pgproto3.Query, *pgproto3.Sync, *pgproto3.FunctionCall:
			ready++
		}
		if out, err = m.Encode(out); err != nil {
			return nil, 0, err
		}
	}
	return append(out, s.Raw...), ready, nil
}

// dial opens a connection and logs in. A refusal is in the transcript, and no error.
func dial(ctx context.Context, from *net.Dialer, addr string, cfg *tls.Config, startup map[string]string, token string) (*Conn, error) {
	nc, err := from.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c, err := login(ctx, nc, cfg, startup, token)
	if err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("log in: %w", err)
	}
	return c, nil
}

// unavailable is the code of a node that could not have what a session needs, such as a
// credential. It says nothing of policy.
const unavailable = "58000"

// patiently dials again while a busy machine keeps the house from opening a session.
func patiently(ctx context.Context, dial func() (*Conn, error)) (*Conn, error) {
	for until := time.Now().Add(patience); ; {
		c, err := dial()
		if err != nil || !c.over || time.Now().After(until) {
			return c, err
		}
		if errs := c.seen.Errors(); len(errs) == 0 || errs[len(errs)-1].Code != unavailable {
			return c, nil
		}
		c.close()
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func login(ctx context.Context, nc net.Conn, cfg *tls.Config, startup map[string]string, token string) (*Conn, error) {
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := nc.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
		return nil, err
	}
	var yes [1]byte
	if _, err := io.ReadFull(nc, yes[:]); err != nil || yes[0] != 'S' {
		return nil, fmt.Errorf("no TLS: %q %w", yes, err)
	}
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	c := &Conn{conn: tc, in: bufio.NewReaderSize(tc, 64<<10)}
	hello, err := (&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: startup}).Encode(nil)
	if err != nil {
		return nil, err
	}
	if _, err = tc.Write(hello); err != nil {
		return nil, err
	}
	for {
		m, err := c.read()
		if err != nil {
			return nil, err
		}
		switch {
		case m.Type == 'R' && len(m.Body) == 4 && binary.BigEndian.Uint32(m.Body) == 3:
			b, err := (&pgproto3.PasswordMessage{Password: token}).Encode(nil)
			if err != nil {
				return nil, err
			}
			if _, err := tc.Write(b); err != nil {
				return nil, err
			}
			continue
		case m.Type == 0:
			c.over = true
		}
		c.seen = append(c.seen, m)
		if m.Type == 'Z' || m.Type == 0 {
			return c, nil
		}
	}
}

// read reads one message; its type is 0 where the other side has closed.
func (c *Conn) read() (Message, error) {
	var head [5]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		var ne net.Error
		if errors.As(err, &ne) && ne.Timeout() {
			return Message{}, fmt.Errorf("no answer within %s", patience)
		}
		return Message{}, nil
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n > most {
		return Message{}, fmt.Errorf("a message %c of %d bytes", head[0], n)
	}
	body := make([]byte, n-4)
	if _, err := io.ReadFull(c.in, body); err != nil {
		return Message{}, fmt.Errorf("a message %c is cut off: %w", head[0], err)
	}
	return Message{head[0], body}, nil
}

// steps does them in order; pg is the target behind.
func (c *Conn) steps(ctx context.Context, pg *servers.PG, steps []Step) (Transcript, error) {
	var seen Transcript
	for i := range steps {
		s := &steps[i]
		if s.Both != "" {
			if _, err := pg.Exec(ctx, "warehouse", s.Both); err != nil {
				return seen, fmt.Errorf("step %d: %w", i+1, err)
			}
			continue
		}
		more, err := c.do(s)
		seen = append(seen, more...)
		if err != nil {
			return seen, fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return seen, nil
}

// do sends a step and returns what comes back.
func (c *Conn) do(s *Step) (Transcript, error) {
	if c.over {
		return nil, nil
	}
	out, ready, err := s.bytes()
	if err != nil {
		return nil, err
	}
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	// A node that refuses need not read to the end, and what it says is still there to read.
	if _, err := c.conn.Write(out); err != nil && ready == 0 {
		return nil, err
	}
	var seen Transcript
	for size := 0; ready > 0; {
		m, err := c.read()
		if err != nil {
			return seen, err
		}
		seen = append(seen, m)
		switch m.Type {
		case 'Z':
			ready--
		case 0:
			c.over = true
			return seen, nil
		}
		if size += len(m.Body); size > most {
			return seen, errors.New("the answer does not end")
		}
	}
	return seen, nil
}

func (c *Conn) close() {
	if c.conn == nil {
		return // refused
	}
	if !c.over {
		_, _ = c.conn.Write([]byte{'X', 0, 0, 0, 4})
	}
	_ = c.conn.Close()
}
