package content

import (
	"bufio"
	"compress/flate"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Limits of what is unpacked.
const (
	// MaxRatio is how many bytes may be unpacked of one, past the first MaxFree.
	MaxRatio = 200
	// MaxFree is how much may be unpacked of however little.
	MaxFree = 1 << 20
	// maxWindow is the memory that one packed body may ask for.
	maxWindow = 8 << 20
	// readSize is how much is read at once.
	readSize = 32 << 10
)

// ErrBomb means that a body unpacks to far more than it is.
var ErrBomb = errors.New("it unpacks to far more than it is")

// A Reader reads a body with its masks. Reads return what may be shown as soon as it may.
// It is for one goroutine.
type Reader struct {
	body   io.ReadCloser
	masker Masker
	buf    []byte
	out    []byte
	at     int
	err    error
}

// NewReader reads body, which has this Content-Encoding, through a masker. What is read is
// not packed, whatever body is: Content-Encoding and Content-Length are no longer so, and
// neither are digests and ETags of it. An error is ErrType: nothing of the body may be shown.
func NewReader(body io.ReadCloser, m Masker, contentEncoding string) (*Reader, error) {
	body, err := Unpack(body, contentEncoding)
	if err != nil {
		return nil, err
	}
	return &Reader{body: body, masker: m, buf: make([]byte, readSize)}, nil
}

// Read is part of io.Reader. An error beside io.EOF means that the rest must not be shown.
func (r *Reader) Read(p []byte) (int, error) {
	for r.at == len(r.out) && r.err == nil {
		r.out, r.at = r.out[:0], 0
		n, err := r.body.Read(r.buf)
		if n > 0 {
			if r.out, r.err = r.masker.Append(r.out, r.buf[:n]); r.err != nil {
				r.out = r.out[:0]
				break
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			if r.out, r.err = r.masker.Close(r.out); r.err == nil {
				r.err = io.EOF
			}
		case err != nil:
			r.err = err
		}
	}
	n := copy(p, r.out[r.at:])
	r.at += n
	if n == 0 && len(p) > 0 {
		return 0, r.err
	}
	return n, nil
}

// Close closes the body.
func (r *Reader) Close() error { return r.body.Close() }

// Unpack undoes a Content-Encoding. What it undoes is bounded by MaxRatio: then reading fails
// with ErrBomb. An error is ErrType: it is none that is known.
func Unpack(body io.ReadCloser, encoding string) (io.ReadCloser, error) {
	encoding = strings.ToLower(strings.TrimSpace(encoding))
	if encoding == "" || encoding == "identity" {
		return body, nil
	}
	u := &unpacker{body: body}
	switch encoding {
	case "gzip", "x-gzip":
		u.open = func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }
	case "deflate":
		u.open = inflate
	case "br":
		u.open = func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil }
	case "zstd":
		u.open = func(r io.Reader) (io.Reader, error) {
			d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
			if err != nil {
				return nil, err
			}
			u.end = d.Close
			return d, nil
		}
	default:
		return nil, fmt.Errorf("content encoding %q: %w", encoding, ErrType)
	}
	return u, nil
}

// inflate reads what HTTP calls deflate: zlib, or by some without its frame.
func inflate(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	head, err := b.Peek(2)
	if err != nil {
		return nil, fmt.Errorf("read a deflated body: %w", err)
	}
	if head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		return zlib.NewReader(b)
	}
	return flate.NewReader(b), nil
}

// unpacker unpacks a body, and counts what went in and came out.
type unpacker struct {
	body    io.ReadCloser
	open    func(io.Reader) (io.Reader, error)
	end     func()
	from    io.Reader
	in, out int64
}

// Read opens the body first, for that may wait for it.
func (u *unpacker) Read(p []byte) (int, error) {
	if u.from == nil {
		from, err := u.open(counter{u})
		if err != nil {
			if errors.Is(err, io.EOF) && u.in == 0 {
				return 0, io.EOF // nothing at all
			}
			return 0, fmt.Errorf("unpack a body: %w", err)
		}
		u.from = from
	}
	n, err := u.from.Read(p)
	if u.out += int64(n); u.out > MaxFree && u.out > u.in*MaxRatio {
		return 0, fmt.Errorf("unpack a body: %w", ErrBomb)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("unpack a body: %w", err)
	}
	return n, err
}

func (u *unpacker) Close() error {
	if u.end != nil {
		u.end()
	}
	return u.body.Close()
}

// counter counts what is read of the packed body.
type counter struct{ u *unpacker }

func (c counter) Read(p []byte) (int, error) {
	n, err := c.u.body.Read(p)
	c.u.in += int64(n)
	return n, err
}
