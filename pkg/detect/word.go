package detect

import "bytes"

// tables are what a Set looks for, compiled.
type tables struct {
	watch  class   // words with a byte of these are looked at
	pairs  pairSet // and those that begin so
	tokens []token
	email  bool
	jwt    bool
	names  bool // values are masked by their names
	blocks bool
	digits bool // something begins with a digit
	phone  bool
	coded  bool // something begins with letters and goes on with digits
	on     *[kinds]bool
}

func (s *Set) compile() tables {
	t := tables{on: &s.on, email: s.on[Email], jwt: s.on[JWT], names: s.on[Password], blocks: s.on[PrivateKey], phone: s.on[Phone]}
	t.digits = s.on[Card] || s.on[USSocial] || s.on[SpanishID] || s.on[FrenchID] || s.on[PolishID] || s.on[BrazilianID] || t.phone
	t.coded = s.on[IBAN] || s.on[UKInsurance] || s.on[SpanishID] || s.on[ItalianID]
	if t.email {
		t.watch |= at | percent
	}
	if t.digits || t.coded {
		t.watch |= digit
	}
	for _, tok := range allTokens {
		if s.on[tok.kind] {
			t.tokens = append(t.tokens, tok)
			t.pairs.add(tok.prefix[0], tok.prefix[1])
		}
	}
	if t.jwt {
		t.pairs.add('e', 'y')
	}
	if t.blocks {
		t.pairs.add('P', 'u')
	}
	if len(t.tokens) > 0 || t.jwt || t.blocks {
		t.watch |= mark // they may begin after one
	}
	if s.on[UKInsurance] {
		for a := byte('A'); a <= 'Z'; a++ {
			for b := byte('A'); b <= 'Z'; b++ {
				t.pairs.add(a, b) // the digits may stand apart
			}
		}
	}
	return t
}

// word finds what is in the word between s and e, and says where the text goes on, which may
// be past e. Where more is true it depends on what follows the text.
func (sc *Scanner) word(text []byte, s, e int, flags class, final bool, out []Match) (next int, more bool, _ []Match) {
	t := &sc.set.scan
	if t.blocks && e-s >= len("-----BEGIN") {
		begins, more := sc.beginBlock(text, s, e, final)
		switch {
		case more:
			return 0, true, out
		case begins:
			return e, false, append(out, Match{From: s, To: e, Kind: PrivateKey, Open: true})
		}
	}
	mail, mailEnd := -1, -1
	if t.email && flags&(at|percent) != 0 {
		mail, mailEnd = email(text[:e], s)
	}
	for p := s; p < e; {
		if !isAlnum(text[p]) && text[p] != '+' {
			p++
			continue
		}
		var kind Kind
		var to int
		if p == mail {
			if kind, to = t.token(text[:e], p); to == 0 {
				kind, to = Email, mailEnd
			}
		} else if kind, to, more = sc.at(text, p, e, final); more {
			return 0, true, out
		}
		if to > p {
			out = append(out, Match{From: p, To: to, Kind: kind})
			if to >= e {
				return to, false, out
			}
			p = to
			if mail >= 0 {
				mail, mailEnd = email(text[:e], p)
			}
			continue
		}
		if n := sc.escape(text, s, p); n > 0 && p+n < e {
			if p += n; p == mail {
				continue
			}
			if isAlnum(text[p]) {
				if kind, to, more = sc.at(text, p, e, final); more {
					return 0, true, out
				}
				if to > p {
					out = append(out, Match{From: p, To: to, Kind: kind})
					if to >= e {
						return to, false, out
					}
					p = to
					continue
				}
			}
		}
		if text[p] == '+' {
			p++
			continue
		}
		for p < e && isAlnum(text[p]) {
			if p++; p == mail {
				break
			}
		}
	}
	return e, false, out
}

// escape is the length of what ends an escape sequence at p, after which a word may
// begin: the n of \n, or the digits of %20.
func (sc *Scanner) escape(text []byte, s, p int) int {
	switch before := sc.before(text, p); {
	case before == '\\' && p == s && bytes.IndexByte([]byte("nrtbf"), text[p]) >= 0:
		return 1
	case before == '%' && p+1 < len(text) && isHex(text[p]) && isHex(text[p+1]):
		return 2
	}
	return 0
}

func (sc *Scanner) before(text []byte, p int) byte {
	if p == 0 {
		return sc.prev
	}
	return text[p-1]
}

// at looks for what begins at p, within a word that ends at e.
func (sc *Scanner) at(text []byte, p, e int, final bool) (kind Kind, to int, more bool) {
	t := &sc.set.scan
	b := text[p]
	switch {
	case classes[b]&letter != 0:
		if t.pairs.has(text[p:e]) {
			if kind, to = t.token(text[:e], p); to > 0 {
				return kind, to, false
			}
		}
		if t.coded {
			return t.letters(text, p, final)
		}
	case isDigit(b):
		if t.digits {
			return t.number(text, p, final)
		}
	case b == '+' && t.phone && p+1 < len(text) && isDigit(text[p+1]) && !isAlnum(sc.before(text, p)):
		return phone(text, p, final)
	}
	return none, 0, false
}

// email is the first address in text from s on; -1 where there is none. What is before
// the @ are letters, digits and marks; what follows are labels of which one that is not
// the first begins with a letter and is longer than that.
func email(text []byte, s int) (from, to int) {
	for from = s; ; {
		i := bytes.IndexAny(text[from:], "@%")
		if i < 0 {
			return -1, -1
		}
		i += from
		width := 1
		if text[i] == '%' {
			if i+3 > len(text) || text[i+1] != '4' || text[i+2] != '0' {
				// A mark within what is before the @.
				j := bytes.Index(text[i:], []byte("%40"))
				k := bytes.IndexByte(text[i:], '@')
				switch {
				case k >= 0 && (j < 0 || k < j):
					i += k
				case j >= 0:
					i, width = i+j, 3
				default:
					return -1, -1
				}
			} else {
				width = 3
			}
		}
		local := from
		for local < i && !isAlnum(text[local]) {
			local++
		}
		if end := domain(text, i+width); local < i && end > 0 {
			return local, end
		}
		from = i + width
	}
}

// domain is where the domain ends that begins at p; 0 where none does.
func domain(text []byte, p int) int {
	end, labels, good := p, 0, false
	for i := p; ; {
		from := i
		for i < len(text) && (isAlnum(text[i]) || text[i] == '-' || text[i] == '_') {
			i++
		}
		if i == from {
			break
		}
		end = i
		if labels++; labels > 1 && i-from > 1 && classes[text[from]]&letter != 0 {
			good = true
		}
		if i == len(text) || text[i] != '.' {
			break
		}
		i++
	}
	for end > p && !isAlnum(text[end-1]) {
		end--
	}
	if !good {
		return 0
	}
	return end
}
