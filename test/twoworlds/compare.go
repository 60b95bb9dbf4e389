package twoworlds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/pkg/run"
)

// A Client says as whom, for what and at which level an input runs.
type Client struct {
	As      string // alice where empty
	Task    string
	Level   Level
	Startup map[string]string // startup parameters beside user and database
	Views   bool              // at level Wall: texts read the task's views in the place of their tables
	Refused bool              // a session that cannot be opened is what is wanted: nothing is tried again
}

// An Input is what one client does on one connection.
type Input struct {
	Client
	Steps []Step
}

// A Pair is the same client in both worlds. It is not safe for concurrent use.
type Pair struct {
	w     *Worlds
	conns [2]*Conn
	theft *theft // whose views texts are mapped to; else nil
}

// Open connects a client to both worlds. That a node refuses is no error: the transcript
// of the startup says so.
func (w *Worlds) Open(ctx context.Context, t testing.TB, c Client) (*Pair, Outcome, error) {
	t.Helper()
	if c.As == "" {
		c.As = "alice"
	}
	if c.Level == Wall {
		return w.past(ctx, t, c)
	}
	p, seen := &Pair{w: w}, Outcome{}
	token := w.House.DataToken(t, c.As)
	err := both(ctx, func(ctx context.Context, i int) error {
		startup := map[string]string{"database": "warehouse"}
		maps.Copy(startup, c.Startup)
		startup["user"] = c.Task + "." + resourceName(c.Level, names[i])
		again := patiently
		if c.Refused {
			again = func(_ context.Context, dial func() (*Conn, error)) (*Conn, error) { return dial() }
		}
		conn, err := again(ctx, func() (*Conn, error) {
			return dial(ctx, &net.Dialer{}, w.House.Nodes[0].PG, w.tls(), startup, token)
		})
		if err == nil {
			p.conns[i], seen[i] = conn, conn.seen
		}
		return err
	})
	if err != nil {
		p.Close()
		return nil, seen, err
	}
	return p, seen, nil
}

// Run does the steps in both worlds at once and returns what the clients saw. An error
// means that no outcome came about, such as a node that hangs.
func (p *Pair) Run(ctx context.Context, steps ...Step) (Outcome, error) {
	var seen Outcome
	err := both(ctx, func(ctx context.Context, i int) (err error) {
		mine := steps
		if p.theft != nil {
			mine = p.theft.steps(i, steps)
		}
		seen[i], err = p.conns[i].steps(ctx, p.w.PG[i], mine)
		return err
	})
	return seen, err
}

// both does the same in both worlds at once.
func both(ctx context.Context, do func(ctx context.Context, i int) error) error {
	g := run.New(ctx)
	for i, world := range names {
		g.Go("world "+world, func(ctx context.Context) error { return do(ctx, i) })
	}
	return g.Wait()
}

// Over reports whether the node has closed one of the connections.
func (p *Pair) Over() bool { return p.conns[0].over || p.conns[1].over }

// Close ends both connections.
func (p *Pair) Close() {
	for _, c := range p.conns {
		if c != nil {
			c.close()
		}
	}
}

// Compare opens a client, does the steps, and returns everything that was seen from the
// answer to the startup packet on.
func (w *Worlds) Compare(ctx context.Context, t testing.TB, in Input) (Outcome, error) {
	t.Helper()
	p, seen, err := w.Open(ctx, t, in.Client)
	if err != nil {
		return seen, err
	}
	defer p.Close()
	more, err := p.Run(ctx, in.Steps...)
	for i := range seen {
		seen[i] = append(seen[i], more[i]...)
	}
	return seen, err
}

// Direct does the steps at the target of the first world, past Postern, as the account
// and with the settings that a node would use.
func (w *Worlds) Direct(ctx context.Context, steps ...Step) (Transcript, error) {
	c, err := w.plain(ctx, 0, account, password, map[string]string{"search_path": "sales"})
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.steps(ctx, w.PG[0], steps)
}

// Unencrypted sends the request for TLS and a startup packet in one segment, in clear
// text, and returns what comes back until the node closes, as one message of type '?'
// and the end.
func (w *Worlds) Unencrypted(ctx context.Context, c Client) (Outcome, error) {
	var seen Outcome
	for i, world := range names {
		out, err := (&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{
			"user": c.Task + "." + resourceName(c.Level, world), "database": "warehouse",
		}}).Encode([]byte{0, 0, 0, 8, 4, 210, 22, 47})
		if err != nil {
			return seen, err
		}
		nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", w.House.Nodes[0].PG)
		if err != nil {
			return seen, err
		}
		defer nc.Close()
		if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
			return seen, err
		}
		if _, err := nc.Write(out); err != nil {
			return seen, err
		}
		body, err := io.ReadAll(nc)
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			return seen, fmt.Errorf("no end within %s", patience)
		}
		seen[i] = Transcript{{'?', body}, {}}
	}
	return seen, nil
}
