package recording

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"

	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// Reconcile commits the rows of chunks whose blobs are stored and whose rows are not:
// a process was stopped between the two, or the index lost its newest commits. It is to
// be called once at the start, and may run beside Ingest. What cannot be read is
// logged and left, and what is held is held again. It returns how many blobs it took.
func (s *Service) Reconcile(ctx context.Context) (taken int, err error) {
	for _, below := range []string{prefix, rawPrefix} { // whose sessions are indexed before
		n, err := s.reconcile(ctx, below)
		if taken += n; err != nil {
			return taken, err
		}
	}
	held, err := s.held(ctx)
	for id, reason := range held {
		err = errors.Join(err, s.holdAgain(ctx, id, reason))
	}
	if err != nil {
		return taken, fmt.Errorf("recording: reconcile: %w", err)
	}
	return taken, nil
}

func (s *Service) reconcile(ctx context.Context, below string) (taken int, err error) {
	var id postern.SessionID
	var next uint32 // of the session whose blobs are listed
	skip := false   // the rest of it
	for name, err := range s.cfg.Blobs.List(ctx, below) {
		if err != nil {
			return taken, fmt.Errorf("recording: reconcile: %w", err)
		}
		session, number, ok := parseName(name)
		if !ok {
			s.log.WarnContext(ctx, "a blob is no chunk", "blob", name)
			continue
		}
		if session != id {
			head, err := s.cfg.Index.Head(ctx, session)
			if err != nil {
				return taken, fmt.Errorf("recording: reconcile: %w", err)
			}
			id, next, skip = session, head.Next, false
		}
		if skip || number < next {
			continue
		}
		err = s.retake(ctx, name)
		switch {
		case err == nil:
			taken++
		case errors.Is(err, index.ErrConflict):
			skip = true // its node ships it at this moment
		case ctx.Err() != nil:
			return taken, fmt.Errorf("recording: reconcile %s: %w", name, err)
		default:
			// The node was not answered, and so ships it again; a control plane that did not
			// start for it could not even be told.
			s.log.ErrorContext(ctx, "a stored chunk cannot be indexed", "blob", name, "error", err)
			skip = true
		}
	}
	return taken, nil
}

// retake takes one blob, as its node shipped it.
func (s *Service) retake(ctx context.Context, name string) error {
	data, err := s.cfg.Blobs.Read(ctx, name)
	if err != nil {
		return err
	}
	first, rest := record.Split(data)
	chunk, err := record.ParseChunk(first)
	if err != nil {
		return refuse("%v", err)
	}
	p := piece{part: part{chunk, first}, again: true}
	if len(rest) > 0 {
		if err := p.add(rest); err != nil {
			return err
		}
	}
	head, err := s.cfg.Index.Head(ctx, chunk.Session)
	if err != nil {
		return err
	}
	node := head.Node
	if head.Next == 0 {
		if node, err = s.shipper(ctx, chunk); err != nil {
			return err
		}
	}
	_, err = s.store(ctx, node, p)
	return err
}

// parseName reads the name of a blob, as blobName makes it.
func parseName(name string) (postern.SessionID, uint32, bool) {
	dir, file := path.Split(name)
	number, err := strconv.ParseUint(file, 10, 32)
	id := postern.SessionID(path.Base(dir))
	return id, uint32(number), err == nil && len(file) == 10 && record.CheckSession(id) == nil
}
