package spool

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/posterngate/postern/pkg/record"
)

// The payload of an entry of a run:
//
//	uint64 seq of the first event, uint64 twice that of the last, and one more where that
//	event goes on, uint32 bytes of the frames in bits 0-30 and whether the run is the first
//	of its chunk in bit 31, all in clear; then the sealed run
const (
	runHead  = 8 + 8 + 4
	firstBit = 1 << 31
)

// markFirst says in the payload of a run that a chunk begins with it. Events refer to others
// of their chunk, so that the next start must cut where this one has.
func markFirst(payload []byte) { payload[19] |= firstBit >> 24 }

// A sealedRun is the payload of one entry that is to be written.
type sealedRun struct {
	payload []byte
	frames  int // bytes of them
}

const (
	// packFrom is how many bytes of frames are worth compressing on their own. Runs that
	// are smaller are put together first, when their chunk is built.
	packFrom = 4 << 10
	// maxIdle is how many runs in a row are not tried after those that did not shrink.
	maxIdle = 15
)

// packs are buffers for runs that were compressed.
var packs = sync.Pool{New: func() any {
	b := make([]byte, runRoom+record.PackedRoom(maxRun))
	return &b
}}

// A packer compresses runs, where their session's last ones got smaller by it: what is
// packed on its way in is sealed once, and is the chunk as it stands.
type packer struct {
	idle, next int       // runs not to try, now and after the next that does not shrink
	used       []*[]byte // from packs, until the runs are written
}

// seal makes a run of what stands behind runRoom bytes of room: compressed in a buffer of
// the packer, or as it is and in place.
func (p *packer) seal(key *record.DataKey, room []byte, span record.Span, number uint64) sealedRun {
	frames := len(room) - runRoom
	payload, ok := p.pack(key, room[runRoom:], number)
	if !ok {
		payload = room[:runHead+len(key.Seal(room[runHead:], number))]
	}
	binary.LittleEndian.PutUint64(payload, span.First)
	binary.LittleEndian.PutUint64(payload[8:], span.Last<<1|uint64(flag(span.Open)))
	binary.LittleEndian.PutUint32(payload[16:], uint32(frames))
	return sealedRun{payload, frames}
}

func (p *packer) pack(key *record.DataKey, frames []byte, number uint64) ([]byte, bool) {
	if len(frames) < packFrom {
		return nil, false
	}
	if p.idle > 0 {
		p.idle--
		return nil, false
	}
	b := p.buffer()
	sealed, ok := key.SealPacked(b[runHead:], frames, number)
	if !ok {
		p.next = min(2*p.next+1, maxIdle)
		p.idle = p.next
		return nil, false
	}
	p.next = 0
	return b[:runHead+len(sealed)], true
}

// buffer is one with room for any run, until done.
func (p *packer) buffer() []byte {
	b := packs.Get().(*[]byte)
	p.used = append(p.used, b)
	return *b
}

// done gives the buffers back, once what they hold is written.
func (p *packer) done() {
	for i, b := range p.used {
		packs.Put(b)
		p.used[i] = nil
	}
	p.used = p.used[:0]
}

// seal makes runs of the frames of buf; r.mu is held.
func (r *Recorder) seal() error {
	if len(r.buf)-runRoom <= maxRun {
		r.buf = slices.Grow(r.buf, record.SealOverhead)
		r.sealed(r.buf, record.Span{First: r.kept + 1, Last: r.seq})
		return nil
	}
	span := record.Span{Last: r.kept}
	for frames := r.buf[runRoom:]; len(frames) > 0; {
		f, err := record.NextFrame(frames)
		if err != nil {
			return err
		}
		part := frames[:f.Size]
		frames = frames[f.Size:]
		if span, err = span.Next(part); err != nil {
			return err
		}
		r.sealed(append(r.packer.buffer()[:runRoom], part...), span)
	}
	return nil
}

// sealed adds a run to those of the current flush: the frames behind room.
func (r *Recorder) sealed(room []byte, span record.Span) {
	r.run++
	r.runs = append(r.runs, r.packer.seal(r.session.key, room, span, r.run))
}
