// Package spool keeps what sessions record until the control plane has stored it. An
// event is as durable as its Mode says when Record returns; whatever cannot be kept is
// refused, never dropped. It leaves the format to pkg/record and the stream to an
// Uplink. One process at a time has a spool.
package spool

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// Mode says how durable an event must be before Record returns. The zero Mode is the
// strictest.
type Mode uint8

// The modes, from the strictest on.
const (
	Remote Mode = iota // stored by the control plane
	Disk               // on this disk: fdatasync, shared by all who wait
	Local              // in a shared mapping: survives kill -9 of the process; on the disk within a second
	Async              // within 200 ms as durable as Local
)

// Config says where and how much a spool keeps. Its first fields are required.
type Config struct {
	Dir    string // belongs to the spool alone; made with mode 0700
	Node   postern.NodeName
	Key    crypto.Signer // signs seals: Ed25519 or ECDSA
	Uplink Uplink
	// RecordingKey is the public key (X25519) to which sessions that begin now are
	// sealed; empty where none is known, and then none begins.
	RecordingKey func() []byte
	// RawKey is the same for raw recordings; nil or empty where none is known.
	RawKey func() []byte

	MaxBytes      int64         // of all segment files; 0 means 4 GiB
	SegmentBytes  int           // of one; 0 means 64 MiB
	MaxUnshipped  time.Duration // the oldest record that the control plane may lack; 0 means 5 min
	RemoteTimeout time.Duration // how long Record waits in mode Remote; 0 means 10 s
	Logger        *slog.Logger  // nil discards
}

const (
	chunkBytes = 416 << 10       // of frames, after which a chunk is cut; what comes at once must fit besides
	chunkAge   = 2 * time.Second // after which it is cut in any case
	asyncBytes = 32 << 10        // of frames that are enough for a run, in mode Async
	tick       = 100 * time.Millisecond
	syncEvery  = time.Second
	maxEntry   = 72 << 10 // bytes of an entry: a frame and some room
	minSegment = 4 * maxEntry
	minCount   = 3 // segments: the active one, the next, the reserve
)

// A Spool keeps the recordings of all sessions of one node. It is safe for concurrent use.
type Spool struct {
	cfg  Config
	log  *slog.Logger
	lock *os.File

	// refusal is why nothing may be forwarded, or nil. It is set anew each second, and
	// at once where something fails.
	refusal atomic.Pointer[error]

	mu       sync.Mutex
	closed   bool
	disk     log
	sessions map[postern.SessionID]*session
	nextRef  uint64
	unacked  int64 // bytes of frames that the control plane lacks
	ages     ages
	stored   bool                           // something was, over the current stream
	aside    map[postern.SessionID]struct{} // in the folder asideDir
	waiting  queue                          // sessions that have runs without a cut
	cuts     queue                          // sessions that have chunks which are not built
	ready    queue                          // sessions that have something to ship
	held     map[*Recorder]struct{}
	extents  [][]extent // for reuse
	builder  builder    // of sealEach alone
	shipped  []byte     // the chunk that was handed over last; of Uplink.Stream's next alone
	full     bool       // an entry did not fit; until there is a spare segment again
	fault    error      // of the disk; final

	wakeSeal chan struct{} // cuts has grown
	wakeShip chan struct{} // ready has grown
	wakeGrow chan struct{} // a segment was begun

	sync syncer
}

// Open opens the spool in cfg.Dir. What an earlier process left is recovered: every
// intact record is kept, sessions that lived are over, and all of it will be shipped.
func Open(cfg Config) (_ *Spool, _ Recovery, err error) {
	cfg.MaxBytes = orElse(cfg.MaxBytes, 4<<30)
	cfg.SegmentBytes = orElse(cfg.SegmentBytes, 64<<20)
	cfg.MaxUnshipped = orElse(cfg.MaxUnshipped, 5*time.Minute)
	cfg.RemoteTimeout = orElse(cfg.RemoteTimeout, 10*time.Second)
	cfg.Logger = orElse(cfg.Logger, slog.New(slog.DiscardHandler))
	switch most := cfg.MaxBytes / int64(max(1, cfg.SegmentBytes)); {
	case cfg.Dir == "" || cfg.Node == "" || cfg.Key == nil || cfg.Uplink == nil || cfg.RecordingKey == nil:
		return nil, Recovery{}, errors.New("spool: a folder, the node's name, its key, an uplink and the recording key are required")
	case cfg.SegmentBytes < minSegment:
		return nil, Recovery{}, fmt.Errorf("spool: a segment of %d bytes is too small; want at least %d", cfg.SegmentBytes, minSegment)
	case most < minCount:
		return nil, Recovery{}, fmt.Errorf("spool: %d bytes are too few; want room for %d segments of %d bytes", cfg.MaxBytes, minCount, cfg.SegmentBytes)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, Recovery{}, fmt.Errorf("spool: %w", err)
	}
	lock, err := lockDir(cfg.Dir + "/lock")
	if err != nil {
		return nil, Recovery{}, fmt.Errorf("spool: %w", err)
	}
	s := &Spool{
		cfg:      cfg,
		log:      cfg.Logger,
		lock:     lock,
		disk:     log{dir: cfg.Dir, size: cfg.SegmentBytes, most: int(cfg.MaxBytes / int64(cfg.SegmentBytes))},
		sessions: map[postern.SessionID]*session{},
		nextRef:  1,
		held:     map[*Recorder]struct{}{},
		wakeSeal: make(chan struct{}, 1),
		wakeShip: make(chan struct{}, 1),
		wakeGrow: make(chan struct{}, 1),
	}
	s.sync.init()
	recovery, err := s.recover()
	if err == nil {
		s.aside, err = findAside(cfg.Dir)
	}
	if err != nil {
		return nil, recovery, fmt.Errorf("spool: recover %s: %w", cfg.Dir, errors.Join(err, s.closeFiles()))
	}
	s.check()
	return s, recovery, nil
}

func orElse[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Session begins the recording of one session with its Opened event. An error means
// that the session must not begin.
func (s *Spool) Session(meta record.Session) (*Recorder, error) {
	if _, raw := record.RawOf(meta.ID); raw {
		return nil, fmt.Errorf("spool: %s is no session's id", meta.ID)
	}
	return s.begin(meta, s.cfg.RecordingKey(), nil)
}

// Raw begins the raw recording of the session of r: one of its own, as durable as its own
// modes say, of which nothing is shipped before the session itself is known.
func (s *Spool) Raw(r *Recorder, meta record.Session) (*Recorder, error) {
	var to []byte
	if s.cfg.RawKey != nil {
		to = s.cfg.RawKey()
	}
	meta.ID = record.RawID(r.session.id)
	return s.begin(meta, to, r)
}

func (s *Spool) begin(meta record.Session, to []byte, of *Recorder) (*Recorder, error) {
	if err := record.CheckSession(meta.ID); err != nil {
		return nil, err
	}
	if err := s.Healthy(); err != nil {
		return nil, err
	}
	if len(to) == 0 {
		return nil, fmt.Errorf("spool: the control plane has not said to which key the recording %s is sealed", meta.ID)
	}
	key, wrapped, err := record.NewDataKey(to, meta.ID)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.sessions[meta.ID] != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("spool: session %s is recorded already", meta.ID)
	}
	ses := &session{id: meta.ID, ref: s.nextRef, key: key, wrapped: wrapped}
	now := time.Now()
	if of != nil {
		ses.of, now = of.session, of.began // one clock for both
	}
	s.nextRef++
	r := &Recorder{spool: s, session: ses, began: now}
	ses.recorder = r
	err = s.putState(ses, false)
	if err == nil {
		s.sessions[meta.ID] = ses
	}
	s.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("spool: begin session %s: %w", meta.ID, err)
	}
	if err := r.record(&record.Event{Time: now, Kind: record.KindOpened, Session: &meta}, Local, false); err != nil {
		return nil, errors.Join(err, r.Close("could not be recorded"))
	}
	return r, nil
}

// Healthy says why nothing may be forwarded: the disk failed or is full, or the control
// plane has lacked records for too long. It is cheap.
func (s *Spool) Healthy() error {
	if why := s.refusal.Load(); why != nil {
		return *why
	}
	return nil
}

func (s *Spool) refuse(why error) {
	if why == nil {
		s.refusal.Store(nil)
		return
	}
	s.refusal.Store(&why)
}

// check sets what Healthy says, once what only one recording is to blame for is put aside.
func (s *Spool) check() {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := s.late(time.Now())
	var why error
	switch {
	case s.closed:
		why = errors.New("the spool is closed")
	case s.fault != nil:
		why = s.fault
	case len(s.disk.spare) == 0 || s.full && len(s.disk.spare) < 2:
		why = errFull
	case oldest > 0:
		why = fmt.Errorf("the control plane has not stored a record that is %s old; at most %s are allowed", oldest.Round(time.Second), s.cfg.MaxUnshipped)
	}
	was := s.refusal.Load()
	if len(s.disk.spare) > 1 {
		s.full = false
	}
	if why != nil && was == nil && !s.closed { // that is no news to operators
		s.log.Error("recording refused", "error", why)
	}
	if why == nil && was != nil {
		s.log.Info("recording possible again")
	}
	if why != nil {
		why = fmt.Errorf("spool: nothing can be recorded: %w", why)
	}
	s.refuse(why)
}

// Stats is how many bytes of records the control plane lacks, and how old the oldest is.
func (s *Spool) Stats() (bytes int64, oldest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unacked, s.ages.oldest(time.Now())
}

// Has reports whether something of a recording is left that the control plane has not
// stored: it lives, or its end was not shipped.
func (s *Spool) Has(id postern.SessionID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[id] != nil
}

// Drain waits until the control plane has all that was recorded. It needs Run to run,
// and every Recorder to be closed.
func (s *Spool) Drain(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		s.mu.Lock()
		n := len(s.sessions)
		s.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("spool: %d recordings are not stored yet: %w", n, ctx.Err())
		case <-t.C:
		}
	}
}

// Close syncs and closes the files. Run must have returned. Recorders that were not
// closed find the spool closed; their sessions are sealed as truncated at the next start.
func (s *Spool) Close() error {
	s.flushHeld()
	err := s.syncAll()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.check()
	return errors.Join(err, s.closeFiles())
}

// closeFiles closes the files and gives the folder free.
func (s *Spool) closeFiles() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, seg := range s.disk.segments {
		errs = append(errs, seg.close(false))
	}
	for _, seg := range s.disk.spare {
		errs = append(errs, seg.close(true))
	}
	s.disk.segments, s.disk.spare = nil, nil
	return errors.Join(append(errs, s.lock.Close())...)
}
