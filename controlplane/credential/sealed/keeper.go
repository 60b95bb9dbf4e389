// Package sealed keeps secrets at rest without a Vault: a Keeper that seals small values
// with a key file, and a Source that lends the logins kept so in Secret objects. Those
// are static and shared: they have no end of their own, and revoking them changes
// nothing at the resource.
package sealed

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"

	"github.com/posterngate/postern/pkg/secret"
)

// Keeper seals small values at rest. It is safe for concurrent use.
type Keeper interface {
	// Seal encrypts plaintext; aad says what it is, and is needed to open it.
	Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	// Open decrypts what Seal sealed with the same aad.
	Open(ctx context.Context, sealed, aad []byte) ([]byte, error)
}

// The form of a sealed value: magic, id of the wrapping key, wrapped key, value. Both
// are AES-256-GCM with a random nonce before and a tag behind.
const (
	magic      = "pk1:"
	idSize     = 8
	keySize    = 32
	nonceSize  = 12
	tagSize    = 16
	wrapSize   = nonceSize + keySize + tagSize
	headSize   = len(magic) + idSize + wrapSize
	linePrefix = "postern-key-1 "
	maxKeyFile = 64 << 10
)

// fileKeeper wraps the key of each value with a key from a file.
type fileKeeper struct {
	first [idSize]byte
	keys  map[[idSize]byte]cipher.AEAD
}

// OpenKeyFile reads the keys at path, and makes one, of mode 0600, where there is no
// file. Each line is a key: the first seals, all open. A file that others may read is
// refused. The file must be kept apart from backups of what it seals; without it they
// cannot be opened.
func OpenKeyFile(path string) (Keeper, error) {
	text, err := secret.ReadFile(path, maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeKeyFile(path); err == nil {
			text, err = secret.ReadFile(path, maxKeyFile)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer clear(text)
	k, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return k, nil
}

// makeKeyFile writes a new key; a file that came first wins.
func makeKeyFile(path string) error {
	var key [keySize]byte
	_, _ = rand.Read(key[:]) // never fails
	text := fmt.Appendf(nil, "%s%s\n", linePrefix, base64.StdEncoding.EncodeToString(key[:]))
	clear(key[:])
	defer clear(text)
	if err := secret.MakeFile(path, text); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func parseKeys(text []byte) (*fileKeeper, error) {
	k := &fileKeeper{keys: map[[idSize]byte]cipher.AEAD{}}
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		b64, ok := bytes.CutPrefix(line, []byte(linePrefix))
		if !ok {
			return nil, errors.New("a line is not a key")
		}
		key, err := base64.StdEncoding.DecodeString(string(b64))
		if err != nil || len(key) != keySize {
			return nil, fmt.Errorf("a key is not %d bytes in base64", keySize)
		}
		sum := sha256.Sum256(append([]byte("postern/key-id/v1"), key...))
		id := [idSize]byte(sum[:])
		if k.keys[id], err = newGCM(key); err != nil {
			return nil, err
		}
		clear(key)
		if len(k.keys) == 1 {
			k.first = id
		}
	}
	if len(k.keys) == 0 {
		return nil, errors.New("no key")
	}
	return k, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (k *fileKeeper) Seal(_ context.Context, plaintext, aad []byte) ([]byte, error) {
	var key [keySize]byte
	_, _ = rand.Read(key[:])
	defer clear(key[:])
	value, err := newGCM(key[:])
	if err != nil {
		return nil, err
	}
	out := append([]byte(magic), k.first[:]...)
	out = k.keys[k.first].Seal(out, nil, key[:], aad)
	return value.Seal(out, nil, plaintext, aad), nil
}

var errNotOurs = errors.New("not a value that this key file sealed under this name, or it was changed")

func (k *fileKeeper) Open(_ context.Context, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < headSize+nonceSize+tagSize || !bytes.HasPrefix(sealed, []byte(magic)) {
		return nil, errNotOurs
	}
	rest := sealed[len(magic):]
	wrapper, ok := k.keys[[idSize]byte(rest)]
	if !ok {
		return nil, errors.New("sealed with a key that the key file does not have")
	}
	key, err := wrapper.Open(nil, nil, rest[idSize:idSize+wrapSize], aad)
	if err != nil {
		return nil, errNotOurs
	}
	defer clear(key)
	value, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	plain, err := value.Open(nil, nil, rest[idSize+wrapSize:], aad)
	if err != nil {
		return nil, errNotOurs
	}
	return plain, nil
}
