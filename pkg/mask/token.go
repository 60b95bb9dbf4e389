package mask

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"github.com/posterngate/postern/pkg/postern"
)

// Sizes of tokens, in bytes. A token is tokenPrefix and 128 bits of a MAC, so that two
// values have the same one by chance alone, which nobody will see.
const (
	minTokenKey  = 16
	tokenPrefix  = "tok_"
	tokenBits    = 16
	tokenLength  = len(tokenPrefix) + (tokenBits*8+5)/6
	tokenKeySize = sha256.Size
)

// TokenKey derives the key of a domain from the key of a mask: equal values of one domain
// under one key have equal tokens, and no token tells anything of another domain. An error
// means that the key is too short.
func TokenKey(key []byte, domain string) ([]byte, error) {
	if len(key) < minTokenKey {
		return nil, fmt.Errorf("a key of tokens has at least %d bytes, and this one %d", minTokenKey, len(key))
	}
	h := hmac.New(sha256.New, key)
	h.Write([]byte("postern/token/v1\x00" + domain))
	return h.Sum(nil), nil
}

// NewTokenWriter is the Writer of a mask of method token, with what TokenKey gave for it;
// the key must live as long as the Writer. An error is ErrUnfit.
func NewTokenWriter(m *postern.MaskRule, typeText string, key []byte) (Writer, error) {
	switch {
	case m == nil || m.Method != postern.MaskToken:
		return Writer{}, fmt.Errorf("%w: there is no mask of method token", ErrUnfit)
	case len(key) != tokenKeySize:
		return Writer{}, unfit(m, typeText, "its key is not here")
	case !textual(typeText):
		return Writer{}, unfit(m, typeText, "a token is a text; use method null")
	}
	base, most, err := length(typeText)
	if err != nil {
		return Writer{}, unfit(m, typeText, err.Error())
	}
	if most > 0 && most < tokenLength {
		return Writer{}, unfit(m, typeText, fmt.Sprintf("a token has %d characters", tokenLength))
	}
	w := Writer{method: m.Method, key: key}
	if base == "character" {
		w.characters = most
	}
	return w, nil
}

// token appends the token of a value. Blanks at the end of a padded type are not part of it.
func (w *Writer) token(dst, value []byte) []byte {
	if w.characters > 0 {
		value = bytes.TrimRight(value, " ")
	}
	h := hmac.New(sha256.New, w.key)
	h.Write(value)
	var sum [sha256.Size]byte
	from := len(dst)
	dst = append(dst, tokenPrefix...)
	return w.pad(base64.RawURLEncoding.AppendEncode(dst, h.Sum(sum[:0])[:tokenBits]), from)
}
