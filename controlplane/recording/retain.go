package recording

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// forgetAtOnce bounds the sessions of one step, and so of one entry in the audit log.
const forgetAtOnce = 100

// staysTimeout bounds how long a store is asked for what it did not delete.
const staysTimeout = 30 * time.Second

// Retain lets recordings go that began on a day before that of before, have ended and
// are not held, and returns how many went. told is called with each step's sessions
// before they go; after an error of it they stay. The rows go first, so that a hold wins
// until the last moment, and kept is called with those that stay after all: it must be told
// of them too, or nobody would miss them. What the store does not delete is indexed again, as
// blobs that are left when a process stops in between are at the next start, and goes later.
func (s *Service) Retain(ctx context.Context, before time.Time, told, kept func(ctx context.Context, ids []postern.SessionID) error) (gone int, err error) {
	for {
		old, err := s.cfg.Index.Old(ctx, before)
		if err != nil || len(old) == 0 {
			return gone, err
		}
		if old, err = s.free(ctx, old[:min(len(old), forgetAtOnce)]); err != nil {
			return gone, fmt.Errorf("recording: retain: %w", err)
		}
		if len(old) == 0 {
			return gone, nil // all of them are held, as the index knows now
		}
		n, err := s.letGo(ctx, old, told, kept)
		gone += n
		if err != nil {
			return gone, fmt.Errorf("recording: let %d old recordings go: %w", len(old), err)
		}
		if n == 0 {
			return gone, nil // all of them were held in the meantime
		}
	}
}

func (s *Service) letGo(ctx context.Context, old []*typesv1.Session, told, kept func(context.Context, []postern.SessionID) error) (int, error) {
	ids := make([]postern.SessionID, len(old))
	began := map[postern.SessionID]time.Time{}
	for i, one := range old {
		ids[i] = postern.SessionID(one.GetId())
		began[ids[i]] = one.GetStartTime().AsTime()
	}
	if err := told(ctx, ids); err != nil {
		return 0, err
	}
	gone, err := s.cfg.Index.Forget(ctx, ids)
	errs := []error{err}
	if len(gone) < len(ids) {
		stay := slices.DeleteFunc(slices.Clone(ids), func(id postern.SessionID) bool { return slices.Contains(gone, id) })
		errs = append(errs, kept(context.WithoutCancel(ctx), stay))
	}
	n := 0
	for _, id := range gone {
		name := blobName(id, began[id], 0)
		folder := name[:strings.LastIndexByte(name, '/')+1]
		err := s.deleteBlobs(ctx, folder)
		if err == nil {
			n++
			continue
		}
		errs = append(errs, err, s.stays(context.WithoutCancel(ctx), id, folder, kept))
	}
	return n, errors.Join(errs...)
}

// stays makes the rows again of a recording that could not be deleted: its store was told to
// keep it for longer, or does not answer. It is tried again with the next that are old.
func (s *Service) stays(ctx context.Context, id postern.SessionID, folder string, kept func(context.Context, []postern.SessionID) error) error {
	ctx, cancel := context.WithTimeout(ctx, staysTimeout)
	defer cancel()
	_, err := s.reconcile(ctx, folder)
	return errors.Join(err, kept(ctx, []postern.SessionID{id}))
}

// deleteBlobs deletes the chunks of a session, the first one last: whatever is left then
// begins with who opened the session.
func (s *Service) deleteBlobs(ctx context.Context, folder string) error {
	var names []string
	for name, err := range s.cfg.Blobs.List(ctx, folder) {
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	for i := len(names) - 1; i >= 0; i-- {
		if err := s.cfg.Blobs.Delete(ctx, names[i]); err != nil {
			return err
		}
	}
	return nil
}
