package detect

import (
	"bytes"
	"strings"
	"time"
)

// FlushAfter is how long nothing need have come until what is held back may be flushed.
const FlushAfter = 100 * time.Millisecond

const (
	// maxFlush is the longest text that is flushed, in bytes.
	maxFlush = 24
	// maxFlushDigits is how many digits of a number it may have.
	maxFlushDigits = 4
)

// Harmless reports whether text, which Scan has not decided yet, says little enough to
// be shown before it is: it is short, no address, no number of more than a few digits,
// no beginning of a token, of a key or of a value that has a name.
func (sc *Scanner) Harmless(text []byte) bool {
	if len(text) == 0 || len(text) > maxFlush || sc.block != 0 || sc.long != short || sc.name != unnamed || bytes.ContainsAny(text, "@%") {
		return false
	}
	n := 0
	for i, b := range text {
		if isDigit(b) {
			n++
		}
		if isAlnum(b) && (i == 0 || !isAlnum(text[i-1])) && sc.set.begins(text[i:]) {
			return false
		}
	}
	return n <= maxFlushDigits
}

// begins reports whether text may be the beginning of a token, or is one.
func (s *Set) begins(text []byte) bool {
	if s.scan.jwt && shared("eyJ", text) >= 2 {
		return true
	}
	if s.scan.blocks && shared("PuTTY-User", text) >= 2 {
		return true
	}
	for i := range s.scan.tokens {
		if p := s.scan.tokens[i].prefix; shared(p, text) >= min(3, len(p)) {
			return true
		}
	}
	return false
}

// shared is how long text and a prefix are the same, where one of them ends with that;
// 0 where they part.
func shared(prefix string, text []byte) int {
	n := min(len(prefix), len(text))
	if strings.HasPrefix(prefix, string(text[:n])) {
		return n
	}
	return 0
}
