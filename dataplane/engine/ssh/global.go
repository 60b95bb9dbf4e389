package ssh

import (
	"context"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/pkg/postern"
)

// maxAsked is how many global requests of a client may wait for their answers, which come
// in order, while people are asked about the first.
const maxAsked = 64

// global answers requests that belong to no channel. Those that ask whether anybody is
// there get an answer, those to listen are judged; all else is refused.
func (c *conn) global(requests <-chan *ssh.Request) {
	asked := make(chan *ssh.Request, maxAsked)
	defer close(asked)
	c.group.Go("answers", func(ctx context.Context) error {
		for r := range asked {
			c.answer(ctx, r)
		}
		return nil
	})
	for r := range requests {
		select {
		case asked <- r:
		default:
			c.end(&postern.Refusal{Code: postern.CodeProtocol, Reason: "too many requests at once", Hint: "connect again"})
		}
	}
}

func (c *conn) answer(ctx context.Context, r *ssh.Request) {
	var answer []byte
	ok := false
	switch r.Type {
	case "keepalive@openssh.com":
		ok = true
	case "tcpip-forward":
		c.active.mark()
		answer, ok = c.listen(ctx, r.Payload)
	case "cancel-tcpip-forward":
		ok = c.unlisten(r.Payload)
	}
	if r.WantReply {
		_ = r.Reply(ok, answer)
	}
}

// accept takes the client's channels.
func (c *conn) accept(channels <-chan ssh.NewChannel) {
	for nc := range channels {
		c.active.mark()
		var serve func(context.Context, ssh.NewChannel)
		switch nc.ChannelType() {
		case "session":
			serve = c.serveSession
		case "direct-tcpip":
			serve = c.serveForward
		default:
			_ = nc.Reject(ssh.Prohibited, "postern: channels of this kind are not allowed")
			continue
		}
		if !c.take() {
			_ = nc.Reject(ssh.ResourceShortage, "postern: too many channels are open")
			continue
		}
		c.group.Go("channel", func(ctx context.Context) error {
			defer c.give()
			serve(ctx, nc)
			return nil
		})
	}
}

// take counts a channel, whoever opened it, where one more may be open; give ends it.
func (c *conn) take() bool {
	if c.open.Add(1) > int64(c.e.limits.Channels) {
		c.open.Add(-1)
		return false
	}
	return true
}

func (c *conn) give() { c.open.Add(-1) }
