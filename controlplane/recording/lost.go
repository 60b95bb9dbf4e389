package recording

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/controlplane/recording/index"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

const (
	// lostAtOnce bounds the recordings that a node is asked for at a time.
	lostAtOnce = 200
	// lostReason begins the reason of a session whose end was lost.
	lostReason = "the rest of the recording was lost: "
)

// Loss is why the rest of recordings of one node will not come, where that is certain.
type Loss map[postern.SessionID]string

// EndLost ends the open recordings whose rest will not come as truncated, and returns how
// many it ended. ask is called with open recordings of one node and when the newest event
// of them was, and tells which are lost for certain. A chunk that comes after all is taken
// as any other, and its recording is open again.
func (s *Service) EndLost(ctx context.Context, ask func(ctx context.Context, node postern.NodeName, ids []postern.SessionID, last time.Time) (Loss, error)) (ended int, err error) {
	var errs []error
	for after := postern.SessionID(""); ; {
		open, err := s.cfg.Index.Open(ctx, after, index.MaxPage)
		if err != nil || len(open) == 0 {
			return ended, errors.Join(append(errs, err)...)
		}
		after = postern.SessionID(open[len(open)-1].GetId())
		byNode := map[string][]*typesv1.Session{}
		for _, one := range open {
			byNode[one.GetNode()] = append(byNode[one.GetNode()], one)
		}
		for node, all := range byNode {
			for part := range slices.Chunk(all, lostAtOnce) {
				n, err := s.endLost(ctx, postern.NodeName(node), part, ask)
				ended += n
				if err != nil {
					errs = append(errs, fmt.Errorf("recording: end what node %s lost: %w", node, err))
				}
			}
		}
	}
}

func (s *Service) endLost(ctx context.Context, node postern.NodeName, open []*typesv1.Session, ask func(context.Context, postern.NodeName, []postern.SessionID, time.Time) (Loss, error)) (ended int, err error) {
	ids := make([]postern.SessionID, len(open))
	var last time.Time
	for i, one := range open {
		ids[i] = postern.SessionID(one.GetId())
		if t := one.GetLastTime().AsTime(); t.After(last) {
			last = t
		}
	}
	loss, err := ask(ctx, node, ids, last)
	if err != nil {
		return 0, err
	}
	var errs []error
	for i, id := range ids {
		why, lost := loss[id]
		if !lost {
			continue
		}
		err := s.end(ctx, node, open[i], why)
		switch {
		case err == nil:
			ended++
		case !errors.Is(err, index.ErrConflict): // else its seal came in this moment
			errs = append(errs, fmt.Errorf("session %s: %w", id, err)) // what is wrong with one is not with the next
		}
	}
	return ended, errors.Join(errs...)
}

// end ends one recording, unless something came of it since its row was read.
func (s *Service) end(ctx context.Context, node postern.NodeName, row *typesv1.Session, why string) error {
	id := postern.SessionID(row.GetId())
	head, err := s.cfg.Index.Head(ctx, id)
	if err != nil {
		return err
	}
	if int64(head.Next) != row.GetChunks() || head.Sealed || head.Lost {
		return index.ErrConflict
	}
	if _, raw := record.RawOf(id); s.cfg.Ended != nil && !raw {
		if err := s.cfg.Ended(ctx, node, id); err != nil {
			return err
		}
	}
	if s.cfg.Told != nil {
		err := s.cfg.Told(ctx, Mark{Node: node, Session: row, Chunks: head.Next, Hash: head.Previous, Truncated: true, Lost: true})
		if err != nil {
			return err
		}
	}
	if err := s.cfg.Index.End(ctx, id, head.Next, lostReason+why); err != nil {
		return err
	}
	s.forget(id)
	s.log.WarnContext(ctx, "the rest of a recording was lost", "node", node, "session", id, "chunks", head.Next, "reason", why)
	return nil
}

// found opens the row of a recording again that had been given up.
func found(row *typesv1.Session) {
	row.Recording = string(record.StateOpen)
	if strings.HasPrefix(row.GetEndReason(), lostReason) {
		row.EndTime, row.EndReason = nil, ""
	}
}
