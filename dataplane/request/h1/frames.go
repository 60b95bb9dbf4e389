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

// frames read the body of one message, and no further than that.
type frames struct {
	r       *bufio.Reader
	left    int64 // of the length, or of this chunk
	chunked bool
	open    bool // it ends with the connection
	begun   bool // a chunk has been read
	ended   bool
	err     error
	trailer http.Header // filled in at the end
}

func (f *frames) Read(p []byte) (int, error) {
	switch {
	case f.err != nil:
		return 0, f.err
	case f.ended:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	if f.chunked && f.left == 0 {
		if err := f.next(); err != nil {
			return 0, f.fail(err)
		}
		if f.ended {
			return 0, io.EOF
		}
	}
	if !f.open {
		p = p[:min(int64(len(p)), f.left)]
	}
	n, err := f.r.Read(p)
	switch {
	case f.open && errors.Is(err, io.EOF):
		f.ended = true
		return n, io.EOF
	case errors.Is(err, io.EOF):
		return n, f.fail(io.ErrUnexpectedEOF)
	case err != nil:
		return n, f.fail(err)
	case f.open:
		return n, nil
	}
	if f.left -= int64(n); f.left == 0 && !f.chunked {
		f.ended = true
	}
	return n, nil
}

func (f *frames) fail(err error) error {
	f.err = err
	return err
}

// next reads the head of the next chunk, and behind the last one the trailer.
func (f *frames) next() error {
	if f.begun {
		if end, err := f.r.Peek(2); err != nil || !bytes.Equal(end, crlf) {
			return bad("a chunk is longer than it says")
		}
		_, _ = f.r.Discard(2)
	}
	f.begun = true
	line, err := readLine(f.r)
	if err != nil {
		return err
	}
	size, err := strconv.ParseUint(string(line), 16, 62)
	if err != nil || len(line) > 16 || !hexadecimal(line) {
		return bad("the size of a chunk is not just a number")
	}
	if f.left = int64(size); size > 0 { //nolint:gosec // 62 bits
		return nil
	}
	return f.end()
}

// end reads the trailer.
func (f *frames) end() error {
	var lines []byte
	for {
		line, err := readLine(f.r)
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
	h, err := parseHeaders(string(lines))
	if err != nil {
		return err
	}
	for name, values := range h {
		if slices.Contains(framing, name) {
			return bad("the trailer has the header %s", name)
		}
		f.trailer[name] = values
	}
	f.ended = true
	return nil
}

// framing are headers that mean something before a body alone.
var framing = []string{"Transfer-Encoding", "Content-Length", "Host", "Trailer", "Authorization", "Content-Encoding", "Content-Type", "Content-Range", "Connection", "Upgrade", "Te", "Expect", "Cookie", "Set-Cookie"}

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
