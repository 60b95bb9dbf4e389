package h1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
)

// maxTrailer bounds what stands behind the last chunk, in bytes.
const maxTrailer = 8 << 10

// A body is that of one request. It reads no further than that.
type body struct {
	c       *conn
	left    int64 // of the length, or of this chunk
	chunked bool
	begun   bool // a chunk has been read
	ended   bool
	err     error
	trailer http.Header // filled in at the end
	await   bool        // the client waits to be asked for it
}

func (b *body) Read(p []byte) (int, error) {
	switch {
	case b.err != nil:
		return 0, b.err
	case b.ended:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	if b.await {
		b.await = false
		if err := b.c.w.interim(http.StatusContinue); err != nil {
			return 0, b.fail(err)
		}
	}
	b.c.patience()
	if b.chunked && b.left == 0 {
		if err := b.next(); err != nil {
			return 0, b.fail(err)
		}
		if b.ended {
			return 0, io.EOF
		}
	}
	n, err := b.c.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return n, b.fail(err)
	}
	if b.left == 0 && !b.chunked {
		b.ended = true
	}
	return n, nil
}

func (b *body) fail(err error) error {
	b.err = err
	return err
}

// Close leaves what is left to the connection.
func (b *body) Close() error { return nil }

// next reads the head of the next chunk, and behind the last one the trailer.
func (b *body) next() error {
	if b.begun {
		if end, err := b.c.r.Peek(2); err != nil || !bytes.Equal(end, crlf) {
			return bad("a chunk is longer than it says")
		}
		_, _ = b.c.r.Discard(2)
	}
	b.begun = true
	line, err := readLine(b.c.r)
	if err != nil {
		return err
	}
	size, err := strconv.ParseUint(string(line), 16, 62)
	if err != nil || len(line) > 16 || !hexadecimal(line) {
		return bad("the size of a chunk is not just a number")
	}
	if b.left = int64(size); size > 0 { //nolint:gosec // 62 bits
		return nil
	}
	return b.end()
}

// end reads the trailer.
func (b *body) end() error {
	var lines []byte
	for {
		line, err := readLine(b.c.r)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			break
		}
		lines = append(append(lines, line...), crlf...)
		if len(lines) > maxTrailer {
			return errTooLong
		}
	}
	h, err := parseHeaders(lines)
	if err != nil {
		return err
	}
	for name, values := range h {
		if slices.Contains(framing, name) {
			return bad("the trailer has the header %s", name)
		}
		b.trailer[name] = values
	}
	b.ended = true
	return nil
}

// framing are headers that mean something before a body alone.
var framing = []string{"Transfer-Encoding", "Content-Length", "Host", "Trailer", "Authorization", "Content-Encoding", "Content-Type", "Content-Range", "Connection", "Upgrade", "Te", "Expect", "Cookie"}

// readLine reads one line, without its end, that fits the buffer.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, errTooLong
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	case !bytes.HasSuffix(line, crlf):
		return nil, bad("a line does not end with CRLF")
	}
	return line[:len(line)-2], nil
}

func hexadecimal(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return len(b) > 0
}
