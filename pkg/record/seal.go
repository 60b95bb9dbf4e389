package record

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/posterngate/postern/pkg/postern"
)

// sealDomain keeps a seal's signature from being taken for any other.
const sealDomain = "postern/seal/v1\x00"

// Seal ends a recording.
type Seal struct {
	Session   postern.SessionID
	Node      postern.NodeName // whose key signed
	Chunks    uint32           // chunks before the seal
	Previous  Hash             // of the last of them
	Last      uint64           // seq of the last event, or of the one that was cut short
	Time      time.Time
	Truncated bool   // the node was stopped before the session ended
	Reason    string // why it was; in clear, so a phrase of the node's own

	signed    []byte // what the signature is over
	signature []byte
}

// AppendSeal appends the chunk that seals a recording, signed by the node's key, and
// returns its hash. Signing may not be deterministic: keep the bytes.
func AppendSeal(dst []byte, s Seal, key crypto.Signer) ([]byte, Hash, error) {
	body := appendString(nil, 1, string(s.Session))
	body = appendString(body, 2, string(s.Node))
	body = appendUint(body, 3, uint64(s.Chunks))
	body = protowire.AppendBytes(protowire.AppendTag(body, 4, protowire.BytesType), s.Previous[:])
	body = appendUint(body, 5, s.Last)
	body = appendUint(body, 6, microTime(s.Time))
	body = appendBool(body, 7, s.Truncated)
	body = appendString(body, 8, s.Reason)
	signature, err := sign(key, append([]byte(sealDomain), body...))
	if err != nil {
		return dst, Hash{}, fmt.Errorf("record: sign the seal of session %s: %w", s.Session, err)
	}
	body = protowire.AppendBytes(protowire.AppendTag(body, 15, protowire.BytesType), signature)
	h := Header{Session: s.Session, Index: s.Chunks, First: s.Last, Last: s.Last, Codec: CodecNone, Sealing: true, Previous: s.Previous}
	return appendChunk(dst, h, body, len(body))
}

func sign(key crypto.Signer, message []byte) ([]byte, error) {
	switch key.Public().(type) {
	case ed25519.PublicKey:
		return key.Sign(rand.Reader, message, crypto.Hash(0))
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(message)
		return key.Sign(rand.Reader, digest[:], crypto.SHA256)
	}
	return nil, fmt.Errorf("a %T cannot sign; want Ed25519 or ECDSA", key.Public())
}

func parseSeal(body []byte) (*Seal, error) {
	s := &Seal{}
	seen := false
	rest := body
	for len(rest) > 0 {
		number, typ, n := protowire.ConsumeTag(rest)
		if n < 0 || seen { // nothing follows the signature
			return nil, errMessage
		}
		m := protowire.ConsumeFieldValue(number, typ, rest[n:])
		if m < 0 {
			return nil, errMessage
		}
		if number == 15 && typ == protowire.BytesType {
			seen = true
			s.signed = append([]byte(sealDomain), body[:len(body)-len(rest)]...)
		}
		rest = rest[n+m:]
	}
	if !seen {
		return nil, errors.New("record: the seal has no signature")
	}
	return s, eachField(body, s.set)
}

func (s *Seal) set(f field) error {
	switch f.number {
	case 1:
		s.Session = postern.SessionID(f.raw)
	case 2:
		s.Node = postern.NodeName(f.raw)
	case 3:
		s.Chunks = uint32(min(f.num, 1<<32-1))
	case 4:
		if len(f.raw) != len(s.Previous) {
			return errMessage
		}
		s.Previous = Hash(f.raw)
	case 5:
		s.Last = f.num
	case 6:
		s.Time = time.UnixMicro(int64(f.num)).UTC()
	case 7:
		s.Truncated = f.num != 0
	case 8:
		s.Reason = string(f.raw)
	case 15:
		s.signature = append([]byte(nil), f.raw...)
	}
	return nil
}

// Verify checks the signature against the node's public key: Ed25519 or ECDSA.
func (s *Seal) Verify(key crypto.PublicKey) error {
	var ok bool
	switch key := key.(type) {
	case ed25519.PublicKey:
		ok = len(key) == ed25519.PublicKeySize && ed25519.Verify(key, s.signed, s.signature)
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(s.signed)
		ok = ecdsa.VerifyASN1(key, digest[:], s.signature)
	default:
		return fmt.Errorf("record: the key of node %q is a %T; want Ed25519 or ECDSA", s.Node, key)
	}
	if !ok {
		return fmt.Errorf("record: the seal was not signed by the key of node %q", s.Node)
	}
	return nil
}
