// Package recording takes recordings in from nodes, keeps them and gives them out. A
// chunk is acknowledged once its blob is stored and its rows are committed, in that
// order. Who may read is said by the API; where bytes and rows lie, by blob and index.
package recording

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
)

// Config is what a Service needs. All but Grant, Ended, Told, Alerted, Export and Logger is required.
type Config struct {
	Blobs blob.Blobs
	Index index.Index
	Store store.Store // keeps legal holds
	Keys  Keys
	// NodeKeys are the public keys with which a node may have sealed, the one of now
	// first. An error means that it cannot be told now.
	NodeKeys func(node string) ([]crypto.PublicKey, error)
	// Rejected is told of every chunk that was refused for good, for the audit log. After
	// an error of it the node is not answered, and sends the chunk again.
	Rejected func(ctx context.Context, r Rejection) error
	// Grant is a grant that a client has opened at a node, or nil where none is known. What a
	// recording says of whose it is is held against it; nil doubts nothing.
	Grant func(ctx context.Context, id postern.GrantID, node postern.NodeName) (*typesv1.Grant, error)
	// Ended is told of every session that is over, before the seal that says so is stored.
	// After an error of it the node sends the seal again; nil is nobody.
	Ended func(ctx context.Context, node postern.NodeName, session postern.SessionID) error
	// Told is told of every recording that begins, is sealed or is given up, before that is
	// acknowledged, for a log that can tell that one is missing. After an error of it the
	// node sends the chunk again, and so it may be told twice; nil is nobody.
	Told func(ctx context.Context, m Mark) error
	// Alerted is told of notes of a session that somebody should see, before they are
	// acknowledged. After an error of it the node sends them again, and so it may be told
	// twice; nil is nobody.
	Alerted func(ctx context.Context, s *typesv1.Session, texts []string) error
	// Export is told of every update before it is committed, and again where that failed.
	// After an error of it the node sends the chunk again; nil is nobody.
	Export func(u *index.Update) error
	Logger *slog.Logger // nil discards
}

// Keys opens what nodes sealed to a recording key.
type Keys interface {
	// Unwrap opens the data key of a session.
	Unwrap(ctx context.Context, session postern.SessionID, w record.WrappedKey) (secret.Bytes, error)
}

// A Mark is what is known of a recording when it begins, is sealed, or is given up.
type Mark struct {
	Node      postern.NodeName
	Session   *typesv1.Session
	Chunks    uint32           // stored, this one included
	Hash      record.Hash      // of this one
	NodeKey   crypto.PublicKey // that signed the seal; nil where there is none
	Truncated bool
	Lost      bool // the rest will not come, and so no seal
}

// Rejection is one chunk that was refused for good.
type Rejection struct {
	Node    postern.NodeName
	Session string // as the node named it
	Index   uint32
	Reason  string
}

// A Service keeps recordings. It is safe for concurrent use; several may share blobs
// and index.
type Service struct {
	cfg Config
	log *slog.Logger

	mu     sync.Mutex
	open   map[postern.SessionID]openEvent
	opened map[postern.SessionID]*record.DataKey // of sessions that live
	stood  map[postern.SessionID]standing        // how sessions were left that live
}

// A standing is what the index has of a recording, as this process has written it. The
// index says whether it still is, when the next chunk is committed.
type standing struct {
	head index.Head
	row  *typesv1.Session // whoever takes the standing may change it
}

// maxStood bounds the standings that are kept; of the others the index is asked.
const maxStood = 4096

// An openEvent is the first part of an event that goes on in a chunk to come.
type openEvent struct {
	next    uint32 // the chunk that must follow
	decoder *record.Decoder
}

// maxOpen bounds the events that are kept in memory between two chunks; the others are
// read again.
const maxOpen = 64

// New makes a Service.
func New(cfg Config) (*Service, error) {
	if cfg.Blobs == nil || cfg.Index == nil || cfg.Store == nil || cfg.Keys == nil || cfg.NodeKeys == nil || cfg.Rejected == nil {
		return nil, errors.New("recording: blobs, an index, a store, recording keys, the nodes' keys and somebody to tell of rejections are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, log: cfg.Logger, open: map[postern.SessionID]openEvent{}, opened: map[postern.SessionID]*record.DataKey{}, stood: map[postern.SessionID]standing{}}, nil
}

// Chunks are kept below these, so that a store can let fewer people read what is raw.
const (
	prefix    = "recordings/v1/"
	rawPrefix = "raw/v1/"
)

func blobName(id postern.SessionID, start time.Time, number uint32) string {
	below := prefix
	if _, raw := record.RawOf(id); raw {
		below = rawPrefix
	}
	return fmt.Sprintf("%s%s/%s/%010d", below, start.UTC().Format("2006/01/02"), id, number)
}

// List reads sessions, the newest first.
func (s *Service) List(ctx context.Context, f index.Filter) ([]*typesv1.Session, error) {
	return s.cfg.Index.Sessions(ctx, f)
}

// Get reads one session. A *fault.Error says that there is none.
func (s *Service) Get(ctx context.Context, id string) (*typesv1.Session, error) {
	ses, err := s.cfg.Index.Session(ctx, postern.SessionID(id))
	if _, raw := record.RawOf(postern.SessionID(id)); raw || errors.Is(err, index.ErrNotFound) {
		return nil, fault.New(codes.NotFound, "no session %q is recorded", id)
	}
	return ses, err
}

// forget forgets what is kept in memory of a recording that has ended.
func (s *Service) forget(id postern.SessionID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.opened, id)
	delete(s.stood, id)
	delete(s.open, id)
}

// follow is how often a recording is looked at for new chunks.
const follow = 500 * time.Millisecond

// Read calls fn with the chunks of a recording from number from on, as they are stored;
// live tells it to go on until the recording has ended. key is the public key of the
// node, PKIX; it comes with the first chunk and with the seal. Data is fn's to keep.
func (s *Service) Read(ctx context.Context, id string, from uint32, live bool, fn func(number uint32, data, key []byte) error) error {
	ses, err := s.Get(ctx, id)
	if err != nil {
		return err
	}
	return s.read(ctx, postern.SessionID(id), ses.GetStartTime().AsTime(), from, live, fn)
}

func (s *Service) read(ctx context.Context, id postern.SessionID, began time.Time, from uint32, live bool, fn func(number uint32, data, key []byte) error) error {
	t := time.NewTicker(follow)
	defer t.Stop()
	var rest []byte // of the blob of the chunk before
	for next := from; ; {
		head, err := s.cfg.Index.Head(ctx, id)
		if err != nil {
			return err
		}
		for ; next < head.Next; next++ {
			var data []byte
			if len(rest) > 0 {
				data, rest = record.Split(rest)
			} else if data, rest, err = s.chunk(ctx, id, began, next); err != nil {
				return lacking(string(id), fmt.Errorf("chunk %d of session %s: %w", next, id, err))
			}
			var key []byte
			if next == from || head.Sealed && next == head.Next-1 {
				if key, err = s.keyOf(head); err != nil {
					return err
				}
			}
			if err := fn(next, data, key); err != nil {
				return err
			}
		}
		if !live || head.Sealed || head.Lost {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}
