package detect

import "bytes"

// Limits of what is held back while it may still become something.
const (
	// MaxWord is the longest run of word characters, or value of a password, that is
	// looked at; a longer one could be a secret longer than any that is known, and is
	// masked whole.
	MaxWord = 4096
	// maxBlock is the longest private key, from its first line to its last.
	maxBlock = 64 << 10
	// maxLook is how far a number, or the first line of a key, reaches past a word.
	maxLook = 96
)

// A Match is a part of a text that is masked.
type Match struct {
	From, To int
	Kind     Kind // zero where the text is too long to tell
	// Open says that the text does not end here: matches with More follow.
	Open bool
	// More goes on with the match before: what stands for it was shown there.
	More bool
}

// A Scanner finds matches in a text that comes in pieces. It is a value: a copy goes on
// by itself. The zero Scanner finds nothing; NewScanner makes one.
type Scanner struct {
	set   *Set
	prev  byte  // the byte before the text
	block uint8 // an open block, counted from 1
	size  int   // of the open block so far
	long  long
	name  naming
	quote byte // that ends the value
	tail  int  // bytes at the beginning of the text that are known to be of one word
	flags class
}

// long says what a text without end is.
type long uint8

const (
	short     long = iota
	longWord       // ends with the word
	longValue      // ends with the value
)

// NewScanner is a Scanner at the beginning of a text.
func (s *Set) NewScanner() Scanner { return Scanner{set: s} }

// Scan finds the matches in text, which goes on from where the last call said that it was
// done, and appends them to out. Past done nothing is decided until more is known; final
// says that nothing more comes, and all is decided. What is undecided is shorter than
// MaxWord and maxLook together, however long text is. The matches do not overlap, and are
// the same however the text is cut.
func (sc *Scanner) Scan(text []byte, final bool, out []Match) (done int, matches []Match) {
	if sc.set == nil {
		return len(text), out
	}
	done, out = sc.scan(text, final, out)
	if done > 0 {
		sc.prev = text[done-1]
	}
	return done, out
}

func (sc *Scanner) scan(text []byte, final bool, out []Match) (int, []Match) {
	t := &sc.set.scan
	tail := sc.tail
	sc.tail = 0
	for i := 0; i < len(text); {
		switch {
		case sc.block != 0:
			next, done := sc.endBlock(text, i, final)
			if next > i {
				out = append(out, Match{From: i, To: next, Kind: PrivateKey, Open: sc.block != 0, More: true})
			}
			if i = next; done {
				return i, out
			}
			continue
		case sc.long != short:
			next := sc.endLong(text, i)
			if next > i {
				out = append(out, Match{From: i, To: next, Open: next == len(text), More: true})
			}
			if i = next; i < len(text) {
				sc.long, sc.quote = short, 0
			}
			continue
		case sc.name != unnamed:
			next, more, m := sc.value(text, i, final)
			if m.To > m.From {
				out = append(out, m)
			}
			if more {
				return next, out
			}
			if next > i {
				i = next
				continue
			}
		}
		start := i
		var flags class
		if start == 0 && tail > 0 { // what is known from before
			i, flags = tail, sc.flags
		}
		for i < len(text) {
			c := classes[text[i]]
			if c == 0 {
				break
			}
			flags |= c
			i++
		}
		if i == start {
			for i++; i < len(text) && classes[text[i]] == 0 && sc.name == unnamed; i++ {
			}
			continue
		}
		if i-start > MaxWord {
			i = start + MaxWord
			if few(text[start:i]) {
				continue
			}
			out = append(out, Match{From: start, To: i, Open: true})
			sc.long = longWord
			continue
		}
		if i == len(text) && !final {
			sc.tail, sc.flags = i-start, flags
			return start, out
		}
		if flags&t.watch != 0 || t.pairs.has(text[start:i]) {
			found := len(out)
			var more bool
			if i, more, out = sc.word(text, start, i, flags, final, out); more {
				return start, out[:found] // what the rest is depends on the whole word
			}
		}
		if t.names && sc.block == 0 && classes[text[i-1]]&letter != 0 && namesSecret(text[start:i]) {
			sc.name = spelt
		}
	}
	return len(text), out
}

// few reports whether a long word is not of letters and digits, such as a ruler.
func few(word []byte) bool {
	n := 0
	for _, b := range word {
		if classes[b]&alnum != 0 {
			n++
		}
	}
	return n < len(word)/8
}

// endLong is where what is too long ends.
func (sc *Scanner) endLong(text []byte, i int) int {
	for ; i < len(text); i++ {
		if sc.long == longWord && classes[text[i]] == 0 || sc.long == longValue && sc.ends(text[i]) {
			break
		}
	}
	return i
}

// A block is a private key of several lines.
type block struct{ begin, also, end, last string }

var blocks = [...]block{
	{begin: "-----BEGIN", also: "PRIVATE KEY", end: "-----END", last: "-----"},
	{begin: "PuTTY-User-Key-File-", end: "Private-MAC", last: "\n"},
}

// beginBlock reports whether a word begins a block; more, that this is not known yet. The
// word ends at e.
func (sc *Scanner) beginBlock(text []byte, s, e int, final bool) (begins, more bool) {
	word := text[s:e]
	for i := range blocks {
		b := &blocks[i]
		if b.also == "" {
			begins = bytes.HasPrefix(word, []byte(b.begin))
		} else if bytes.HasSuffix(word, []byte(b.begin)) {
			line := text[e:min(len(text), e+maxLook)]
			n := 0
			for n < len(line) && (line[n] == ' ' || line[n] >= 'A' && line[n] <= 'Z' || line[n] >= '0' && line[n] <= '9') {
				n++
			}
			if begins = bytes.Contains(line[:n], []byte(b.also)); !begins && n == len(line) && n < maxLook && !final {
				return false, true
			}
		}
		if begins {
			sc.block, sc.size = uint8(i+1), 0
			return true, false
		}
	}
	return false, false
}

// endBlock is how far the open block reaches into text from i. Where it is done, what
// follows is not known yet.
func (sc *Scanner) endBlock(text []byte, i int, final bool) (next int, done bool) {
	b := &blocks[sc.block-1]
	rest, room := text[i:], maxBlock-sc.size
	at := bytes.Index(rest, []byte(b.end))
	whole := at >= 0
	switch {
	case !whole && final:
		at = len(rest)
	case !whole:
		at = max(0, len(rest)-len(b.end)+1)
	}
	if at > room {
		sc.block = 0
		return i + room, false
	}
	if whole {
		from := at + len(b.end)
		line := rest[from:min(len(rest), from+maxLook)]
		if n := bytes.Index(line, []byte(b.last)); n >= 0 {
			sc.block = 0
			return i + from + n + len(b.last), false
		}
		if len(line) == maxLook { // no such line ends
			sc.block = 0
			return i + from, false
		}
		if final {
			at = len(rest)
		}
	}
	sc.size += at
	return i + at, true
}
