package detect

// digits are the digits of a number that is written in groups.
type digits struct {
	d   [most + 1]byte
	end [most + 1]int // where the text goes on after a digit
	n   int
	cut bool // the text ended before the number did
}

// most is the most digits of a number that is looked for.
const most = 19

// collect reads the digits at p, with at most seps separators between two of them.
func (g *digits) collect(text []byte, p, seps int, separators class) {
	g.n, g.cut = 0, false
	for i := p; g.n <= most; {
		gap := 0
		for i < len(text) && gap < seps && g.n > 0 && gaps[text[i]]&separators != 0 {
			i++
			gap++
		}
		if i == len(text) {
			g.cut = true
			return
		}
		if !isDigit(text[i]) {
			return
		}
		g.d[g.n] = text[i]
		i++
		g.end[g.n] = i
		g.n++
	}
}

// whole reports whether the first n digits are not followed by a letter or digit.
func (g *digits) whole(text []byte, n int) bool {
	end := g.end[n-1]
	return end == len(text) || !isAlnum(text[end])
}

const (
	grouping class = 1 << iota // sets apart groups of digits
	dialling                   // sets apart those of telephone numbers
)

// gaps are the separators within numbers.
var gaps = [256]class{
	' ': grouping | dialling, '-': grouping | dialling, '.': grouping | dialling, '(': dialling, ')': dialling, '/': dialling,
}

// number looks for what begins with the digit at p.
func (t *tables) number(text []byte, p int, final bool) (kind Kind, to int, more bool) {
	var g digits
	g.collect(text, p, 1, grouping)
	if g.cut && !final && g.n <= most {
		return none, 0, true
	}
	if g.n >= 8 {
		if kind, to, more = t.long(text, p, &g, final); more || to > 0 {
			return kind, to, more
		}
	}
	if t.phone && g.n >= 3 {
		return american(text, p, final)
	}
	return none, 0, false
}

// long looks for what has eight digits and more. Where more is true this depends on what
// follows.
func (t *tables) long(text []byte, p int, g *digits, final bool) (kind Kind, to int, more bool) {
	if t.on[Card] {
		for n := min(g.n, most); n >= 12; n-- {
			if g.whole(text, n) && card(g.d[:n]) && cardGroups(text[p:g.end[n-1]]) {
				return Card, g.end[n-1], false
			}
		}
	}
	for _, k := range [...]struct {
		kind Kind
		n    int
	}{{FrenchID, 15}, {PolishID, 11}, {BrazilianID, 11}, {USSocial, 9}} {
		if t.on[k.kind] && g.n >= k.n && g.whole(text, k.n) && checked(k.kind, text[p:g.end[k.n-1]], g.d[:k.n]) {
			return k.kind, g.end[k.n-1], false
		}
	}
	if t.on[SpanishID] {
		end := g.end[7]
		if end < len(text) && text[end] == '-' {
			end++
		}
		if end < len(text) && dni(g.d[:8], text[end]) {
			switch {
			case end+1 == len(text) && !final: // the letter may be the first of a word
				return none, 0, true
			case end+1 == len(text), !isAlnum(text[end+1]):
				return SpanishID, end + 1, false
			}
		}
	}
	if t.phone && g.n >= 10 && g.d[0] == '0' && g.d[1] == '0' && g.end[1] == p+2 {
		if n := callingCode(g.d[2:g.n]); n > 0 && text[g.end[n+1]] == ' ' {
			for m := min(g.n, 17); m >= 10; m-- {
				if g.whole(text, m) {
					return Phone, g.end[m-1], false
				}
			}
		}
	}
	return none, 0, false
}

// cardGroups reports whether a number is written as on a card: as one, in groups of four
// of which the last may be shorter, or in groups of four, six and the rest, with one kind
// of separator.
func cardGroups(text []byte) bool {
	var sizes [7]int
	n, separator := 0, byte(0)
	for _, b := range text {
		if isDigit(b) {
			sizes[n]++
			continue
		}
		if separator == 0 {
			separator = b
		}
		if n++; b == '.' || b != separator || n == len(sizes) {
			return false
		}
	}
	if n == 0 || n == 2 && sizes[0] == 4 && sizes[1] == 6 && sizes[2] <= 5 {
		return true
	}
	for _, size := range sizes[:n] {
		if size != 4 {
			return false
		}
	}
	return sizes[n] <= 4
}

// checked reports whether the digits of a number are valid.
func checked(kind Kind, text, d []byte) bool {
	return kind == FrenchID && frenchID(d) || kind == PolishID && polishID(d) || kind == BrazilianID && brazilianID(d) || kind == USSocial && usSocial(text, d)
}

// phone looks for a number in international form at the + at p.
func phone(text []byte, p int, final bool) (Kind, int, bool) {
	var g digits
	g.collect(text, p+1, 2, dialling)
	if g.cut && !final && g.n <= 15 {
		return none, 0, true
	}
	if g.n < 8 || callingCode(g.d[:g.n]) == 0 {
		return none, 0, false
	}
	for n := min(g.n, 15); n >= 8; n-- {
		if g.whole(text, n) {
			return Phone, g.end[n-1], false
		}
	}
	return none, 0, false
}

// american looks for a number of North America in its groups of three, three and four.
func american(text []byte, p int, final bool) (Kind, int, bool) {
	var g digits
	g.collect(text, p, 2, dialling)
	if g.d[0] < '2' || g.n > 3 && (g.d[3] < '2' || g.end[3] < g.end[2]+2) || g.n > 2 && g.end[2] != p+3 {
		return none, 0, false
	}
	if g.cut && !final && g.n <= 10 {
		return none, 0, true
	}
	if g.n < 10 || g.end[6] < g.end[5]+2 || g.end[5] != g.end[3]+2 || g.end[9] != g.end[6]+3 || !g.whole(text, 10) {
		return none, 0, false
	}
	return Phone, g.end[9], false
}

// A shape is what a coded number looks like: L a letter, D a digit, A either.
type shape string

// take reads what has the shape at p into dst, in upper case, with at most one space or
// dash between two characters. Where more is true this depends on what follows.
func (s shape) take(dst []byte, text []byte, p int, final bool) (to int, more bool) {
	i := p
	for k := range len(s) {
		if k > 0 && i < len(text) && (text[i] == ' ' || text[i] == '-') {
			i++
		}
		if i == len(text) {
			return 0, !final
		}
		b := text[i]
		switch c := classes[b]; {
		case s[k] == 'L' && c&letter == 0, s[k] == 'D' && c&digit == 0, c&alnum == 0:
			return 0, false
		}
		dst[k] = upper(b)
		i++
	}
	switch {
	case i == len(text):
		if !final {
			return 0, true
		}
	case isAlnum(text[i]):
		return 0, false
	}
	return i, false
}

const (
	ibanShape    shape = "LLDDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	ukShape      shape = "LLDDDDDDL"
	nieShape     shape = "LDDDDDDDL"
	italianShape shape = "LLLLLLDDLDDLDDDL"
)

// letters looks for what begins with the letter at p and has a shape.
func (t *tables) letters(text []byte, p int, final bool) (kind Kind, to int, more bool) {
	var buf [len(ibanShape)]byte
	if t.on[IBAN] && p+4 <= len(text) && isDigit(text[p+2]) && isDigit(text[p+3]) {
		if n := ibanLength(upper(text[p]), upper(text[p+1])); n > 0 {
			if to, more = ibanShape[:n].take(buf[:], text, p, final); more || to > 0 && mod97(buf[:n]) {
				return IBAN, to, more
			}
		}
	}
	for _, k := range [...]struct {
		kind  Kind
		shape shape
	}{{UKInsurance, ukShape}, {SpanishID, nieShape}, {ItalianID, italianShape}} {
		if t.on[k.kind] {
			if to, more = k.shape.take(buf[:], text, p, final); more || to > 0 && coded(k.kind, buf[:len(k.shape)]) {
				return k.kind, to, more
			}
		}
	}
	return none, 0, false
}

// coded reports whether what has the shape of a kind is valid.
func coded(kind Kind, s []byte) bool {
	return kind == UKInsurance && ukInsurance(s) || kind == SpanishID && nie(s) || kind == ItalianID && italianID(s)
}
