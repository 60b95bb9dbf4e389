package secret

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
)

// A Sealer seals many things to one public key, each as SealTo would, with one encapsulated
// key for all of them: the two multiplications that this takes are most of what sealing
// costs. Each info has an AEAD key of its own, and is used once. Whoever has the Sealer
// can open what it has sealed, so it should not live for long. It is safe for concurrent use.
type Sealer struct {
	enc    []byte // the encapsulated key
	secret []byte // of the key schedule

	mu   sync.Mutex
	used map[[sha256.Size]byte]struct{} // hashes of infos
}

// ErrSealerUsed says that something was sealed with the same info, or that the Sealer has
// sealed as much as it may.
var ErrSealerUsed = errors.New("seal: the sealer is used up")

// maxSeals bounds what one Sealer seals.
const maxSeals = 4096

// The suite of kem, kdf and aead, as RFC 9180 writes it.
const (
	kemSuite  = "KEM\x00\x20"
	hpkeSuite = "HPKE\x00\x20\x00\x01\x00\x02"
)

// NewSealer makes a Sealer. Its ephemeral key is forgotten at once.
func NewSealer(publicKey []byte) (*Sealer, error) {
	to, err := ecdh.X25519().NewPublicKey(publicKey)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	ephemeral, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	dh, err := ephemeral.ECDH(to)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	s := &Sealer{enc: ephemeral.PublicKey().Bytes(), used: map[[sha256.Size]byte]struct{}{}}
	prk, err := extract(kemSuite, nil, "eae_prk", dh)
	if err != nil {
		return nil, err
	}
	shared, err := expand(kemSuite, prk, "shared_secret", string(s.enc)+string(publicKey), 32)
	if err != nil {
		return nil, err
	}
	s.secret, err = extract(hpkeSuite, shared, "secret", nil)
	return s, err
}

// Seal encrypts plaintext so that only the holder of the key opens it, with OpenWith and the
// same info, which must not have been used before.
func (s *Sealer) Seal(info, plaintext []byte) ([]byte, error) {
	if err := s.use(info); err != nil {
		return nil, err
	}
	id, err := extract(hpkeSuite, nil, "psk_id_hash", nil)
	if err != nil {
		return nil, err
	}
	hash, err := extract(hpkeSuite, nil, "info_hash", info)
	if err != nil {
		return nil, err
	}
	schedule := "\x00" + string(id) + string(hash) // base mode
	key, err := expand(hpkeSuite, s.secret, "key", schedule, 32)
	if err != nil {
		return nil, err
	}
	nonce, err := expand(hpkeSuite, s.secret, "base_nonce", schedule, 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return gcm.Seal(append([]byte(nil), s.enc...), nonce, plaintext, nil), nil
}

// use notes an info: two things under one would be sealed with the same key and nonce.
func (s *Sealer) use(info []byte) error {
	hash := sha256.Sum256(info)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.used[hash]; ok || len(s.used) >= maxSeals {
		return ErrSealerUsed
	}
	s.used[hash] = struct{}{}
	return nil
}

// extract and expand are LabeledExtract and LabeledExpand of RFC 9180, section 4.
func extract(suite string, salt []byte, label string, ikm []byte) ([]byte, error) {
	prk, err := hkdf.Extract(sha256.New, append([]byte("HPKE-v1"+suite+label), ikm...), salt)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return prk, nil
}

func expand(suite string, prk []byte, label, info string, length int) ([]byte, error) {
	key, err := hkdf.Expand(sha256.New, prk, string([]byte{byte(length >> 8), byte(length)})+"HPKE-v1"+suite+label+info, length)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return key, nil
}
