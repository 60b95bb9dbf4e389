package ssh

import (
	"context"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
)

// global answers requests that belong to no channel. Those that ask whether anybody is
// there get an answer; all else, such as listening for others, is refused.
func (c *conn) global(requests <-chan *ssh.Request) {
	for r := range requests {
		if r.WantReply {
			_ = r.Reply(r.Type == "keepalive@openssh.com", nil)
		}
	}
}

// accept takes the client's channels.
func (c *conn) accept(channels <-chan ssh.NewChannel) {
	var open atomic.Int64
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
		if open.Add(1) > int64(c.e.limits.Channels) {
			open.Add(-1)
			_ = nc.Reject(ssh.ResourceShortage, "postern: too many channels are open")
			continue
		}
		c.group.Go("channel", func(ctx context.Context) error {
			defer open.Add(-1)
			serve(ctx, nc)
			return nil
		})
	}
}
