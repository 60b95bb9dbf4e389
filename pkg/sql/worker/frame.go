package worker

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// A frame is one byte that says what it is, four bytes of length, and the body.
const (
	frameHead = 5
	// maxFrame bounds a body in either direction: trees are some 30 times their text.
	maxFrame = 64 << 20
)

// What a frame is.
const (
	opParse   byte = 'P' // parent: text
	opDeparse byte = 'D' // parent: tree
	opReady   byte = 'R' // child: it has started
	opOK      byte = 'O' // child: the answer
	opSyntax  byte = 'S' // child: position (4 bytes) and message of a syntax error
	opFailed  byte = 'F' // child: why it could not
)

// readFrame reads one frame into buf, grown as needed. The body is valid until buf is
// used again.
func readFrame(r io.Reader, buf *[]byte) (op byte, body []byte, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes", n)
	}
	// Grown as it comes: a length alone takes no memory.
	body = (*buf)[:0]
	for len(body) < int(n) {
		have := len(body)
		body = slices.Grow(body, min(int(n)-have, max(have, 64<<10)))
		body = body[:min(int(n), cap(body))]
		if _, err := io.ReadFull(r, body[have:]); err != nil {
			return 0, nil, err
		}
	}
	*buf = body
	return head[0], body, nil
}

// writeFrame writes one frame with one write.
func writeFrame[T []byte | string](w io.Writer, buf *[]byte, op byte, body T) error {
	b := append((*buf)[:0], op)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = append(b, body...)
	*buf = b
	_, err := w.Write(b)
	return err
}
