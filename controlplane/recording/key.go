package recording

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
)

// maxKeys bounds the data keys that are kept in memory; the others are unwrapped again.
const maxKeys = 4096

// frames opens what a chunk says behind the events before. That it cannot be opened is
// the node's fault, that the key is not at hand is not.
func (s *Service) frames(ctx context.Context, row *typesv1.Session, chunk *record.Chunk, before record.Span) ([]byte, error) {
	key, err := s.dataKey(ctx, row, chunk)
	if errors.Is(err, record.ErrKey) {
		return nil, refuse("%v", err)
	}
	if err != nil {
		return nil, err
	}
	frames, err := chunk.OpenFrames(key, before)
	if err != nil {
		return nil, refuse("%v", err)
	}
	return frames, nil
}

// dataKey is the key that a chunk is sealed with.
func (s *Service) dataKey(ctx context.Context, row *typesv1.Session, chunk *record.Chunk) (*record.DataKey, error) {
	s.mu.Lock()
	key := s.opened[chunk.Session]
	s.mu.Unlock()
	if key != nil && chunk.Index > 0 {
		return key, nil
	}
	raw, err := s.unwrap(ctx, row, chunk)
	if err != nil {
		return nil, err
	}
	defer raw.Wipe()
	if key, err = record.OpenDataKey(raw.Reveal()); err != nil {
		return nil, refuse("%v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.opened) >= maxKeys {
		for id := range s.opened { // any of them
			delete(s.opened, id)
			break
		}
	}
	s.opened[chunk.Session] = key
	return key, nil
}

// unwrap opens the data key of a session; chunk is any of its chunks.
func (s *Service) unwrap(ctx context.Context, row *typesv1.Session, chunk *record.Chunk) (secret.Bytes, error) {
	if chunk.Index > 0 {
		var err error
		if chunk, err = s.first(ctx, row); err != nil {
			return secret.Bytes{}, err
		}
	}
	raw, err := s.cfg.Keys.Unwrap(ctx, chunk.Session, chunk.Key)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("open the key of session %s: %w", chunk.Session, err)
	}
	return raw, nil
}

// errStored says that what is stored in a recording's place is not what its node shipped.
var errStored = errors.New("it was changed or damaged where it is stored")

// lacking tells a reader what is wrong with what is stored; another error stays as it is.
func lacking(id string, err error) error {
	if !errors.Is(err, errStored) && !errors.Is(err, blob.ErrNotFound) {
		return fmt.Errorf("recording: %w", err)
	}
	return fault.Wrap(err, codes.FailedPrecondition, "the recording of session %q cannot be shown: %v", id, err).WithKind("DAMAGED")
}

// first is chunk 0 of a session, which has its key. Another session's in its place is no
// key of this one: it would be opened for who may read this one.
func (s *Service) first(ctx context.Context, row *typesv1.Session) (*record.Chunk, error) {
	if row.GetStartTime() == nil {
		return nil, errors.New("chunk 0 is not stored")
	}
	data, _, err := s.chunk(ctx, postern.SessionID(row.GetId()), row.GetStartTime().AsTime(), 0)
	if err != nil {
		return nil, fmt.Errorf("chunk 0 of session %s: %w", row.GetId(), err)
	}
	p, err := parse(data, row.GetId(), 0)
	if err != nil {
		return nil, fmt.Errorf("chunk 0 of session %s: %w: %s", row.GetId(), errStored, err.Error()) // not what a node ships now
	}
	return p.Chunk, nil
}

// DataKey is the key with which the chunks of a session are sealed, for somebody who may
// read all of them.
func (s *Service) DataKey(ctx context.Context, id string) (secret.Bytes, error) {
	row, err := s.Get(ctx, id)
	if err != nil {
		return secret.Bytes{}, err
	}
	chunk, err := s.first(ctx, row)
	if err != nil {
		return secret.Bytes{}, lacking(id, err)
	}
	raw, err := s.unwrap(ctx, row, chunk)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("recording: %w", err)
	}
	return raw, nil
}
