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

// A sealedRun is one run of a packer.
type sealedRun struct {
	at, size int    // of the payload, in the packer's entries
	frames   int    // bytes of them
	last     uint64 // seq of its last event
}

const (
	// packFrom is how many bytes of frames are worth compressing on their own. Runs that
	// are smaller are put together first, when their chunk is built.
	packFrom = 4 << 10
	// maxIdle is how many runs in a row are not tried after those that did not shrink.
	maxIdle = 15
	// packedBytes is how many bytes of runs are held back, so that they are written at once:
	// as many as are still near the processor by then.
	packedBytes = 48 << 10
)

// A pack has room for the runs that are held back, and one more.
type pack [packedBytes + maxEntry]byte

var packs = sync.Pool{New: func() any { return new(pack) }}

// A packer makes the entries of runs, one behind the other as they will stand in a segment,
// but for their heads. It compresses where its session's last runs got smaller by it: what
// is packed on its way in is sealed once, and is the chunk as it stands.
type packer struct {
	idle, next int // runs not to try, now and after the next that does not shrink

	pack    *pack // while something is held; entries may have outgrown it
	entries []byte
	runs    []sealedRun
	frames  int // bytes of them in runs
}

// add makes a run of frames.
func (p *packer) add(key *record.DataKey, frames []byte, span record.Span, number uint64) {
	if p.pack == nil {
		p.pack = packs.Get().(*pack)
		p.entries = p.pack[:0]
	}
	at := len(p.entries) + entryHeader
	p.entries = slices.Grow(p.entries, entrySize(runHead+record.PackedRoom(len(frames))))
	room := p.entries[at+runHead : at+runHead]
	sealed, ok := p.try(key, room, frames, number)
	if !ok {
		sealed = key.Seal(append(room[:record.SealRoom], frames...), number)
	}
	end := at + runHead + len(sealed)
	p.entries = p.entries[:at-entryHeader+entrySize(end-at)]
	clear(p.entries[end:])
	payload := p.entries[at:end]
	binary.LittleEndian.PutUint64(payload, span.First)
	binary.LittleEndian.PutUint64(payload[8:], span.Last<<1|uint64(flag(span.Open)))
	binary.LittleEndian.PutUint32(payload[16:], uint32(len(frames)))
	p.runs = append(p.runs, sealedRun{at, len(payload), len(frames), span.Last})
	p.frames += len(frames)
}

// try makes a run of frames that were compressed, where that is worth it.
func (p *packer) try(key *record.DataKey, room, frames []byte, number uint64) ([]byte, bool) {
	if len(frames) < packFrom {
		return nil, false
	}
	if p.idle > 0 {
		p.idle--
		return nil, false
	}
	sealed, ok := key.SealPacked(room, frames, number)
	if !ok {
		p.next = min(2*p.next+1, maxIdle)
		p.idle = p.next
		return nil, false
	}
	p.next = 0
	return sealed, true
}

// done forgets the runs, once they are written.
func (p *packer) done() {
	if p.pack != nil {
		packs.Put(p.pack)
	}
	p.pack, p.entries = nil, nil
	p.runs, p.frames = p.runs[:0], 0
}
