package enrol

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"strings"
)

// A join token is "pst_join_" ID "." SECRET "." PIN: 64 random bits of id, 128 of
// secret, and the SHA-256 of the CA certificate's DER by which the node recognises the
// control plane; each in lower-case hex.
const (
	tokenPrefix = "pst_join_"
	idHex       = 16
	secretHex   = 32
	pinHex      = 2 * sha256.Size
	tokenLen    = len(tokenPrefix) + idHex + 1 + secretHex + 1 + pinHex
)

var errToken = errors.New("not a join token")

func newToken(pin string) (id, token string) {
	var b [(idHex + secretHex) / 2]byte
	_, _ = rand.Read(b[:]) // never fails
	s := hex.EncodeToString(b[:])
	return s[:idHex], tokenPrefix + s[:idHex] + "." + s[idHex:] + "." + pin
}

// tokenID reads the id of a join token, whose secret it does not know.
func tokenID(token string) (string, error) {
	if len(token) != tokenLen || !strings.HasPrefix(token, tokenPrefix) {
		return "", errToken
	}
	parts := strings.Split(token[len(tokenPrefix):], ".")
	if len(parts) != 3 || len(parts[0]) != idHex || len(parts[1]) != secretHex || len(parts[2]) != pinHex {
		return "", errToken
	}
	for _, p := range parts {
		if strings.Trim(p, "0123456789abcdef") != "" {
			return "", errToken
		}
	}
	return parts[0], nil
}

func hashToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

func sameHash(a, b []byte) bool {
	return len(a) == sha256.Size && subtle.ConstantTimeCompare(a, b) == 1
}
