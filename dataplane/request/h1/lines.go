package h1

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
)

// Lines are the status and the headers of an answer as they are written, made once for many
// answers. They do not change, and are safe for concurrent use.
type Lines struct {
	status int
	text   []byte
	length int64 // of the body; -1 where the headers do not say it
	dated  bool
}

// NewLines makes those of a final answer.
func NewLines(status int, h http.Header) *Lines {
	l := linesOf(nil, status, h)
	return &l
}

// linesOf appends the text to buf.
func linesOf(buf []byte, status int, h http.Header) Lines {
	l := Lines{status: status, length: -1, dated: h["Date"] != nil}
	b := append(buf, "HTTP/1.1 "...)
	b = append(strconv.AppendInt(b, int64(status), 10), ' ')
	b = append(append(b, http.StatusText(status)...), crlf...)
	for name, values := range h {
		switch {
		case strings.HasPrefix(name, http.TrailerPrefix):
			continue
		case name == "Content-Length":
			n, err := strconv.ParseInt(h.Get(name), 10, 64)
			if err != nil || n < 0 || status < 200 || status == http.StatusNoContent {
				continue
			}
			l.length = n
		}
		for _, v := range values {
			b, _ = appendLine(b, name, v)
		}
	}
	l.text = b
	return l
}

// appendLine appends a header, whose value cannot end it; false means that it would have.
func appendLine(b []byte, name, value string) ([]byte, bool) {
	if !token(name) || breaks(value) {
		return b, false
	}
	return append(append(append(append(b, name...), ": "...), value...), crlf...), true
}

func writeLine(w *bufio.Writer, name, value string) bool {
	b, ok := appendLine(w.AvailableBuffer(), name, value)
	_, _ = w.Write(b)
	return ok
}

// breaks reports whether a value has a character that ends its line for somebody.
func breaks(value string) bool {
	for i := range len(value) {
		if c := value[i]; c == '\r' || c == '\n' || c == 0 {
			return true
		}
	}
	return false
}
