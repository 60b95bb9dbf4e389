package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/minio/minlz"

	"github.com/posterngate/postern/pkg/postern"
)

const (
	magic         = "PSTRNREC"
	formatVersion = 2
	flagSeal      = 1 << 0
	flagOpen      = 1 << 1
)

// Codec names how the frames of a chunk are compressed before they are sealed.
type Codec string

// The codecs. S2 is that of earlier versions, and read alone: a decoder of MinLZ reads it too.
const (
	CodecNone  Codec = "none"
	CodecS2    Codec = "s2"
	CodecMinLZ Codec = "minlz"
)

// Hash is the SHA-256 of a chunk.
type Hash [sha256.Size]byte

// ErrChunk says that bytes are no intact chunk; errors that wrap it say why.
var ErrChunk = errors.New("record: damaged chunk")

// Header is what a chunk says of itself, in clear.
type Header struct {
	Session     postern.SessionID
	Index       uint32
	First, Last uint64 // seq of the events of the first and the last frame
	Open        bool   // the event of the last frame goes on in the next chunk
	Codec       Codec
	Sealing     bool // the chunk is the seal
	// Key is the session's data key, wrapped: its ID in each chunk but the seal, the key
	// itself in chunk 0.
	Key      WrappedKey
	Previous Hash // of the chunk before; zeros in chunk 0
}

func (h *Header) span() Span { return Span{First: h.First, Last: h.Last, Open: h.Open} }

// Chunk is one chunk whose hash holds.
type Chunk struct {
	Header
	Seal *Seal // of the chunk that is one
	Hash Hash

	body    []byte // sealed; nil in the seal
	decoded int    // bytes of frames that the header promises
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

// AppendChunk appends a chunk of whole frames, at most MaxFrames bytes of them, sealed
// with key, and returns its hash. The same arguments give the same bytes; no two chunks
// of a session may have the same index.
func AppendChunk(dst []byte, h Header, key *DataKey, frames []byte) ([]byte, Hash, error) {
	if len(frames) == 0 || len(frames) > MaxFrames {
		return dst, Hash{}, fmt.Errorf("record: a chunk of %d bytes of frames: want 1 to %d", len(frames), MaxFrames)
	}
	h.Sealing = false
	start := len(dst)
	dst, err := appendHeader(dst, h, 0, len(frames))
	if err != nil {
		return dst, Hash{}, err
	}
	// The run is made in its place, and its length told then.
	at := len(dst)
	dst = slices.Grow(dst, runHeader+PackedRoom(len(frames))+sha256.Size)
	plain := dst[at+runHeader+nonceSize : cap(dst)]
	switch h.Codec {
	case CodecNone:
		plain = plain[:copy(plain, frames)]
	case CodecMinLZ:
		if plain, err = minlz.Encode(plain, frames, level); err != nil {
			return dst[:start], Hash{}, fmt.Errorf("record: compress: %w", err)
		}
	default:
		return dst[:start], Hash{}, fmt.Errorf("record: nothing is written in codec %q", h.Codec)
	}
	run := key.seal(dst[at+runHeader:at+runHeader+nonceSize+len(plain)], nonceChunk, uint64(h.Index))
	dst = dst[:at+runHeader+len(run)]
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(run)))
	binary.LittleEndian.PutUint32(dst[at-len(h.Previous)-4:], uint32(len(dst)-at))
	if size := len(dst) - start + sha256.Size; size > MaxChunk {
		return dst[:start], Hash{}, tooLong(size)
	}
	hash := Hash(sha256.Sum256(dst[start:]))
	return append(dst, hash[:]...), hash, nil
}

func tooLong(size int) error {
	return fmt.Errorf("record: a chunk of %d bytes is over the limit of %d", size, MaxChunk)
}

func appendChunk(dst []byte, h Header, body []byte, decoded int) ([]byte, Hash, error) {
	start := len(dst)
	dst, err := appendHeader(dst, h, len(body), decoded)
	if err != nil {
		return dst, Hash{}, err
	}
	dst = append(dst, body...)
	hash := Hash(sha256.Sum256(dst[start:]))
	return append(dst, hash[:]...), hash, nil
}

// appendHeader appends all that stands before the body.
func appendHeader(dst []byte, h Header, size, decoded int) ([]byte, error) {
	if err := CheckSession(h.Session); err != nil {
		return dst, err
	}
	if len(h.Key.ID) > maxKeyID || len(h.Key.Sealed) > maxWrapped {
		return dst, fmt.Errorf("record: the key of session %s is too long", h.Session)
	}
	if h.Index > 0 {
		h.Key.Sealed = nil
	}
	start := len(dst)
	dst = append(dst, magic...)
	dst = append(dst, formatVersion, 0)
	if h.Sealing {
		dst[len(dst)-1] |= flagSeal
	}
	if h.Open {
		dst[len(dst)-1] |= flagOpen
	}
	for _, s := range []string{string(h.Codec), string(h.Session), h.Key.ID, string(h.Key.Sealed)} {
		dst = append(dst, byte(len(s)))
		dst = append(dst, s...)
	}
	dst = binary.LittleEndian.AppendUint32(dst, h.Index)
	dst = binary.LittleEndian.AppendUint64(dst, h.First)
	dst = binary.LittleEndian.AppendUint64(dst, h.Last)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(decoded))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(size))
	dst = append(dst, h.Previous[:]...)
	if whole := len(dst) - start + size + sha256.Size; whole > MaxChunk {
		return dst[:start], tooLong(whole)
	}
	return dst, nil
}

// header reads the header of a chunk and returns its body, still sealed, how many bytes of
// frames it promises, and the length of the whole chunk, behind which more may stand.
func header(data []byte) (h Header, body []byte, decoded, whole int, err error) {
	fail := func(why string) (Header, []byte, int, int, error) {
		return Header{}, nil, 0, 0, fmt.Errorf("%w: %s", ErrChunk, why)
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
	short := func() []byte { return take(int(take(1)[0])) }
	if v := take(1)[0]; ok && v != formatVersion {
		return fail(fmt.Sprintf("version %d of the format is not known", v))
	}
	flags := take(1)[0]
	h.Sealing, h.Open = flags&flagSeal != 0, flags&flagOpen != 0
	h.Codec = Codec(short())
	h.Session = postern.SessionID(short())
	h.Key.ID = string(short())
	h.Key.Sealed = bytes.Clone(short())
	h.Index = binary.LittleEndian.Uint32(take(4))
	h.First = binary.LittleEndian.Uint64(take(8))
	h.Last = binary.LittleEndian.Uint64(take(8))
	decoded = int(binary.LittleEndian.Uint32(take(4)))
	size := int(binary.LittleEndian.Uint32(take(4)))
	h.Previous = Hash(take(sha256.Size))
	whole = len(data) - len(rest) + size + sha256.Size
	switch {
	case !ok:
		return fail("it is cut short")
	case whole > MaxChunk:
		return fail("it is too long")
	case flags > flagSeal|flagOpen:
		return fail("its flags are not known")
	case CheckSession(h.Session) != nil:
		return fail("its session has no valid id")
	case decoded == 0 || decoded > MaxFrames:
		return fail("its body has no valid length")
	case len(data) < whole:
		return fail("its length is not what its header says")
	case h.Sealing != (h.Key.ID == "") || (len(h.Key.Sealed) > 0) != (h.Index == 0 && !h.Sealing):
		return fail("its key is not where it must be")
	case h.Codec != CodecNone && (h.Codec != CodecMinLZ && h.Codec != CodecS2 || h.Sealing):
		return fail(fmt.Sprintf("codec %q is not known", h.Codec))
	}
	return h, rest[:size], decoded, whole, nil
}

// Split cuts the first chunk off what is stored together: the last chunk of a recording and
// its seal. What is no chunk is first as a whole, for ParseChunk to say why. Both share
// memory with data, and have no room behind them.
func Split(data []byte) (first, rest []byte) {
	_, _, _, whole, err := header(data)
	if err != nil {
		whole = len(data)
	}
	return data[:whole:whole], data[whole:]
}

// ParseChunk checks the hash of one chunk, for which no key is needed. It trusts nothing
// in data; what it returns may share memory with data. How chunks follow each other is
// checked by a Chain.
func ParseChunk(data []byte) (*Chunk, error) {
	h, body, decoded, whole, err := header(data)
	if err != nil {
		return nil, err
	}
	if len(data) != whole {
		return nil, fmt.Errorf("%w: its length is not what its header says", ErrChunk)
	}
	c := &Chunk{Header: h, Hash: Hash(data[len(data)-sha256.Size:]), body: body, decoded: decoded}
	if c.Hash != Hash(sha256.Sum256(data[:len(data)-sha256.Size])) {
		return nil, fmt.Errorf("%w: its hash does not match", ErrChunk)
	}
	if !h.Sealing {
		return c, nil
	}
	if len(body) != decoded {
		return nil, fmt.Errorf("%w: its body has not the length that its header says", ErrChunk)
	}
	c.body = nil
	if c.Seal, err = parseSeal(body); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChunk, err)
	}
	return c, nil
}

// Frames opens and decodes the frames of a chunk that is no seal. Whether they are the
// events that the header says is checked by Span.Next.
func (c *Chunk) Frames(key *DataKey) ([]byte, error) {
	frames := make([]byte, 0, c.decoded)
	opener := Opener{Key: key}
	for rest := c.body; len(rest) > 0; {
		if len(rest) < runHeader {
			return nil, fmt.Errorf("%w: its body is cut short", ErrChunk)
		}
		n := int(binary.LittleEndian.Uint32(rest))
		rest = rest[runHeader:]
		if n > len(rest) {
			return nil, fmt.Errorf("%w: its body is cut short", ErrChunk)
		}
		var err error
		if frames, err = opener.Open(frames, rest[:n], c.Codec, c.decoded-len(frames)); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrChunk, err)
		}
		rest = rest[n:]
	}
	if len(frames) != c.decoded {
		return nil, fmt.Errorf("%w: its body has not the length that its header says", ErrChunk)
	}
	return frames, nil
}
