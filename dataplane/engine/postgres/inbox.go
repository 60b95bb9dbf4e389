package postgres

import (
	"fmt"
	"io"

	"github.com/posterngate/postern/pkg/wire"
)

// An inbox reads the messages of a handshake with as few reads as it can. What it has read
// must be used up before anybody else reads: see empty.
type inbox struct {
	r   io.Reader
	buf []byte // unread
}

// inboxRead is how much is read at once.
const inboxRead = 2 << 10

// next is the next message, of at most maxHandshakeMessage bytes; its body is valid until
// the call after.
func (b *inbox) next() (typ byte, body []byte, err error) {
	for {
		typ, size, err := next(b.buf)
		switch {
		case err != nil:
			return 0, nil, err
		case size > maxHandshakeMessage:
			return 0, nil, fmt.Errorf("read message %q: %w", typ, &wire.LimitError{What: "the message", Limit: maxHandshakeMessage})
		case size > 0 && len(b.buf) >= size:
			msg := b.buf[:size]
			b.buf = b.buf[size:]
			return typ, msg[headerLen:], nil
		}
		room := make([]byte, len(b.buf)+max(inboxRead, size-len(b.buf)))
		have := copy(room, b.buf)
		n, err := b.r.Read(room[have:])
		b.buf = room[:have+n]
		if n == 0 && err != nil {
			return 0, nil, fmt.Errorf("read message: %w", err)
		}
	}
}

// empty reports whether everything that was read is used up.
func (b *inbox) empty() bool { return len(b.buf) == 0 }
