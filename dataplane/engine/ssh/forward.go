package ssh

import (
	"context"
	"io"
	"net"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/run"
	facts "github.com/posterngate/postern/pkg/ssh"
)

// serveForward connects the client to an address that it reaches through the host
// (RFC 4254, 7.2).
func (c *conn) serveForward(ctx context.Context, nc ssh.NewChannel) {
	var want struct {
		Host   string
		Port   uint32
		Origin string
		From   uint32
	}
	if len(nc.ExtraData()) > c.e.limits.Text || ssh.Unmarshal(nc.ExtraData(), &want) != nil || want.Port == 0 || want.Port > 65535 {
		_ = nc.Reject(ssh.ConnectionFailed, "postern: the destination cannot be read")
		return
	}
	to := address{want.Host, want.Port}.String()
	x, err := c.admit(ctx, statement(&facts.Facts{Verb: facts.Connect, Address: to}, "connect "+to), func(string) {})
	if err != nil {
		r := c.refused(err)
		_ = nc.Reject(ssh.Prohibited, "postern: "+printable(r.Reason))
		if fatal(r) {
			c.end(r)
		}
		return
	}
	c.ended(x, c.forward(ctx, nc, x, to))
}

func (c *conn) forward(ctx context.Context, nc ssh.NewChannel, x *execution, address string) outcome {
	client, err := c.dial(ctx)
	if err != nil {
		_ = nc.Reject(ssh.ConnectionFailed, "postern: the host cannot be reached")
		return refusedWith(err)
	}
	far, err := client.DialContext(ctx, "tcp", address)
	if err != nil {
		_ = nc.Reject(ssh.ConnectionFailed, "postern: the host cannot reach the destination")
		return refusedWith(err)
	}
	defer func() { _ = far.Close() }()
	ch, requests, err := nc.Accept()
	if err != nil {
		return refusedWith(err)
	}
	defer func() { _ = ch.Close() }()
	if err := c.splice(ctx, x, ch, requests, far); err != nil {
		return refusedWith(err)
	}
	return outcome{said: x.counted()}
}

// ended records how an execution without a channel of its own ended.
func (c *conn) ended(x *execution, o outcome) {
	if err := x.done(o.outcome()); err != nil {
		c.end(err)
	}
}

// splice carries bytes both ways until both sides have said all. They are counted and
// not kept: what they are is another protocol's business.
func (c *conn) splice(ctx context.Context, x *execution, ch ssh.Channel, requests <-chan *ssh.Request, far net.Conn) error {
	c.group.Go("requests", func(context.Context) error { ssh.DiscardRequests(requests); return nil })
	g := run.New(ctx)
	g.Go("to the client", func(context.Context) error {
		err := copyCounted(ch, far, x)
		_ = ch.CloseWrite()
		return err
	})
	g.Go("to the host", func(context.Context) error {
		err := each(ch, func(b []byte) error {
			if err := x.input(b); err != nil {
				return err
			}
			if _, err := far.Write(b); err != nil {
				return errOver
			}
			return nil
		})
		if w, ok := far.(interface{ CloseWrite() error }); ok && err == nil {
			_ = w.CloseWrite()
		}
		return err
	})
	stop := context.AfterFunc(g.Context(), func() { _, _ = ch.Close(), far.Close() })
	defer stop()
	return g.Wait()
}

func copyCounted(to io.Writer, from io.Reader, x *execution) error {
	return each(from, func(b []byte) error {
		room := x.room(len(b))
		if err := x.count(engine.ToClient, b[:room]); err != nil {
			return err
		}
		if _, err := to.Write(b[:room]); err != nil {
			return errOver
		}
		if room < len(b) {
			return x.c.terms.NoMoreBytes()
		}
		return nil
	})
}
