package secret

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// iterations is PostgreSQL's own default. The password has 128 random bits, so that more
// would only cost.
const iterations = 4096

// ScramVerifier is what PostgreSQL keeps of a password (RFC 5802), which it takes in the
// password's place. The password must be ASCII, so that it needs no preparation.
func ScramVerifier(password []byte) (string, error) {
	var salt [16]byte
	_, _ = rand.Read(salt[:]) // never fails
	return verifierOf(password, salt[:])
}

func verifierOf(password, salt []byte) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, string(password), salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("make a verifier: %w", err)
	}
	sign := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(sign(salted, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(sign(salted, "Server Key"))), nil
}
