// Package h1 is HTTP/1.1, spoken strictly, as a server and as a client: what two programs
// are known to read in two ways ends the connection before anybody judges it. Lines end
// with CRLF, a body is framed by one length or by chunks without extensions, and no header
// is continued on a further line. What it hands on is in the types of net/http.
package h1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Bounds of a head beside its size.
const (
	maxHeaders = 200
	maxMethod  = 32
)

// An Error is what the other side did that nobody should guess about.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

func bad(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// errTooLong is a head that is longer than it may be.
var errTooLong = &Error{"the head of the message is too long"}

// readHead reads the lines of a head, without the empty one that ends it, into buf.
func readHead(r *bufio.Reader, buf []byte, most int) ([]byte, error) {
	first := true
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if buf = append(buf, line...); len(buf) > most {
				return buf, errTooLong
			}
			continue
		}
		if err != nil {
			if errors.Is(err, io.EOF) && (len(buf) > 0 || len(line) > 0) {
				err = io.ErrUnexpectedEOF
			}
			return buf, err
		}
		buf = append(buf, line...)
		switch {
		case len(buf) > most:
			return buf, errTooLong
		case !bytes.HasSuffix(buf, crlf):
			return buf, bad("a line does not end with CRLF")
		case len(line) == 2 && bytes.HasSuffix(buf[:len(buf)-2], crlf):
			return buf[:len(buf)-2], nil
		case len(buf) == 2 && first: // some clients send an empty line after a body
			buf, first = buf[:0], false
		case len(buf) == 2:
			return buf, bad("the request begins with empty lines")
		}
	}
}

var crlf, headEnd = []byte("\r\n"), []byte("\r\n\r\n")

// parseHead makes a request of a head, which mostly says what the head before said, or all of
// it below the first line. Its body is not set yet.
func parseHead(ctx context.Context, head []byte, before *said) (*http.Request, *said, error) {
	line, lines, _ := bytes.Cut(head, crlf)
	same := before != nil && before.length == 0 && before.lines == string(lines)
	if same && before.line == string(line) {
		again := before.last
		return &again, before, nil
	}
	r := (&http.Request{ProtoMajor: 1}).WithContext(ctx)
	text := string(line)
	err := parseLine(r, text)
	if err != nil {
		return nil, nil, err
	}
	s := before
	if !same || s.minor != r.ProtoMinor {
		if s, err = parseLines(string(lines), r.ProtoMinor); err != nil {
			return nil, nil, err
		}
	}
	r.Header, r.Host, r.TransferEncoding, r.ContentLength, r.Close = s.header, s.host, s.codings, s.length, s.close
	s.line, s.last = text, *r
	return r, s, nil
}

// said is what the lines of a head below the first say.
type said struct {
	lines   string
	minor   int // the version is HTTP/1.minor
	header  http.Header
	host    string
	codings []string
	length  int64 // -1 is chunks
	close   bool
	memo    any

	line string       // the first one of the last head that had these lines
	last http.Request // that it made
}

func parseLines(lines string, minor int) (*said, error) {
	s := &said{lines: lines, minor: minor}
	var err error
	if s.header, err = parseHeaders(lines); err != nil {
		return nil, err
	}
	hosts := s.header["Host"]
	delete(s.header, "Host")
	switch {
	case len(hosts) > 1:
		return nil, bad("there are two hosts")
	case len(hosts) == 1:
		s.host = hosts[0]
	case minor == 1:
		return nil, bad("there is no host")
	}
	if strings.ContainsAny(s.host, " \t,/\\@?#%<>\"") {
		return nil, bad("the host is not the name of one")
	}
	return s, s.frame()
}

func parseLine(r *http.Request, line string) error {
	method, rest, ok := strings.Cut(line, " ")
	target, proto, ok2 := strings.Cut(rest, " ")
	r.Method, r.RequestURI, r.Proto = method, target, proto
	switch {
	case !ok || !ok2 || target == "":
		return bad("the first line is not METHOD TARGET VERSION")
	case !token(method) || len(method) > maxMethod:
		return bad("the method is not one word")
	case proto == "HTTP/1.1":
		r.ProtoMinor = 1
	case proto != "HTTP/1.0":
		return bad("the version is not HTTP/1.1")
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f {
			return bad("the target has a character that must be encoded")
		}
	}
	path, query, _ := strings.Cut(target, "?")
	r.URL = &url.URL{Path: path, RawQuery: query}
	return nil
}

func parseHeaders(text string) (http.Header, error) {
	n := strings.Count(text, "\r\n") // just as many as there are: a map of eight is a small one
	if !strings.HasSuffix(text, "\r\n") {
		n++
	}
	if n > maxHeaders {
		return nil, bad("there are more than %d headers", maxHeaders)
	}
	h := make(http.Header, n)
	all := make([]string, n) // of which each header that stands once has its one value
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		if !ok || !token(name) {
			return nil, bad("a header is not NAME: VALUE")
		}
		value = strings.Trim(value, " \t")
		for i := range len(value) {
			if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
				return nil, bad("a header has a character that cannot be seen")
			}
		}
		name = http.CanonicalHeaderKey(name)
		if have := h[name]; have != nil {
			h[name] = append(have, value)
			continue
		}
		one := all[:1:1]
		one[0], all = value, all[1:]
		h[name] = one
	}
	return h, nil
}

// frame says how long the body is: by one length, or by chunks, and never by both.
func (s *said) frame() error {
	codings, lengths := s.header["Transfer-Encoding"], s.header["Content-Length"]
	switch {
	case len(codings) > 0 && len(lengths) > 0:
		return bad("the body has a length and is in chunks")
	case len(codings) > 0:
		if len(codings) > 1 || !strings.EqualFold(codings[0], "chunked") || s.minor == 0 {
			return bad("the body is encoded in a way that is not just chunked")
		}
		s.codings, s.length = []string{"chunked"}, -1
		delete(s.header, "Transfer-Encoding")
	case len(lengths) > 1:
		return bad("the body has two lengths")
	case len(lengths) == 1:
		var err error
		if s.length, err = parseLength(lengths[0]); err != nil {
			return err
		}
	}
	s.close = s.minor == 0 || closes(s.header)
	return nil
}

func parseLength(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 62)
	if err != nil || strings.Trim(s, "0123456789") != "" {
		return 0, bad("the length of the body is not a number")
	}
	return int64(n), nil //nolint:gosec // 62 bits
}

// closes reports whether the connection ends with the message.
func closes(h http.Header) bool {
	for _, v := range h["Connection"] {
		for option := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(option), "close") {
				return true
			}
		}
	}
	return false
}

// token reports whether s is a token (RFC 9110, 5.6.2).
func token(s string) bool {
	for i := range len(s) {
		if !tokens[s[i]] {
			return false
		}
	}
	return s != ""
}

var tokens = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()
