package task

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
)

// A grant token is "pst_", 80 bits that name the grant, a secret of 128 bits, and the
// CRC-32 of all that, each in base32 with the letters a-z2-7: 53 characters that match
// \bpst_[a-z2-7]{49}\b, which secret scanners can verify by the sum. It says nothing
// else; the store has its SHA-256 alone.
const (
	tokenPrefix = "pst_"
	idLen       = 16
	secretLen   = 26
	sumLen      = 7
	tokenLen    = len(tokenPrefix) + idLen + secretLen + sumLen
)

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

var errToken = errors.New("not a grant token")

// grantID is the id of the grant whose tokens carry name.
func grantID(name string) string { return "g-" + name }

// newGrantID is a random id, as short as can be typed and as long as cannot be guessed.
func newGrantID() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails
	return grantID(encoding.EncodeToString(b[:]))
}

// newToken makes a token for the grant.
func newToken(id string) (string, error) {
	name, ok := strings.CutPrefix(id, grantID(""))
	if !ok || len(name) != idLen {
		return "", errToken
	}
	var secret [16]byte
	_, _ = rand.Read(secret[:]) // never fails
	body := tokenPrefix + name + encoding.EncodeToString(secret[:])
	return body + checksum(body), nil
}

func checksum(body string) string {
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.ChecksumIEEE([]byte(body)))
	return encoding.EncodeToString(sum[:])
}

// parseToken says which grant a token is for. That it is genuine only its hash says.
func parseToken(token string) (id string, err error) {
	if len(token) != tokenLen || !strings.HasPrefix(token, tokenPrefix) {
		return "", errToken
	}
	body := token[:tokenLen-sumLen]
	if strings.Trim(body[len(tokenPrefix):], "abcdefghijklmnopqrstuvwxyz234567") != "" || checksum(body) != token[tokenLen-sumLen:] {
		return "", errToken
	}
	return grantID(body[len(tokenPrefix) : len(tokenPrefix)+idLen]), nil
}

// hash is what the store has of a token or certificate.
func hash(shown []byte) []byte {
	sum := sha256.Sum256(shown)
	return sum[:]
}

// fits compares in constant time. No hash fits none.
func fits(onFile, shown []byte) bool {
	return len(onFile) == sha256.Size && subtle.ConstantTimeCompare(onFile, hash(shown)) == 1
}
