package postgres

import (
	"crypto/sha256"
	"hash"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/wire"
)

// maxUnread is the longest message that may pass by: PostgreSQL itself takes no longer one.
const maxUnread = 1 << 30

// unreadStall is how long such a message may pause: a length that is a lie is followed by
// nothing.
const unreadStall = 2 * time.Second

// unread is a message that is too long to be understood or kept: it passes by, so that
// its hash can be recorded, and is refused.
type unread struct {
	typ  byte
	size int // of the body
	left int
	sum  hash.Hash
	late *time.Timer
}

// tooLong is a message of which nothing is read: one that is longer than any that may pass
// by, or that has no text.
func (c *conn) tooLong(typ byte, size int) bool {
	return size > c.e.limits.Message && (size > maxUnread || typ != 'Q' && typ != 'P' && typ != 'B')
}

// pass begins with such a message, whose head is at the start of rest; it returns how
// much of rest is dealt with.
func (c *conn) pass(typ byte, size int, rest []byte) int {
	c.unread = &unread{typ: typ, size: size - headerLen, left: size - headerLen, sum: sha256.New()}
	c.unread.late = time.AfterFunc(unreadStall, func() { c.stop(c.overLimit()) })
	return headerLen + c.unread.take(rest[headerLen:])
}

// take hashes what is there of the message. The NUL that ends the text of a query is no
// part of it.
func (u *unread) take(p []byte) int {
	u.late.Reset(unreadStall)
	p = p[:min(len(p), u.left)]
	u.left -= len(p)
	text := p
	if u.left == 0 && u.typ == 'Q' && len(p) > 0 {
		text = p[:len(p)-1]
	}
	_, _ = u.sum.Write(text) // a hash takes everything
	return len(p)
}

// refuseUnread records the message that has passed and ends the session.
func (c *conn) refuseUnread() error {
	u := c.unread
	size := int64(u.size)
	if u.typ == 'Q' {
		size--
	}
	u.late.Stop()
	r := c.overLimit()
	if err := c.s.Unread(size, u.sum.Sum(nil), r); err != nil {
		return err
	}
	return r
}

func (c *conn) overLimit() *postern.Refusal {
	return &postern.Refusal{Code: postern.CodeProtocol, Reason: (&wire.LimitError{What: "the message", Limit: c.e.limits.Message}).Error()}
}
