package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"

	"github.com/posterngate/postern/pkg/postern"
)

const (
	magic         = "PSTRNREC"
	formatVersion = 1
	typeFrames    = 0
	typeSeal      = 1
)

// Codec names how the body of a chunk is compressed.
type Codec string

// The codecs.
const (
	CodecNone Codec = "none"
	CodecS2   Codec = "s2"
)

// Hash is the SHA-256 of a chunk.
type Hash [sha256.Size]byte

// ErrChunk says that bytes are no intact chunk; errors that wrap it say why.
var ErrChunk = errors.New("record: damaged chunk")

// Header is what a chunk says of itself.
type Header struct {
	Session     postern.SessionID
	Index       uint32
	First, Last uint64 // seq of the events of the first and the last frame
	Codec       Codec
	Sealing     bool // the chunk is the seal
	Previous    Hash // of the chunk before; zeros in chunk 0
}

// Chunk is one chunk, checked and decoded.
type Chunk struct {
	Header
	Frames []byte // of a chunk that is no seal
	Seal   *Seal  // of one that is
	Hash   Hash
}

// CheckSession says whether an id can name a recording: 1 to MaxName letters, digits,
// dashes and underscores, so that it is safe in a path.
func CheckSession(id postern.SessionID) error {
	for _, c := range []byte(id) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_') {
			return fmt.Errorf("record: a session's id cannot hold %q", c)
		}
	}
	if id == "" || len(id) > MaxName {
		return fmt.Errorf("record: a session's id has 1 to %d bytes, not %d", MaxName, len(id))
	}
	return nil
}

// AppendChunk appends a chunk of whole frames, at most MaxFrames bytes of them, and
// returns its hash. The same arguments give the same bytes.
func AppendChunk(dst []byte, h Header, frames []byte) ([]byte, Hash, error) {
	if len(frames) == 0 || len(frames) > MaxFrames {
		return dst, Hash{}, fmt.Errorf("record: a chunk of %d bytes of frames: want 1 to %d", len(frames), MaxFrames)
	}
	h.Sealing = false
	switch h.Codec {
	case CodecNone:
		return appendChunk(dst, h, frames, len(frames))
	case CodecS2:
		return appendChunk(dst, h, s2.Encode(nil, frames), len(frames))
	}
	return dst, Hash{}, fmt.Errorf("record: codec %q is not known", h.Codec)
}

func appendChunk(dst []byte, h Header, body []byte, decoded int) ([]byte, Hash, error) {
	if err := CheckSession(h.Session); err != nil {
		return dst, Hash{}, err
	}
	start := len(dst)
	dst = append(dst, magic...)
	dst = append(dst, formatVersion, typeFrames)
	if h.Sealing {
		dst[len(dst)-1] = typeSeal
	}
	dst = append(dst, byte(len(h.Codec)))
	dst = append(dst, h.Codec...)
	dst = append(dst, byte(len(h.Session)))
	dst = append(dst, h.Session...)
	dst = binary.LittleEndian.AppendUint32(dst, h.Index)
	dst = binary.LittleEndian.AppendUint64(dst, h.First)
	dst = binary.LittleEndian.AppendUint64(dst, h.Last)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(decoded))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(body)))
	dst = append(dst, h.Previous[:]...)
	dst = append(dst, body...)
	hash := Hash(sha256.Sum256(dst[start:]))
	return append(dst, hash[:]...), hash, nil
}

// header reads the header of a chunk and returns its body, still encoded, and the
// length that it has once decoded.
func header(data []byte) (h Header, body []byte, decoded int, err error) {
	fail := func(why string) (Header, []byte, int, error) {
		return Header{}, nil, 0, fmt.Errorf("%w: %s", ErrChunk, why)
	}
	if len(data) > MaxChunk {
		return fail("it is too long")
	}
	rest, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok {
		return fail("it does not begin as a recording")
	}
	take := func(n int) []byte {
		if len(rest) < n {
			rest, ok = nil, false
			return make([]byte, n)
		}
		b := rest[:n]
		rest = rest[n:]
		return b
	}
	if v := take(1)[0]; ok && v != formatVersion {
		return fail(fmt.Sprintf("version %d of the format is not known", v))
	}
	kind := take(1)[0]
	h.Sealing = kind == typeSeal
	h.Codec = Codec(take(int(take(1)[0])))
	n := int(take(1)[0])
	h.Session = postern.SessionID(take(n))
	h.Index = binary.LittleEndian.Uint32(take(4))
	h.First = binary.LittleEndian.Uint64(take(8))
	h.Last = binary.LittleEndian.Uint64(take(8))
	decoded = int(binary.LittleEndian.Uint32(take(4)))
	size := int(binary.LittleEndian.Uint32(take(4)))
	h.Previous = Hash(take(sha256.Size))
	switch {
	case !ok:
		return fail("it is cut short")
	case kind > typeSeal:
		return fail("its type is not known")
	case CheckSession(h.Session) != nil:
		return fail("its session has no valid id")
	case decoded > MaxFrames:
		return fail("its body is too long")
	case len(rest) != size+sha256.Size:
		return fail("its length is not what its header says")
	}
	return h, rest[:size], decoded, nil
}

// ParseChunk checks the hash of one chunk and decodes it. It trusts nothing in data;
// what it returns may share memory with data. How chunks follow each other is checked
// by a Chain.
func ParseChunk(data []byte) (*Chunk, error) {
	h, body, decoded, err := header(data)
	if err != nil {
		return nil, err
	}
	c := &Chunk{Header: h, Hash: Hash(data[len(data)-sha256.Size:])}
	if c.Hash != Hash(sha256.Sum256(data[:len(data)-sha256.Size])) {
		return nil, fmt.Errorf("%w: its hash does not match", ErrChunk)
	}
	switch h.Codec {
	case CodecNone:
		c.Frames = body
	case CodecS2:
		if n, err := s2.DecodedLen(body); err != nil || n != decoded {
			return nil, fmt.Errorf("%w: its body does not decode", ErrChunk)
		}
		if c.Frames, err = s2.Decode(nil, body); err != nil {
			return nil, fmt.Errorf("%w: its body does not decode", ErrChunk)
		}
	default:
		return nil, fmt.Errorf("%w: codec %q is not known", ErrChunk, h.Codec)
	}
	if len(c.Frames) != decoded || decoded == 0 {
		return nil, fmt.Errorf("%w: its body has not the length that its header says", ErrChunk)
	}
	if h.Sealing {
		c.Seal, err = parseSeal(c.Frames)
		c.Frames = nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChunk, err)
	}
	return c, nil
}
