// Package detect finds and masks what is confidential by what it looks like: addresses,
// numbers of cards and accounts, keys and tokens, in text of any kind and in streams of
// it. It is best effort, level L0: what is encoded, or spelt in a way that nobody would
// read, is not found. Candidates come from one pass over the text with scanners of our
// own and are checked by their checksums. The result is the same however a text is cut
// into chunks.
package detect

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/mask"
	"github.com/posterngate/postern/pkg/postern"
)

// A Kind is one kind of content.
type Kind uint8

// The kinds, in the order of precedence where one text could be two of them.
const (
	none         Kind = iota
	PrivateKey        // PEM, OpenSSH, PGP and PuTTY private keys, whole
	JWT               // JSON web tokens, signed or encrypted
	CloudKey          // keys of AWS, Google Cloud, Azure and others
	Token             // tokens of code hosts, chat, payment and other services
	PosternToken      // Postern's own
	Password          // values that are named password, secret, token or alike
	Email             // e-mail addresses in ASCII
	IBAN              // bank accounts: country, length, mod 97
	Card              // payment cards: issuer, length, Luhn
	USSocial          // US social security numbers, in groups
	UKInsurance       // UK national insurance numbers
	SpanishID         // DNI and NIE
	ItalianID         // codice fiscale
	FrenchID          // numéro de sécurité sociale
	PolishID          // PESEL
	BrazilianID       // CPF
	Phone             // numbers that begin with + or 00, and of North America in groups
	kinds
)

// names are the words of policy.
var names = [kinds]string{
	PrivateKey: "private-key", JWT: "jwt", CloudKey: "cloud-key", Token: "token", PosternToken: "postern-token", Password: "password",
	Email: "email", IBAN: "iban", Card: "card", USSocial: "us-ssn", UKInsurance: "uk-nino", SpanishID: "es-dni", ItalianID: "it-cf",
	FrenchID: "fr-nir", PolishID: "pl-pesel", BrazilianID: "br-cpf", Phone: "phone",
}

// groups are words for several kinds.
var groups = map[string][]Kind{
	"secrets":     {PrivateKey, JWT, CloudKey, Token, PosternToken, Password},
	"national-id": {USSocial, UKInsurance, SpanishID, ItalianID, FrenchID, PolishID, BrazilianID},
}

func (k Kind) String() string {
	if k < kinds && k != none {
		return names[k]
	}
	return "unknown"
}

// Names lists what policy may name, sorted.
func Names() []string {
	out := slices.Clone(names[1:])
	for name := range groups {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Check says what is wrong with a name of policy.
func Check(name string) error {
	if len(ofName(name)) == 0 {
		return fmt.Errorf("%q is not a kind of content that is known; known: %s", name, strings.Join(Names(), ", "))
	}
	return nil
}

func ofName(name string) []Kind {
	if i := slices.Index(names[1:], name); i >= 0 {
		return []Kind{Kind(i + 1)}
	}
	return groups[name]
}

// A Set is what is looked for, and how each is masked. It is immutable and safe for
// concurrent use.
type Set struct {
	on      [kinds]bool
	writers [kinds]mask.Writer
	scan    tables
}

// errEmpty means that there is nothing to look for.
var errEmpty = errors.New("nothing is to be detected")

// Compile makes a Set of what policy says. A kind that has a rule of its own keeps it,
// where a group names it too. An unknown kind or a mask that does not fit text is an
// error, and then there is no Set.
func Compile(rules []postern.DetectRule) (*Set, error) {
	s := &Set{}
	for _, group := range []bool{false, true} {
		for _, r := range rules {
			of := ofName(r.Kind)
			if len(of) == 0 {
				return nil, Check(r.Kind)
			}
			if (len(of) > 1) != group {
				continue
			}
			w, err := mask.NewWriter(r.Mask, "text")
			if err != nil {
				return nil, fmt.Errorf("detect %s: %w", r.Kind, err)
			}
			for _, k := range of {
				if !s.on[k] {
					s.on[k], s.writers[k] = true, w
				}
			}
		}
	}
	if len(rules) == 0 {
		return nil, errEmpty
	}
	s.scan = s.compile()
	return s, nil
}

// hidden stands for what is longer than anything that is known, and for parts of which a
// mask that shows some would need the whole.
const hidden = "[hidden]"

// masked appends what is shown in the place of text.
func (s *Set) masked(dst []byte, k Kind, text []byte) []byte {
	if k == none {
		return append(dst, hidden...)
	}
	return s.writers[k].AppendMasked(dst, text)
}

// open appends what is shown in the place of text of which the end is not known.
func (s *Set) open(dst []byte, k Kind) []byte {
	w := &s.writers[k]
	switch {
	case k == none || !w.Null() && !w.Constant():
		return append(dst, hidden...)
	case w.Null():
		return dst
	}
	return w.AppendMasked(dst, nil)
}

// NamesSecret reports whether a name, such as of a field, says that its value is a
// password or alike, and these are looked for.
func (s *Set) NamesSecret(name []byte) bool { return s.on[Password] && namesSecret(name) }

// Writer masks values of a kind; the zero Writer, which shows nothing, where it is not
// looked for.
func (s *Set) Writer(k Kind) *mask.Writer { return &s.writers[min(k, kinds-1)] }
