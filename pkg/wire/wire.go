// Package wire holds what every protocol needs of bytes and none may know of another:
// pooled buffers, a bounded reader of message bodies, and an output that joins spans
// into one write. It knows no protocol's names; framing belongs to the engines, and
// moving bytes to the pump.
package wire

import (
	"fmt"
	"sync"
)

// The sizes of pooled buffers in bytes. Large is what one read of a busy connection
// takes; Small is what an idle connection may keep.
const (
	Small = 4 << 10
	Large = 64 << 10
)

var (
	smalls = sync.Pool{New: func() any { return newBuffer(Small) }}
	larges = sync.Pool{New: func() any { return newBuffer(Large) }}
)

func newBuffer(n int) *Buffer { return &Buffer{b: make([]byte, n)} }

// A Buffer is a window of unread bytes. It is for one goroutine at a time. Slices that
// it hands out live until its next call.
type Buffer struct {
	b    []byte
	r, w int
}

// Get takes an empty buffer of at least size bytes from the pool, at most Large.
func Get(size int) *Buffer {
	if size <= Small {
		return smalls.Get().(*Buffer)
	}
	return larges.Get().(*Buffer)
}

// Put gives a buffer back. Neither it nor any slice of it may be used afterwards. What
// grew beyond Large is left to the collector. Unread bytes are zeroed by nobody, so a
// buffer that held a secret must not come here.
func Put(b *Buffer) {
	if b == nil {
		return
	}
	b.r, b.w = 0, 0
	switch len(b.b) {
	case Small:
		smalls.Put(b)
	case Large:
		larges.Put(b)
	}
}

// Bytes are the unread bytes.
func (b *Buffer) Bytes() []byte { return b.b[b.r:b.w] }

// Len is the number of unread bytes.
func (b *Buffer) Len() int { return b.w - b.r }

// Cap is the size of the buffer.
func (b *Buffer) Cap() int { return len(b.b) }

// Space is free room for a read, never empty. want is how many unread bytes the reader
// hopes to have in all: the buffer at most doubles towards it, so that memory follows
// the bytes that came and not the length that a header claims.
func (b *Buffer) Space(want int) []byte {
	if b.r == b.w {
		b.r, b.w = 0, 0
	}
	if want > len(b.b)-b.r || b.w == len(b.b) {
		b.makeRoom(want)
	}
	return b.b[b.w:]
}

func (b *Buffer) makeRoom(want int) {
	n := b.w - b.r
	if n == len(b.b) || (want > len(b.b) && n >= len(b.b)/2) {
		grown := make([]byte, min(max(want, n+Small), 2*len(b.b)))
		b.w = copy(grown, b.b[b.r:b.w])
		b.b, b.r = grown, 0
		return
	}
	copy(b.b, b.b[b.r:b.w])
	b.r, b.w = 0, n
}

// Wrote says that n bytes of the last Space were filled.
func (b *Buffer) Wrote(n int) { b.w += n }

// Consume drops n unread bytes.
func (b *Buffer) Consume(n int) { b.r += n }

// MoveTo copies the unread bytes into c, which must have the room, and empties b.
func (b *Buffer) MoveTo(c *Buffer) {
	c.w += copy(c.b[c.w:], b.b[b.r:b.w])
	b.r, b.w = 0, 0
}

// A LimitError says which named limit a length from outside would have broken.
type LimitError struct {
	What  string
	Limit int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s is longer than %d bytes", e.What, e.Limit)
}
