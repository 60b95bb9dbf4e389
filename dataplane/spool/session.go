package spool

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// A session is what the spool knows of one recording: which frames stand where, which
// chunks they are, and what of them is stored. Its fields are guarded by Spool.mu.
type session struct {
	id  postern.SessionID
	ref uint64
	of  *session // whose raw recording this is, while that is to be shipped first; else nil

	// recorder writes the session; nil for a session of an earlier process, of which all is
	// cut.
	recorder *Recorder

	// key seals what is recorded; nil for a session of an earlier process, which nobody
	// here can read any more.
	key     *record.DataKey
	wrapped record.WrappedKey

	stored   mark      // what the control plane has
	chunks   []*chunk  // cut and not stored, the first has index stored.next
	built    int       // how many of chunks may be shipped
	sent     int       // how many of chunks went over the current stream
	last     uint64    // seq of the last event of which something is kept
	uncut    []extent  // runs behind the last cut
	size     int       // bytes of them
	frames   int       // bytes of the frames in them
	since    time.Time // of the first of them
	stateSeg *segment  // where the newest state entry stands
	queued   [3]bool   // in Spool.waiting, cuts and ready
	lacks    time.Time // when the oldest record was made that is to be stored, while it is in Spool.ages
	rank     int       // in Spool.ages, from 1; 0 while it is not there

	tried  int         // streams over which it was sent, since the control plane stored something of it
	passed int         // those of them over which it stored something of others
	barred atomic.Bool // nothing is taken but what tells of ends: see Spool.late

	ended  bool
	told   bool // the log says that it has ended, and how
	ending ending
	failed error         // why no event can be added
	moved  chan struct{} // closed when stored or failed changes; nil while nobody waits
}

// A mark is a place in the chain between two chunks: zero before the first.
type mark struct {
	next     uint32 // index of the chunk behind it
	previous record.Hash
	span     record.Span
}

// A chunk is cut and not stored. Either runs are what it will be made of, or parts are
// its bytes.
type chunk struct {
	runs, parts []extent
	size        int // bytes of runs or parts
	since       time.Time
	logged      bool // its cut stands in the log, so that the next start makes the same
	seal        bool
	along       bool // the seal was sent with the chunk before it
	known       bool // its bytes are settled, and so is after
	after       mark
}

// An extent is the payload of one entry.
type extent struct {
	seg      *segment
	off, len int32
}

func (x extent) bytes() []byte { return x.seg.mem[x.off : x.off+x.len] }

// bare reports whether the run is of a version that kept frames as they are, and did not
// say how many bytes of them.
func (x extent) bare() bool { return x.seg.kind(int(x.off)) == entryFrames }

// run is the sealed run of its entry.
func (x extent) run() []byte {
	if x.bare() {
		return x.bytes()[bareHead:]
	}
	return x.bytes()[runHead:]
}

// frames is how many bytes of frames are in a run.
func (x extent) frames() int {
	if x.bare() {
		return int(x.len) - bareHead - bareSeal
	}
	return int(binary.LittleEndian.Uint32(x.bytes()[16:]) &^ firstBit)
}

// first reports whether the run begins a chunk. Of earlier versions none says so.
func (x extent) first() bool {
	return !x.bare() && binary.LittleEndian.Uint32(x.bytes()[16:])&firstBit != 0
}

// span is that of a run.
func (x extent) span() record.Span {
	b := x.bytes()
	last := binary.LittleEndian.Uint64(b[8:])
	return record.Span{First: binary.LittleEndian.Uint64(b), Last: last >> 1, Open: last&1 == 1}
}

// ending says how a session ended: uint8 whether it is truncated, uint64 seq of its last
// event, and why it is truncated.
type ending struct {
	truncated bool
	last      uint64
	reason    string
}

func (e ending) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(append(dst, flag(e.truncated)), e.last)
	return append(dst, e.reason...)
}

func parseEnding(b []byte) (ending, error) {
	if len(b) < 9 {
		return ending{}, errors.New("an end entry is cut short")
	}
	return ending{truncated: b[0] == 1, last: binary.LittleEndian.Uint64(b[1:]), reason: string(b[9:])}, nil
}

// oldest is when the first record was made that is to be stored; zero for none, and for
// what is raw while its session, which is older, is to be stored first.
func (ses *session) oldest() time.Time {
	if ses.waits() {
		return time.Time{}
	}
	if len(ses.chunks) > 0 {
		return ses.chunks[0].since
	}
	if len(ses.uncut) > 0 {
		return ses.since
	}
	return time.Time{}
}

// stirred wakes those who wait for the session to be stored.
func (ses *session) stirred() {
	if ses.moved != nil {
		close(ses.moved)
		ses.moved = nil
	}
}

// behind reports whether the event is stored.
func (ses *session) behind(seq uint64) bool {
	return ses.stored.span.Last > seq || ses.stored.span.Last == seq && !ses.stored.span.Open
}

// shippable reports whether there is something to send over the current stream. What is
// raw comes behind the beginning of its session, which says whose it is.
func (ses *session) shippable() bool {
	return ses.sent < ses.built && !ses.waits()
}

// waits reports whether the session is a raw recording whose session is not known yet.
func (ses *session) waits() bool { return ses.of != nil && ses.of.stored.next == 0 }

// sealable reports whether all but the seal is there.
func (ses *session) sealable() bool {
	n := len(ses.chunks)
	return ses.ended && len(ses.uncut) == 0 && (n == 0 || ses.chunks[n-1].known && !ses.chunks[n-1].seal)
}

// before is the place in the chain before chunk i of chunks, where it is known.
func (ses *session) before(i int) mark {
	if i == 0 {
		return ses.stored
	}
	return ses.chunks[i-1].after
}

// The state entry:
//
//	uint32 index of the first chunk that is not stored, 32 bytes hash of the one before,
//	uint64 seq of its last event, uint8 whether that event goes on,
//	uint8 whether the session has ended, then each behind its length as a uint8: the
//	session's id, that of the recording key, and the data key while chunk 0 is not
//	stored; then the ending
func (ses *session) appendState(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, ses.stored.next)
	dst = append(dst, ses.stored.previous[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, ses.stored.span.Last)
	dst = append(dst, flag(ses.stored.span.Open), flag(ses.ended))
	key := ses.wrapped.Sealed
	if ses.stored.next > 0 {
		key = nil
	}
	for _, s := range []string{string(ses.id), ses.wrapped.ID, string(key)} {
		dst = append(dst, byte(len(s)))
		dst = append(dst, s...)
	}
	return ses.ending.append(dst)
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (ses *session) parseState(b []byte) error {
	const fixed = 4 + 32 + 8 + 2
	short := errors.New("a state entry is cut short")
	if len(b) < fixed {
		return short
	}
	ses.stored.next = binary.LittleEndian.Uint32(b)
	ses.stored.previous = record.Hash(b[4:36])
	ses.stored.span = record.Span{Last: binary.LittleEndian.Uint64(b[36:]), Open: b[44] == 1}
	ended := b[45] == 1
	b = b[fixed:]
	var texts [3][]byte
	for i := range texts {
		if len(b) == 0 || len(b)-1 < int(b[0]) {
			return short
		}
		texts[i], b = b[1:1+b[0]], b[1+b[0]:]
	}
	ses.id = postern.SessionID(texts[0])
	ses.wrapped.ID = string(texts[1])
	if len(texts[2]) > 0 {
		ses.wrapped.Sealed = slices.Clone(texts[2])
	}
	if !ended {
		return nil
	}
	var err error
	ses.ended = true
	ses.ending, err = parseEnding(b)
	return err
}

// A queue of sessions, first in, first out; a session stands in it once.
type queue struct {
	which int // of session.queued
	list  []*session
}

func (q *queue) push(ses *session) {
	if !ses.queued[q.which] {
		ses.queued[q.which] = true
		q.list = append(q.list, ses)
	}
}

func (q *queue) pop() *session {
	if len(q.list) == 0 {
		return nil
	}
	ses := q.list[0]
	q.list[0] = nil
	q.list = q.list[1:]
	ses.queued[q.which] = false
	return ses
}
