package recording

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// kindHold is the store's kind of legal holds: the reason, by session. The index has them
// too, but can be lost and is then made again of recordings, which do not say that they are
// held.
const kindHold = "legalhold"

// Hold keeps a recording beyond its time, and what is raw of it, or with an empty reason lets
// it go. A *fault.Error says that there is none.
func (s *Service) Hold(ctx context.Context, id, reason string) error {
	if _, err := s.Get(ctx, id); err != nil {
		return err
	}
	op := store.Op{Key: store.Key{Kind: kindHold, Name: id}, Value: []byte(reason), Delete: reason == "", If: store.AnyRevision}
	if _, err := s.cfg.Store.Commit(ctx, op); err != nil {
		return fault.Wrap(err, codes.Unavailable, "the legal hold could not be written down; try again")
	}
	err := s.cfg.Index.Hold(ctx, postern.SessionID(id), reason)
	if errors.Is(err, index.ErrNotFound) {
		return fault.New(codes.NotFound, "no session %q is recorded", id)
	}
	return err
}

// held are the sessions that are held, and why.
func (s *Service) held(ctx context.Context) (map[postern.SessionID]string, error) {
	entries, _, err := s.cfg.Store.List(ctx, kindHold, "", 0)
	if err != nil {
		return nil, fmt.Errorf("list legal holds: %w", err)
	}
	held := make(map[postern.SessionID]string, len(entries))
	for _, e := range entries {
		held[postern.SessionID(e.Name)] = string(e.Value)
	}
	return held, nil
}

// holdAgain has the index hold a session whose row may have been made again.
func (s *Service) holdAgain(ctx context.Context, id postern.SessionID, reason string) error {
	if err := s.cfg.Index.Hold(ctx, id, reason); err != nil && !errors.Is(err, index.ErrNotFound) {
		return err
	}
	return nil
}

// free are those of old sessions that nobody holds; what the index has forgotten of the
// others it is told.
func (s *Service) free(ctx context.Context, old []*typesv1.Session) (free []*typesv1.Session, err error) {
	held, err := s.held(ctx)
	if err != nil {
		return nil, err
	}
	for _, one := range old {
		id := postern.SessionID(one.GetId())
		if of, raw := record.RawOf(id); raw {
			id = of
		}
		reason, ok := held[id]
		if !ok {
			free = append(free, one)
		} else if err := s.holdAgain(ctx, id, reason); err != nil {
			return nil, err
		}
	}
	return free, nil
}
