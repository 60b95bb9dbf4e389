package spool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/run"
)

// Chunk is one chunk on its way. Data and Seal are the Uplink's until it asks for the next.
type Chunk struct {
	Session string
	Index   uint32
	Data    []byte
	Seal    []byte // the chunk of the next index, where that is the seal and is at hand; empty otherwise
}

// An Uplink is one stream to the control plane.
type Uplink interface {
	// Stream sends what next gives and reports the answers until the stream breaks; the
	// spool then opens another, and sends all again that was not acknowledged. next is
	// for one goroutine at a time; it blocks until there is a chunk, and an error of it
	// ends the stream. acked says that every chunk below nextIndex is stored for good;
	// rejected, that a chunk never will be. Both are safe to call from any goroutine
	// while Stream runs. A seal that came with its chunk and is not acknowledged with it is
	// sent by itself.
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
		run.Part{Name: "seal", Run: s.sealEach},
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
		s.cutAged(time.Now())
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

// rewind lets a new stream send what is not stored. Who was next over the last one is so
// again, that no chunk at which streams break keeps others from being sent.
func (s *Spool) rewind() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ses := range s.sessions {
		if ses.sent > 0 {
			ses.tried++
			if s.stored {
				ses.passed++
			}
		}
		ses.sent = 0
		s.ship(ses)
	}
	s.stored = false
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
		before, c, seal := ses.before(ses.sent), ses.chunks[ses.sent], &chunk{}
		ses.sent++
		if ses.sent < ses.built && ses.chunks[ses.sent].seal {
			seal = ses.chunks[ses.sent]
			seal.along = true
			ses.sent++
		}
		s.ship(ses)
		// What is acknowledged meanwhile, from an earlier stream, may go from the disk.
		unpin, unpinSeal := s.pin(c), s.pin(seal)
		same, parts := chunk{runs: slices.Clone(c.runs), parts: slices.Clone(c.parts), after: c.after}, slices.Clone(seal.parts)
		s.mu.Unlock()
		data, err := ses.append(s.shipped[:0], before, &same)
		s.shipped = join(data, parts)
		s.mu.Lock()
		unpin()
		unpinSeal()
		s.mu.Unlock()
		if err != nil {
			return Chunk{}, fmt.Errorf("spool: ship session %s: %w", ses.id, err)
		}
		return Chunk{Session: string(ses.id), Index: before.next, Data: s.shipped[:len(data)], Seal: s.shipped[len(data):]}, nil
	}
}

// acked takes an acknowledgement: every chunk below next is stored.
func (s *Spool) acked(id string, next uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ses := s.sessions[postern.SessionID(id)]
	if ses == nil {
		return
	}
	n, first := 0, ses.stored.next == 0
	// A chunk that was not built since the start is sent again before it counts: only
	// then its hash is known.
	for n < ses.built && ses.stored.next < next {
		c := ses.chunks[n]
		ses.stored = c.after
		s.drop(c)
		n++
	}
	if n == 0 {
		return
	}
	if first {
		s.follow(ses)
	}
	sealed := ses.chunks[n-1].seal
	ses.chunks = append(ses.chunks[:0], ses.chunks[n:]...)
	ses.sent, ses.built = max(0, ses.sent-n), ses.built-n
	s.stored, ses.tried, ses.passed = true, 0, 0
	ses.barred.Store(false)
	if ses.sent > 0 && ses.chunks[0].along { // an earlier version of the control plane took the chunk alone
		ses.chunks[0].along, ses.sent = false, 0
		s.ship(ses)
	}
	ses.stirred()
	s.age(ses)
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

// follow lets the raw recording of a session be shipped, if it has one: the session is
// known now, or never will be; s.mu is held.
func (s *Spool) follow(ses *session) {
	if raw := s.sessions[record.RawID(ses.id)]; raw != nil {
		raw.of = nil
		s.age(raw)
		s.ship(raw)
	}
}

// drop forgets the bytes of a chunk; s.mu is held.
func (s *Spool) drop(c *chunk) {
	s.free(c.runs)
	s.free(c.parts)
	s.unacked -= int64(c.size)
	c.runs, c.parts, c.size = nil, nil, 0
}

// free gives back what extents hold; s.mu is held.
func (s *Spool) free(extents []extent) {
	for _, x := range extents {
		x.seg.live -= int(x.len)
	}
	if extents != nil && len(s.extents) < 64 {
		s.extents = append(s.extents, extents[:0])
	}
}

// done forgets a session of which nothing is needed any more; s.mu is held.
func (s *Spool) done(ses *session) error {
	delete(s.sessions, ses.id)
	s.age(ses)
	_, _, err := s.put(entryDone, ses.ref, nil, true)
	return err
}
