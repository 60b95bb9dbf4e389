package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/posterngate/postern/pkg/record"
)

// The entry of a cut: uint32 index of the chunk, uint8 whether the parts before are its
// bytes (1) or its bytes are made of its runs (0), uint64 number of its last run.
type cutting struct {
	index   uint32
	whole   bool
	through uint64
}

const cuttingSize = 4 + 1 + 8

func (c cutting) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, c.index)
	dst = append(dst, flag(c.whole))
	return binary.LittleEndian.AppendUint64(dst, c.through)
}

func parseCutting(b []byte) (cutting, error) {
	if len(b) != cuttingSize {
		return cutting{}, fmt.Errorf("a cut entry has not %d bytes", cuttingSize)
	}
	return cutting{binary.LittleEndian.Uint32(b), b[4] == 1, binary.LittleEndian.Uint64(b[5:])}, nil
}

// batch is how many bytes of chunks are built at once, and shipEvery how often the disk
// is synced for their sake while nobody waits: what is synced is slow to write to.
const (
	batch     = 4 << 20
	shipEvery = 250 * time.Millisecond
)

// sealEach builds the chunks of what was cut, off the path of sessions, and lets them be
// shipped once they are on the disk: after a power failure the next start must make the
// same bytes again.
func (s *Spool) sealEach(ctx context.Context) error {
	var built []*session
	due := time.NewTimer(shipEvery)
	defer due.Stop()
	for last := (time.Time{}); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wakeSeal:
		case <-due.C:
		}
		for more := true; more && ctx.Err() == nil; {
			var done []*session
			var urgent bool
			var err error
			if done, urgent, more, err = s.sealCuts(); err != nil {
				s.log.Error("a chunk could not be built", "error", err)
			}
			built = append(built, done...)
			if len(built) > 0 && (urgent || time.Since(last) >= shipEvery) {
				s.release(built)
				built, last = built[:0], time.Now()
			}
		}
		if len(built) > 0 {
			due.Reset(shipEvery - time.Since(last))
		}
	}
}

// sealCuts builds a batch of chunks and says of which sessions they are; urgent tells
// that somebody waits for one to be stored, more that there are others to build.
func (s *Spool) sealCuts() (built []*session, urgent, more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for size := 0; err == nil && size < batch; {
		ses := s.cuts.pop()
		if ses == nil {
			break
		}
		if s.sessions[ses.id] != ses {
			continue
		}
		var n int
		n, err = s.sealSession(ses)
		size += n
		built = append(built, ses)
		urgent = urgent || ses.moved != nil
		if err != nil {
			s.cuts.push(ses) // until there is room
		}
	}
	return built, urgent, err == nil && len(s.cuts.list) > 0, err
}

// release lets the chunks of sessions be shipped.
func (s *Spool) release(built []*session) {
	// A disk that failed cannot give the same bytes again in any case.
	_ = s.syncAll()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ses := range built {
		if s.sessions[ses.id] != ses {
			continue
		}
		for ses.built < len(ses.chunks) && ses.chunks[ses.built].known {
			ses.built++
		}
		s.ship(ses)
	}
}

// sealSession builds what can be built of one session, and its seal once it is over. It
// returns how many bytes that was. s.mu is held, and is given free for the work.
func (s *Spool) sealSession(ses *session) (size int, err error) {
	for i := ses.built; i < len(ses.chunks); i++ {
		c := ses.chunks[i]
		if c.known {
			continue
		}
		if err := s.build(ses, ses.before(i), c); err != nil {
			return size, fmt.Errorf("spool: chunk %d of session %s: %w", ses.before(i).next, ses.id, err)
		}
		if s.sessions[ses.id] != ses {
			return size, nil
		}
		size += c.size
		i = ses.place(c) // chunks before it may have gone
	}
	if !ses.sealable() {
		return size, nil
	}
	if err := s.putEnd(ses); err != nil {
		return size, err
	}
	return size, s.seal(ses)
}

// place is where c stands in chunks.
func (ses *session) place(c *chunk) int {
	for i := range ses.chunks {
		if ses.chunks[i] == c {
			return i
		}
	}
	return -1
}

// build settles the bytes of one chunk. They are its runs as they are; but many small ones
// are put together, compressed and kept in place of them, while the key is there and room
// for that. s.mu is held, and is given free for the work.
func (s *Spool) build(ses *session, before mark, c *chunk) error {
	cut := cutting{index: before.next}
	if len(c.runs) > 0 {
		cut.through = record.RunNumber(c.runs[len(c.runs)-1].run())
	}
	defer s.pin(c)()
	if ses.key != nil && !c.logged && small(c.runs) && s.disk.room(c.size) {
		runs := slices.Clone(c.runs)
		s.mu.Unlock()
		data, after, err := s.builder.compress(ses, before, runs)
		s.mu.Lock()
		if err != nil || s.sessions[ses.id] != ses {
			return err
		}
		if cut.whole = s.putParts(ses, c, data); cut.whole {
			c.after = after
		}
	}
	if !cut.whole {
		same := chunk{runs: slices.Clone(c.runs), parts: slices.Clone(c.parts)}
		s.mu.Unlock()
		after, err := ses.settle(before, &same)
		s.mu.Lock()
		if err != nil || s.sessions[ses.id] != ses {
			return err
		}
		c.after = after
	}
	if !c.logged {
		if _, _, err := s.put(entryCut, ses.ref, cut.append(nil), true); err != nil {
			s.free(c.parts)
			c.parts = nil
			return err
		}
		c.logged = true
	}
	if cut.whole {
		s.free(c.runs)
		size := 0
		for _, x := range c.parts {
			size += int(x.len)
		}
		s.unacked += int64(size - c.size)
		c.runs, c.size = nil, size
	}
	c.known = true
	return nil
}

// pin keeps the segments of a chunk while they are read without s.mu, which is held at
// both ends.
func (s *Spool) pin(c *chunk) (unpin func()) {
	pinned := slices.Concat(c.runs, c.parts)
	for _, x := range pinned {
		x.seg.live += int(x.len)
	}
	return func() { s.free(pinned) }
}

// putParts puts the bytes of a chunk into the log, as long as there is room; s.mu is held.
func (s *Spool) putParts(ses *session, c *chunk, data []byte) bool {
	for len(data) > 0 {
		n := min(len(data), maxEntry-entryHeader)
		place := s.disk.place
		seg, err := s.disk.open(entryPart, n, false)
		if place != s.disk.place {
			wake(s.wakeGrow)
		}
		if err != nil {
			s.free(c.parts)
			c.parts = nil
			return false
		}
		seg.live += n
		c.parts = append(c.parts, extent{seg, int32(seg.add(entryPart, ses.ref, data[:n])), int32(n)})
		data = data[n:]
	}
	return true
}

// small reports whether runs are too small to have been compressed on their own.
func small(runs []extent) bool {
	return framesOf(runs) < packFrom*len(runs)
}

// framesOf is how many bytes of frames are in runs.
func framesOf(runs []extent) (n int) {
	for _, x := range runs {
		n += x.frames()
	}
	return n
}

// A builder puts chunks together, in buffers that it uses again. It is for one goroutine.
type builder struct {
	opener       record.Opener
	frames, data []byte
}

// compress makes the chunk of runs that follows before, valid until the next.
func (b *builder) compress(ses *session, before mark, runs []extent) ([]byte, mark, error) {
	size := framesOf(runs)
	b.opener.Key, b.frames = ses.key, slices.Grow(b.frames[:0], size)
	defer func() { b.opener.Key = nil }() // it goes with its session
	for _, x := range runs {
		var err error
		if b.frames, err = b.opener.Open(b.frames, x.run(), record.CodecMinLZ, size-len(b.frames)); err != nil {
			return nil, mark{}, err
		}
	}
	h, err := ses.header(before, runs)
	if err != nil {
		return nil, mark{}, err
	}
	h.Codec = record.CodecMinLZ
	var hash record.Hash
	b.data, hash, err = record.AppendChunk(b.data[:0], h, ses.key, b.frames)
	return b.data, after(before, h, hash), err
}

// settle is the place in the chain behind a chunk that follows before.
func (ses *session) settle(before mark, c *chunk) (mark, error) {
	if len(c.parts) > 0 {
		chunk, err := record.ParseChunk(join(nil, c.parts))
		if err != nil {
			return mark{}, err
		}
		return after(before, chunk.Header, chunk.Hash), nil
	}
	h, sealed, err := ses.sealed(before, c.runs)
	if err != nil {
		return mark{}, err
	}
	return after(before, h, sealed.Hash()), nil
}

// append appends the bytes of a chunk that follows before, and is settled; called again,
// they are the same.
func (ses *session) append(dst []byte, before mark, c *chunk) ([]byte, error) {
	if len(c.parts) > 0 {
		return join(dst, c.parts), nil
	}
	_, sealed, err := ses.sealed(before, c.runs)
	if err != nil {
		return dst, err
	}
	return sealed.Append(dst, c.after.previous), nil
}

func join(dst []byte, parts []extent) []byte {
	for _, x := range parts {
		dst = append(dst, x.bytes()...)
	}
	return dst
}

// sealed is the chunk of runs that follows before.
func (ses *session) sealed(before mark, runs []extent) (record.Header, *record.SealedChunk, error) {
	h, err := ses.header(before, runs)
	if err != nil {
		return h, nil, err
	}
	h.Codec = record.CodecMinLZ
	if runs[0].bare() {
		h.Codec = record.CodecNone
	}
	of := make([][]byte, len(runs))
	for i, x := range runs {
		of[i] = x.run()
	}
	sealed, err := record.NewSealedChunk(h, framesOf(runs), of)
	return h, sealed, err
}

// header is that of the chunk of runs that follows before.
func (ses *session) header(before mark, runs []extent) (record.Header, error) {
	if len(runs) == 0 {
		return record.Header{}, errors.New("there is nothing in it")
	}
	first, last := runs[0].span(), runs[len(runs)-1].span()
	return record.Header{Session: ses.id, Index: before.next, First: first.First, Last: last.Last, Open: last.Open,
		Key: ses.wrapped, Previous: before.previous}, nil
}

// after is the place in the chain behind a chunk.
func after(before mark, h record.Header, hash record.Hash) mark {
	m := mark{next: before.next + 1, previous: hash, span: before.span}
	if !h.Sealing {
		m.span = record.Span{First: h.First, Last: h.Last, Open: h.Open}
	}
	return m
}

// seal makes the last chunk and keeps it, since signing again would give other bytes;
// s.mu is held.
func (s *Spool) seal(ses *session) error {
	before := ses.before(len(ses.chunks))
	data, hash, err := record.AppendSeal(nil, record.Seal{
		Session: ses.id, Node: s.cfg.Node, Chunks: before.next, Previous: before.previous, Last: before.span.Last,
		Time: time.Now(), Truncated: ses.ending.truncated, Reason: ses.ending.reason,
	}, s.cfg.Key)
	if err != nil {
		return err
	}
	seg, off, err := s.put(entrySeal, ses.ref, data, true)
	if err != nil {
		return err
	}
	seg.live += len(data)
	s.unacked += int64(len(data))
	ses.chunks = append(ses.chunks, &chunk{parts: []extent{{seg, int32(off), int32(len(data))}}, size: len(data), since: time.Now(),
		seal: true, logged: true, known: true, after: mark{next: before.next + 1, previous: hash, span: before.span}})
	s.age(ses)
	return nil
}
