package detect

// A class is what a byte may be part of; of a word, what its bytes are of together.
type class uint8

const (
	letter class = 1 << iota
	digit
	mark    // _ . + % -
	at      // @
	percent // %, which may be an @ of a URL
	alnum   = letter | digit
)

// classes are of the bytes of words. Bytes of other scripts end a word.
var classes = func() (c [256]class) {
	for b := 'a'; b <= 'z'; b++ {
		c[b], c[b-'a'+'A'] = letter, letter
	}
	for b := '0'; b <= '9'; b++ {
		c[b] = digit
	}
	for _, b := range "_.+-" {
		c[b] = mark
	}
	c['%'] = mark | percent
	c['@'] = at
	return c
}()

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func isAlnum(b byte) bool { return classes[b]&alnum != 0 }

func isHex(b byte) bool { return isDigit(b) || b|0x20 >= 'a' && b|0x20 <= 'f' }

// upper is a letter in upper case.
func upper(b byte) byte {
	if b >= 'a' && b <= 'z' {
		return b - 'a' + 'A'
	}
	return b
}

// A pairSet is a set of the first two bytes of something.
type pairSet [1 << 11]uint32

func (p *pairSet) add(a, b byte) {
	n := uint(a)<<8 | uint(b)
	p[n>>5] |= 1 << (n & 31)
}

func (p *pairSet) has(word []byte) bool {
	if len(word) < 2 {
		return false
	}
	n := uint(word[0])<<8 | uint(word[1])
	return p[n>>5]&(1<<(n&31)) != 0
}
