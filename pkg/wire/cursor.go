package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// ErrShort says that a body ended before its last field.
var ErrShort = errors.New("wire: the message is shorter than its fields say")

// A Cursor reads the fields of one message body, big-endian. Once a field does not fit
// it stays failed and returns zeros, so that callers check Err once at the end. What
// it returns aliases the body.
type Cursor struct {
	b   []byte
	err error
}

// Read starts at the beginning of body.
func Read(body []byte) Cursor { return Cursor{b: body} }

// Err is ErrShort once a field did not fit.
func (c *Cursor) Err() error { return c.err }

// Rest is what is left.
func (c *Cursor) Rest() []byte { return c.b }

// Done is nil where every field fitted and nothing is left.
func (c *Cursor) Done() error {
	if c.err == nil && len(c.b) != 0 {
		return errors.New("wire: the message is longer than its fields say")
	}
	return c.err
}

// Bytes reads n bytes; a negative n fails.
func (c *Cursor) Bytes(n int) []byte {
	if c.err != nil || n < 0 || n > len(c.b) {
		c.fail()
		return nil
	}
	p := c.b[:n:n]
	c.b = c.b[n:]
	return p
}

// Byte reads one byte.
func (c *Cursor) Byte() byte {
	if p := c.Bytes(1); p != nil {
		return p[0]
	}
	return 0
}

// Int16 reads two bytes.
func (c *Cursor) Int16() int16 {
	if p := c.Bytes(2); p != nil {
		return int16(binary.BigEndian.Uint16(p)) //nolint:gosec // the bits are what the wire carries
	}
	return 0
}

// Int32 reads four bytes.
func (c *Cursor) Int32() int32 {
	if p := c.Bytes(4); p != nil {
		return int32(binary.BigEndian.Uint32(p)) //nolint:gosec // the bits are what the wire carries
	}
	return 0
}

// Uint32 reads four bytes.
func (c *Cursor) Uint32() uint32 {
	if p := c.Bytes(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

// CString reads up to a zero byte, which it drops.
func (c *Cursor) CString() []byte {
	i := bytes.IndexByte(c.b, 0)
	if c.err != nil || i < 0 {
		c.fail()
		return nil
	}
	p := c.b[:i:i]
	c.b = c.b[i+1:]
	return p
}

func (c *Cursor) fail() {
	c.err = ErrShort
	c.b = nil
}
