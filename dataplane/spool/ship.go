package spool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/run"
)

// Chunk is one chunk on its way. Data belongs to the Uplink.
type Chunk struct {
	Session string
	Index   uint32
	Data    []byte
}

// An Uplink is one stream to the control plane.
type Uplink interface {
	// Stream sends what next gives and reports the answers until the stream breaks; the
	// spool then opens another, and sends all again that was not acknowledged. next is
	// for one goroutine at a time; it blocks until there is a chunk, and an error of it
	// ends the stream. acked says that every chunk below nextIndex is stored for good;
	// rejected, that a chunk never will be. Both are safe to call from any goroutine
	// while Stream runs.
	Stream(ctx context.Context, next func(ctx context.Context) (Chunk, error),
		acked func(session string, nextIndex uint32),
		rejected func(session string, index uint32, why string)) error
}

const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 5 * time.Second
)

// Run syncs, cuts, ships and trims until ctx is done. What is not shipped then stays
// for the next start.
func (s *Spool) Run(ctx context.Context) error {
	err := run.All(ctx,
		run.Part{Name: "keep", Run: s.keep},
		run.Part{Name: "sync", Run: s.syncEach},
		run.Part{Name: "ship", Run: s.shipAll},
	)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// keep does what must happen often: flush, cut, make room.
func (s *Spool) keep(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wakeGrow:
		case <-t.C:
		}
		s.flushHeld()
		if err := s.cutAged(time.Now()); err != nil {
			s.log.Error("a chunk could not be cut", "error", err)
		}
		if err := s.trim(); err != nil {
			s.log.Error("the spool could not be trimmed", "error", err)
		}
		s.grow()
	}
}

func (s *Spool) syncEach(ctx context.Context) error {
	t := time.NewTicker(syncEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if err := s.syncAll(); err != nil {
			s.log.Error("the spool could not be synced", "error", err)
		}
		s.check()
	}
}

// shipAll keeps a stream open.
func (s *Spool) shipAll(ctx context.Context) error {
	wait := backoffMin
	for {
		progress := false
		s.rewind()
		err := s.cfg.Uplink.Stream(ctx, s.next,
			func(session string, next uint32) { progress = true; s.acked(session, next) },
			s.rejected)
		if ctx.Err() != nil {
			return nil
		}
		if progress {
			wait = backoffMin
		}
		s.log.Warn("the stream of records broke", "error", err)
		t := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		wait = min(2*wait, backoffMax)
	}
}

// rewind lets a new stream begin with what is not stored.
func (s *Spool) rewind() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ses := range s.sessions {
		ses.sent = 0
		s.ship(ses)
	}
}

// next is the next chunk to ship.
func (s *Spool) next(ctx context.Context) (Chunk, error) {
	for {
		s.mu.Lock()
		ses := s.ready.pop()
		if ses == nil {
			s.mu.Unlock()
			select {
			case <-ctx.Done():
				return Chunk{}, ctx.Err()
			case <-s.wakeShip:
			}
			continue
		}
		if s.sessions[ses.id] != ses || !ses.shippable() {
			s.mu.Unlock()
			continue
		}
		out, err := s.build(ses)
		if err == nil {
			ses.sent++
		}
		if s.sessions[ses.id] == ses {
			s.ship(ses)
		}
		s.mu.Unlock()
		if err != nil {
			return Chunk{}, fmt.Errorf("spool: ship session %s: %w", ses.id, err)
		}
		return out, nil
	}
}

// build makes the next chunk of a session; s.mu is held, and is given free for the
// work. Built again, a chunk has the same bytes.
func (s *Spool) build(ses *session) (Chunk, error) {
	before := ses.stored
	if ses.sent > 0 {
		before = ses.chunks[ses.sent-1].after
	}
	out := Chunk{Session: string(ses.id), Index: before.next}
	if ses.sent == len(ses.chunks) {
		if err := s.seal(ses, before); err != nil {
			return out, err
		}
	}
	c := ses.chunks[ses.sent]
	if c.seal != nil {
		out.Data = c.seal
		return out, nil
	}
	frames := make([]byte, 0, c.size)
	for _, x := range c.extents {
		frames = append(frames, x.seg.mem[x.off:x.off+x.len]...)
	}
	s.mu.Unlock()
	data, after, err := encode(ses.id, before, frames)
	s.mu.Lock()
	if err == nil {
		c.after, c.built = after, true
	}
	out.Data = data
	return out, err
}

// encode makes the chunk of frames that follows before.
func encode(id postern.SessionID, before mark, frames []byte) ([]byte, mark, error) {
	span, err := before.span.Next(frames)
	if err != nil {
		return nil, mark{}, err
	}
	h := record.Header{Session: id, Index: before.next, First: span.First, Last: span.Last, Codec: record.CodecS2, Previous: before.previous}
	data, hash, err := record.AppendChunk(nil, h, frames)
	return data, mark{next: before.next + 1, previous: hash, span: span}, err
}

// seal makes the last chunk and keeps it, since signing again would give other bytes;
// s.mu is held.
func (s *Spool) seal(ses *session, before mark) error {
	data, hash, err := record.AppendSeal(nil, record.Seal{
		Session: ses.id, Node: s.cfg.Node, Chunks: before.next, Previous: before.previous, Last: before.span.Last,
		Time: time.Now(), Truncated: ses.ending.truncated, Reason: ses.ending.reason,
	}, s.cfg.Key)
	if err != nil {
		return err
	}
	seg, _, err := s.put(entrySeal, ses.ref, data, true)
	if err != nil {
		return err
	}
	seg.live += len(data)
	ses.chunks = append(ses.chunks, &chunk{seal: data, sealSeg: seg, since: time.Now(), built: true,
		after: mark{next: before.next + 1, previous: hash, span: before.span}})
	return nil
}

// acked takes an acknowledgement: every chunk below next is stored.
func (s *Spool) acked(id string, next uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ses := s.sessions[postern.SessionID(id)]
	if ses == nil {
		return
	}
	n := 0
	// A chunk that was not built since the start is sent again before it counts: only
	// then its hash is known.
	for n < len(ses.chunks) && ses.chunks[n].built && ses.stored.next < next {
		c := ses.chunks[n]
		ses.stored = c.after
		s.drop(c)
		n++
	}
	if n == 0 {
		return
	}
	sealed := ses.chunks[n-1].seal != nil
	ses.chunks = append(ses.chunks[:0], ses.chunks[n:]...)
	ses.sent = max(0, ses.sent-n)
	ses.stirred()
	var err error
	if sealed {
		err = s.done(ses)
	} else {
		err = s.putState(ses, true)
	}
	if err != nil {
		// The next start sends again what is stored already, which does no harm.
		s.log.Error("an acknowledgement could not be kept", "session", id, "error", err)
	}
}

// drop forgets the frames of a chunk; s.mu is held.
func (s *Spool) drop(c *chunk) {
	for _, x := range c.extents {
		x.seg.live -= int(x.len)
	}
	s.unacked -= int64(c.size)
	if c.seal != nil {
		c.sealSeg.live -= len(c.seal)
	}
	if c.extents != nil && len(s.extents) < 64 {
		s.extents = append(s.extents, c.extents[:0])
	}
	c.extents = nil
}

// done forgets a session of which nothing is needed any more; s.mu is held.
func (s *Spool) done(ses *session) error {
	delete(s.sessions, ses.id)
	_, _, err := s.put(entryDone, ses.ref, nil, true)
	return err
}

// rejected puts aside what is left of a session that the control plane refuses for
// good, for people to look at, and lets the session take no more.
func (s *Spool) rejected(id string, index uint32, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ses := s.sessions[postern.SessionID(id)]
	if ses == nil {
		return
	}
	s.log.Error("the control plane refused a recording", "session", id, "chunk", index, "reason", why)
	s.failLocked(ses, fmt.Errorf("spool: session %s: the control plane refused its recording: %s", id, why))
	if err := s.putAside(ses); err != nil {
		s.log.Error("a refused recording could not be put aside", "session", id, "error", err)
		return // it stays in the spool
	}
	for _, c := range ses.chunks {
		s.drop(c)
	}
	s.drop(&chunk{extents: ses.uncut, size: ses.size})
	ses.chunks, ses.uncut, ses.size = nil, nil, 0
	if err := s.done(ses); err != nil {
		s.log.Error("a refused recording could not be ended", "session", id, "error", err)
	}
}

// putAside writes what is not stored of a session as chunks into files; s.mu is held.
func (s *Spool) putAside(ses *session) error {
	dir := filepath.Join(s.cfg.Dir, "rejected")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	at := ses.stored
	var errs []error
	for _, c := range append(ses.chunks, &chunk{extents: ses.uncut}) {
		data := c.seal
		if len(c.extents) > 0 {
			var frames []byte
			for _, x := range c.extents {
				frames = append(frames, x.seg.mem[x.off:x.off+x.len]...)
			}
			var err error
			index := at.next
			if data, at, err = encode(ses.id, at, frames); err != nil {
				return fmt.Errorf("chunk %d: %w", index, err)
			}
		}
		if data != nil {
			index := at.next
			if c.seal == nil {
				index--
			}
			errs = append(errs, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d.chunk", ses.id, index)), data, 0o600))
		}
	}
	return errors.Join(errs...)
}
