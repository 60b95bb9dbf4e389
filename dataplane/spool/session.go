package spool

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// A session is what the spool knows of one recording: which frames stand where, which
// chunks they are, and what of them is stored. Its fields are guarded by Spool.mu.
type session struct {
	id  postern.SessionID
	ref uint64

	stored   mark      // what the control plane has
	chunks   []*chunk  // cut and not stored, the first has index stored.next
	sent     int       // how many of chunks went over the current stream
	uncut    []extent  // frames behind the last cut
	size     int       // bytes of them
	since    time.Time // of the first of them
	stateSeg *segment  // where the newest state entry stands
	queued   [2]bool   // in Spool.waiting, in Spool.ready

	ended  bool
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

// A chunk is cut and not stored.
type chunk struct {
	extents []extent
	size    int
	since   time.Time
	after   mark   // valid once built
	built   bool   // so its bytes are known, though not kept
	seal    []byte // the whole chunk, where it is the seal
	sealSeg *segment
}

// An extent is the payload of one entry of frames.
type extent struct {
	seg      *segment
	off, len int32
}

// ending says how a session ended.
type ending struct {
	truncated bool
	reason    string
}

func (e ending) append(dst []byte) []byte {
	flag := byte(0)
	if e.truncated {
		flag = 1
	}
	return append(append(dst, flag), e.reason...)
}

func parseEnding(b []byte) (ending, error) {
	if len(b) == 0 {
		return ending{}, errors.New("an end entry is empty")
	}
	return ending{truncated: b[0] == 1, reason: string(b[1:])}, nil
}

// oldest is when the first record was made that is not stored; zero for none.
func (ses *session) oldest() time.Time {
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

// shippable reports whether there is something to send over the current stream.
func (ses *session) shippable() bool {
	if ses.sent < len(ses.chunks) {
		return true
	}
	return ses.ended && len(ses.uncut) == 0 && (len(ses.chunks) == 0 || ses.chunks[len(ses.chunks)-1].seal == nil)
}

// The state entry:
//
//	uint32 index of the first chunk that is not stored, 32 bytes hash of the one before,
//	uint64 seq of its last event, uint8 whether that event goes on,
//	uint8 whether the session has ended, uint8 length of its id, the id, then the ending
func (ses *session) appendState(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, ses.stored.next)
	dst = append(dst, ses.stored.previous[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, ses.stored.span.Last)
	dst = append(dst, flag(ses.stored.span.Open), flag(ses.ended), byte(len(ses.id)))
	dst = append(dst, ses.id...)
	return ses.ending.append(dst)
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (ses *session) parseState(b []byte) error {
	const fixed = 4 + 32 + 8 + 3
	if len(b) < fixed || len(b) < fixed+int(b[fixed-1])+1 {
		return errors.New("a state entry is cut short")
	}
	ses.stored.next = binary.LittleEndian.Uint32(b)
	ses.stored.previous = record.Hash(b[4:36])
	ses.stored.span = record.Span{Last: binary.LittleEndian.Uint64(b[36:]), Open: b[44] == 1}
	ended, n := b[45] == 1, int(b[46])
	ses.id = postern.SessionID(b[fixed : fixed+n])
	var err error
	if ended {
		ses.ended = true
		ses.ending, err = parseEnding(b[fixed+n:])
	}
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
