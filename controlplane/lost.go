package controlplane

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/posterngate/postern/controlplane/recording"
	"github.com/posterngate/postern/controlplane/store"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// lostEvery is how often it is looked for recordings whose rest is lost.
	lostEvery = 10 * time.Second
	// lostAsk bounds the wait for a node's answer.
	lostAsk = 5 * time.Second
)

// endLost ends recordings whose rest will not come while this replica leads.
func (s *Server) endLost(ctx context.Context) error {
	return s.store.Lead(ctx, "recordings-lost", func(ctx context.Context, _ store.Op) error {
		led := time.Now()
		tick := time.NewTicker(lostEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
			_, err := s.recordings.EndLost(ctx, func(ctx context.Context, node postern.NodeName, ids []postern.SessionID, last time.Time) (recording.Loss, error) {
				return s.lost(ctx, node, ids, latest(led, last)), nil
			})
			if err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "it was not looked for recordings whose rest is lost", "error", err)
			}
		}
	})
}

// lost tells which recordings a node will not ship to their end and why, if that is certain: it
// is connected and does not have them, or it has been silent for too long; since is from
// when on silence counts where nothing was heard of it.
func (s *Server) lost(ctx context.Context, node postern.NodeName, ids []postern.SessionID, since time.Time) recording.Loss {
	seen, _ := s.fleet.Last(node)
	if !seen.Connected {
		silence := time.Since(latest(seen.Seen, since))
		if silence < time.Duration(s.cfg.Recordings.LostAfter) {
			return nil
		}
		all := recording.Loss{}
		for _, id := range ids {
			all[id] = fmt.Sprintf("node %s has been silent for %s", node, silence.Round(time.Second))
		}
		return all
	}
	ask := &nodev1.FindRecordings{}
	for _, id := range ids {
		ask.Sessions = append(ask.Sessions, string(id))
	}
	ctx, cancel := context.WithTimeout(ctx, lostAsk)
	defer cancel()
	got, err := s.fleet.Command(ctx, node, &nodev1.Command{Kind: &nodev1.Command_FindRecordings{FindRecordings: ask}})
	if err != nil || !got.GetDone() { // it went away, or is of an older release
		return nil
	}
	gone := recording.Loss{}
	for _, id := range ids {
		switch {
		case slices.Contains(got.GetRecordings(), string(id)):
		case slices.Contains(got.GetRecordingsAside(), string(id)):
			gone[id] = fmt.Sprintf("it could not be stored; node %s has put it aside", node)
		default:
			gone[id] = fmt.Sprintf("node %s does not have it any more", node)
		}
	}
	return gone
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
