package secret

import (
	"crypto/ecdh"
	"crypto/hpke"
	"fmt"
)

// The suite of RFC 9180 that nodes and control plane speak, in base mode.
func kem() hpke.KEM   { return hpke.DHKEM(ecdh.X25519()) }
func kdf() hpke.KDF   { return hpke.HKDFSHA256() }
func aead() hpke.AEAD { return hpke.AES256GCM() }

// A PrivateKey opens what was sealed to its public key. It is safe for concurrent use,
// and prints as REDACTED.
type PrivateKey struct{ key hpke.PrivateKey }

// GenerateKey makes a key pair.
func GenerateKey() (*PrivateKey, error) {
	k, err := kem().GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("make an HPKE key: %w", err)
	}
	return &PrivateKey{k}, nil
}

// ParsePrivateKey reads what Marshal wrote.
func ParsePrivateKey(b []byte) (*PrivateKey, error) {
	k, err := kem().NewPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("read an HPKE key: %w", err)
	}
	return &PrivateKey{k}, nil
}

// Marshal is the private key, 32 bytes.
func (k *PrivateKey) Marshal() (Bytes, error) {
	b, err := k.key.Bytes()
	if err != nil {
		return Bytes{}, fmt.Errorf("write an HPKE key: %w", err)
	}
	return New(b), nil
}

// PublicKey is the public half, 32 bytes.
func (k *PrivateKey) PublicKey() []byte { return k.key.PublicKey().Bytes() }

func (k *PrivateKey) String() string { return redacted }

// GoString keeps %#v from showing the key.
func (k *PrivateKey) GoString() string { return redacted }

// Format keeps every verb from showing the key.
func (k *PrivateKey) Format(f fmt.State, verb rune) { Bytes{}.Format(f, verb) }

// CheckPublicKey says what is wrong with a public key, or nil.
func CheckPublicKey(b []byte) error {
	if _, err := kem().NewPublicKey(b); err != nil {
		return fmt.Errorf("not an X25519 public key: %w", err)
	}
	return nil
}

// SealTo encrypts plaintext so that only the holder of the key opens it, and only with
// the same info. The result is the encapsulated key followed by the ciphertext.
func SealTo(publicKey, info, plaintext []byte) ([]byte, error) {
	k, err := kem().NewPublicKey(publicKey)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	sealed, err := hpke.Seal(k, kdf(), aead(), info, plaintext)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return sealed, nil
}

// OpenWith decrypts what SealTo sealed to the key's public half with the same info.
func OpenWith(key *PrivateKey, info, sealed []byte) ([]byte, error) {
	plain, err := hpke.Open(key.key, kdf(), aead(), info, sealed)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return plain, nil
}

// CredentialInfo is the info of a credential: it binds the ciphertext to the node, lease
// and session, so that it opens nowhere else.
func CredentialInfo(node, lease, session string) []byte {
	return []byte("postern/cred/v1\x00" + node + "\x00" + lease + "\x00" + session)
}
