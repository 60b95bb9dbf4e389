package detect

import (
	"bytes"
	"strings"
)

// naming says how far a name of a secret and what sets it apart have come.
type naming uint8

const (
	unnamed naming = iota
	spelt          // a name such as password
	given          // a name and = or :
	quoted         // the value is in quotes
)

// secretNames are how names of secrets end, without marks, in lower case.
var secretNames = []string{
	"password", "passwd", "passphrase", "pwd", "secret", "token", "apikey", "accesskey", "secretkey", "privatekey", "accountkey", "sharedkey",
	"signingkey", "encryptionkey", "masterkey", "authorization", "credential", "credentials", "clientsecret",
}

// nameEnds are the last two letters of them.
var nameEnds = func() (p pairSet) {
	for _, name := range secretNames {
		p.add(name[len(name)-2], name[len(name)-1])
	}
	return p
}()

// namesSecret reports whether a word names a secret.
func namesSecret(word []byte) bool {
	if len(word) < 3 || !nameEnds.has([]byte{word[len(word)-2] | 0x20, word[len(word)-1] | 0x20}) {
		return false
	}
	var buf [16]byte
	n := len(buf)
	for i := len(word) - 1; i >= 0 && n > 0; i-- {
		if b := word[i]; classes[b]&mark == 0 {
			n--
			buf[n] = b | 0x20
		}
	}
	last := string(buf[n:])
	for _, name := range secretNames {
		if strings.HasSuffix(last, name) {
			return true
		}
	}
	return false
}

// ends reports whether a byte ends the value of a name.
func (sc *Scanner) ends(b byte) bool {
	if sc.quote != 0 {
		return b == sc.quote || b == '\n' || b == '\r'
	}
	return b <= ' ' || b == '"' || b == '\'' || b == ',' || b == ';' || b == '&' || b == 0x7f
}

// value looks for the value of a name at p: what stands between, or the value itself. It
// is done up to next. Where more is true, the value goes on past the text.
func (sc *Scanner) value(text []byte, p int, final bool) (next int, more bool, m Match) {
	for ; p < len(text) && sc.name != quoted; p++ {
		b := text[p]
		switch {
		case b == '=' || b == ':':
			sc.name = given
		case b == ' ' || b == '\t' || b == '\\' || b == '>' && sc.name == given, (b == '"' || b == '\'') && sc.name == spelt:
		case sc.name == given && (b == '"' || b == '\''):
			sc.name, sc.quote = quoted, b
		case sc.name == given && b > ' ' && b != ',' && b != ';' && b != '&':
			return sc.given(text, p, final)
		default:
			sc.name = unnamed
			return p, false, m
		}
	}
	if p == len(text) {
		return p, false, m
	}
	return sc.given(text, p, final)
}

// given finds the value that begins at p.
func (sc *Scanner) given(text []byte, p int, final bool) (next int, more bool, m Match) {
	i := p
	for i < len(text) && i-p <= MaxWord && !sc.ends(text[i]) {
		i++
	}
	const block = "-----BEGIN"
	switch head := text[p:min(i, p+len(block))]; {
	case string(head) == block, len(head) > 0 && i == len(text) && !final && strings.HasPrefix(block, string(head)):
		if len(head) < len(block) {
			return p, true, m
		}
		sc.name, sc.quote = unnamed, 0
		return p, false, m
	}
	if sc.quote != 0 && i < len(text) && text[i] == sc.quote {
		for i > p && text[i-1] == '\\' {
			i--
		}
	}
	if i-p > MaxWord {
		sc.long, sc.name = longValue, unnamed
		return i, false, Match{From: p, To: i, Kind: Password, Open: true}
	}
	if i == len(text) && !final {
		return p, true, m
	}
	if sc.quote == 0 && i > p && (scheme(text[p:i]) || text[i-1] == ':') {
		return i, false, m // what is named comes after it
	}
	sc.name, sc.quote = unnamed, 0
	if namesSecret(text[p:i]) {
		sc.name = spelt // it may be the name of what follows
	}
	return i, false, Match{From: p, To: i, Kind: Password}
}

// scheme reports whether a word of a header says how the value that follows is meant.
func scheme(word []byte) bool {
	return bytes.EqualFold(word, []byte("bearer")) || bytes.EqualFold(word, []byte("basic")) || bytes.EqualFold(word, []byte("token"))
}
