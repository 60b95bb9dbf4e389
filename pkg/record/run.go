package record

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/minio/minlz"
)

const (
	runHeader = 4 // the length before a run
	nonceSize = 12
	tagSize   = 16
	// literal is how long a MinLZ block's head is where what follows is as it was: two zeros.
	literal = 2
	// level is the fastest: it takes two thirds of the time that S2 takes, and leaves less.
	level = minlz.LevelSuperFast
)

// SealRoom is how many bytes stand before what Seal seals; SealOverhead how many bytes
// longer than the frames a run is at most.
const (
	SealRoom     = nonceSize + literal
	SealOverhead = SealRoom + tagSize
)

// Nonces of two kinds never meet: frames are numbered by the one who seals them, and a
// whole chunk by its index.
const (
	nonceFrames = 0
	nonceChunk  = 1
)

// Seal seals frames in place, as they are, and returns them: a run, as a SealedChunk takes
// it. room is SealRoom bytes, which Seal fills, and then the frames, at most MaxFrames
// bytes. number must never be used twice with one key. It allocates only to grow room.
func (k *DataKey) Seal(room []byte, number uint64) []byte {
	clear(room[nonceSize:SealRoom])
	return k.seal(room, nonceFrames, number)
}

// SealPacked is Seal for frames that get smaller when they are compressed, by a quarter at
// least: less does not pay for the work. False says that they do not, or that room has not
// the capacity of PackedRoom. The run is in room, and frames stay as they are.
func (k *DataKey) SealPacked(room, frames []byte, number uint64) ([]byte, bool) {
	if cap(room) < PackedRoom(len(frames)) {
		return nil, false // what is compressed would stand elsewhere
	}
	packed := minlz.TryEncode(room[nonceSize:cap(room)], frames, level)
	if packed == nil || len(packed) > len(frames)-len(frames)/4 {
		return nil, false
	}
	return k.seal(room[:nonceSize+len(packed)], nonceFrames, number), true
}

// PackedRoom is what SealPacked needs to seal n bytes of frames.
func PackedRoom(n int) int { return nonceSize + minlz.MaxEncodedLen(n) + tagSize }

// seal seals what stands behind the nonce.
func (k *DataKey) seal(room []byte, kind uint32, number uint64) []byte {
	room = slices.Grow(room, tagSize)
	binary.BigEndian.PutUint32(room, kind)
	binary.BigEndian.PutUint64(room[4:], number)
	plain := room[nonceSize:]
	k.aead.Seal(plain[:0], room[:nonceSize], plain, nil)
	return room[:len(room)+tagSize]
}

// RunNumber is the number that a run was sealed with.
func RunNumber(run []byte) uint64 { return binary.BigEndian.Uint64(run[4:nonceSize]) }

var (
	errSealed  = errors.New("record: it was not sealed with this key, or it was changed")
	errEncoded = errors.New("record: it does not decode")
)

// An Opener opens runs one after another. It is for one goroutine.
type Opener struct {
	Key *DataKey
	buf []byte
}

// Open appends to dst the frames of a run, at most as many bytes as most. On an error dst
// is returned as it was.
func (o *Opener) Open(dst, run []byte, codec Codec, most int) ([]byte, error) {
	if len(run) < nonceSize+tagSize {
		return dst, errSealed
	}
	if codec == CodecNone {
		if len(run)-nonceSize-tagSize > most {
			return dst, errEncoded
		}
		out, err := o.Key.aead.Open(dst, run[:nonceSize], run[nonceSize:], nil)
		if err != nil {
			return dst, errSealed
		}
		return out, nil
	}
	var err error
	if o.buf, err = o.Key.aead.Open(o.buf[:0], run[:nonceSize], run[nonceSize:], nil); err != nil {
		return dst, errSealed
	}
	n, err := minlz.DecodedLen(o.buf)
	if err != nil || n > most {
		return dst, errEncoded
	}
	dst = slices.Grow(dst, n)
	if _, err := minlz.Decode(dst[len(dst):len(dst)+n], o.buf); err != nil {
		return dst, errEncoded
	}
	return dst[:len(dst)+n], nil
}
