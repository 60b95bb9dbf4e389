package postgres

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"

	"github.com/posterngate/postern/pkg/secret"
)

// scramKeys are what a client proves with and knows the server by: ClientKey and then
// ServerKey of RFC 5802. To the target they are as good as the password that they were
// derived from, which takes a millisecond.
type scramKeys struct{ secret.Bytes }

func (k scramKeys) client() []byte { return k.Reveal()[:sha256.Size] }
func (k scramKeys) server() []byte { return k.Reveal()[sha256.Size:] }

// maxDerived bounds the cache of keys; each takes about a hundred bytes.
const maxDerived = 1024

// A keyCache remembers scramKeys, each hidden by a pad that is made of the password: what
// is left of it once a credential was wiped is noise to who does not have the password
// again. It is safe for concurrent use.
type keyCache struct {
	key [sha256.Size]byte // of this process

	mu     sync.Mutex
	hidden map[[sha256.Size]byte][2 * sha256.Size]byte
}

func newKeyCache() *keyCache {
	k := &keyCache{hidden: map[[sha256.Size]byte][2 * sha256.Size]byte{}}
	_, _ = rand.Read(k.key[:]) // never fails
	return k
}

// keys are those of a password for what the target asks for; the caller wipes them.
func (k *keyCache) keys(password, salt []byte, iterations int) scramKeys {
	id := k.mark(0, password, salt, iterations)
	k.mu.Lock()
	hidden, known := k.hidden[id]
	k.mu.Unlock()
	if known {
		k.pad(hidden[:], password, salt, iterations)
		return scramKeys{secret.New(hidden[:])}
	}
	derived := derive(password, salt, iterations)
	copy(hidden[:], derived.Reveal())
	k.pad(hidden[:], password, salt, iterations)
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.hidden) >= maxDerived {
		for some := range k.hidden {
			delete(k.hidden, some)
			break
		}
	}
	k.hidden[id] = hidden
	return derived
}

// pad hides keys, or shows them again.
func (k *keyCache) pad(keys, password, salt []byte, iterations int) {
	for part := range 2 {
		half := keys[part*sha256.Size:][:sha256.Size]
		pad := k.mark(byte(part+1), password, salt, iterations)
		subtle.XORBytes(half, half, pad[:])
		clear(pad[:])
	}
}

// mark is one of three numbers that only who has the password can tell.
func (k *keyCache) mark(which byte, password, salt []byte, iterations int) (out [sha256.Size]byte) {
	h := hmac.New(sha256.New, k.key[:])
	head := binary.BigEndian.AppendUint32([]byte{which}, uint32(iterations)) //nolint:gosec // at most maxIterations
	h.Write(binary.BigEndian.AppendUint32(head, uint32(len(salt))))          //nolint:gosec // of a bounded message
	h.Write(salt)
	h.Write(password)
	h.Sum(out[:0])
	return out
}

func derive(password, salt []byte, iterations int) scramKeys {
	prepared := prepare(password)
	defer clear(prepared)
	s := salted(prepared, salt, iterations)
	defer clear(s)
	return scramKeys{secret.New(append(mac(s, []byte("Client Key")), mac(s, []byte("Server Key"))...))}
}

func mac(key, msg []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(msg)
	return h.Sum(nil)
}

// salted is Hi of RFC 5802: PBKDF2 with one block.
func salted(password, salt []byte, iterations int) []byte {
	h := hmac.New(sha256.New, password)
	h.Write(salt)
	h.Write([]byte{0, 0, 0, 1})
	u := h.Sum(nil)
	out := bytes.Clone(u)
	for range iterations - 1 {
		h.Reset()
		h.Write(u)
		u = h.Sum(u[:0])
		subtle.XORBytes(out, out, u)
	}
	clear(u)
	return out
}

// prepare is a copy of the password as the target has normalised it: as it is where it
// is ASCII or cannot be normalised.
func prepare(password []byte) []byte {
	ascii := true
	for _, b := range password {
		ascii = ascii && b < utf8.RuneSelf
	}
	if !ascii {
		if p, err := precis.OpaqueString.Bytes(password); err == nil {
			return p
		}
	}
	return bytes.Clone(password)
}
