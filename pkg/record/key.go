package record

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

const dataKeySize = 32

// WrappedKey is a session's data key, sealed to a recording key. It says nothing to
// those who do not hold that.
type WrappedKey struct {
	ID     string // of the recording key
	Sealed []byte // HPKE: the encapsulated key, then the ciphertext
}

// ErrKey says that a data key cannot be opened, now or later.
var ErrKey = errors.New("record: the data key cannot be opened")

// RecordingKeyID names a recording key: the first 8 bytes of the SHA-256 of its public
// half, in hex.
func RecordingKeyID(public []byte) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:8])
}

func wrapInfo(id string, session postern.SessionID) []byte {
	return []byte("postern/recording/v1\x00" + id + "\x00" + string(session))
}

// A DataKey seals and opens the chunks of one session. It is safe for concurrent use.
type DataKey struct{ aead cipher.AEAD }

// NewDataKey makes the key of a session. wrapped is the same key for the holder of the
// recording key (X25519), whose public half is given; nobody else can make it again.
func NewDataKey(recordingKey []byte, session postern.SessionID) (key *DataKey, wrapped WrappedKey, err error) {
	var raw [dataKeySize]byte
	_, _ = rand.Read(raw[:]) // never fails
	defer clear(raw[:])
	wrapped.ID = RecordingKeyID(recordingKey)
	if wrapped.Sealed, err = secret.SealTo(recordingKey, wrapInfo(wrapped.ID, session), raw[:]); err != nil {
		return nil, WrappedKey{}, fmt.Errorf("record: seal the key of session %s to the recording key: %w", session, err)
	}
	key, err = OpenDataKey(raw[:])
	return key, wrapped, err
}

// Unwrap opens the data key of a session with the recording key that it was sealed to.
// The bytes are for OpenDataKey.
func (w WrappedKey) Unwrap(recordingKey *secret.PrivateKey, session postern.SessionID) (secret.Bytes, error) {
	raw, err := secret.OpenWith(recordingKey, wrapInfo(w.ID, session), w.Sealed)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("%w: that of session %s, sealed to recording key %s: %w", ErrKey, session, w.ID, err)
	}
	return secret.New(raw), nil
}

// OpenDataKey takes the bytes of a data key, and keeps nothing of them.
func OpenDataKey(raw []byte) (*DataKey, error) {
	if len(raw) != dataKeySize {
		return nil, fmt.Errorf("record: a data key has %d bytes, not %d", dataKeySize, len(raw))
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return &DataKey{aead}, nil
}
