package record

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// A SealedChunk is a chunk of runs that were sealed before, as they are: nothing of it is
// read or copied until it is asked for, and no key is needed.
type SealedChunk struct {
	head []byte
	runs [][]byte
	size int // bytes of all but the hash
}

// NewSealedChunk makes a chunk of runs, whose frames are decoded bytes in all. The codec of
// the header is that of the runs: what Seal makes is CodecMinLZ. The same arguments give the
// same bytes.
func NewSealedChunk(h Header, decoded int, runs [][]byte) (*SealedChunk, error) {
	if decoded <= 0 || decoded > MaxFrames {
		return nil, fmt.Errorf("record: a chunk of %d bytes of frames in %d runs: want 1 to %d", decoded, len(runs), MaxFrames)
	}
	size := 0
	for _, run := range runs {
		if len(run) <= nonceSize+tagSize {
			return nil, fmt.Errorf("record: a run of %d bytes is not sealed frames", len(run))
		}
		size += runHeader + len(run)
	}
	h.Sealing = false
	head, err := appendHeader(nil, h, size, decoded)
	if err != nil {
		return nil, err
	}
	return &SealedChunk{head: head, runs: runs, size: len(head) + size}, nil
}

// Hash works out the hash of the chunk.
func (c *SealedChunk) Hash() (h Hash) {
	sum := sha256.New()
	_, _ = sum.Write(c.head) // never fails
	var length [runHeader]byte
	for _, run := range c.runs {
		binary.LittleEndian.PutUint32(length[:], uint32(len(run)))
		_, _ = sum.Write(length[:])
		_, _ = sum.Write(run)
	}
	sum.Sum(h[:0])
	return h
}

// Size is how many bytes the chunk has.
func (c *SealedChunk) Size() int { return c.size + sha256.Size }

// Append appends the chunk, whose hash is known.
func (c *SealedChunk) Append(dst []byte, hash Hash) []byte {
	dst = append(dst, c.head...)
	for _, run := range c.runs {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(run)))
		dst = append(dst, run...)
	}
	return append(dst, hash[:]...)
}
