package task

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// openedKind tells that a grant was opened at a node: by a client that came to it, and
	// that the control plane let in. The key is the grant's id and the node's name.
	openedKind = "opened"
	// maxOpened bounds what is remembered of them.
	maxOpened = 50_000
	// forgetOpened is how many are forgotten at once.
	forgetOpened = 64
)

func openedKey(grant string, node postern.NodeName) store.Key {
	return store.Key{Kind: openedKind, Name: grant + "/" + string(node)}
}

// openings remembers what this replica has seen in the store. It is safe for concurrent use.
type openings struct {
	mu   sync.Mutex
	seen map[string]struct{} // names of keys
}

func (o *openings) has(k store.Key) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.seen[k.Name]
	return ok
}

func (o *openings) add(k store.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == nil || len(o.seen) >= maxOpened {
		o.seen = map[string]struct{}{} // the store knows
	}
	o.seen[k.Name] = struct{}{}
}

// noteOpened writes that a client has opened a grant at a node, the first time.
func (s *Service) noteOpened(ctx context.Context, grant string, node postern.NodeName) error {
	k := openedKey(grant, node)
	if s.openings.has(k) {
		return nil
	}
	if _, err := s.cfg.Store.Commit(ctx, store.Op{Key: k, If: store.AnyRevision}); err != nil {
		return fmt.Errorf("open grant: %w", err)
	}
	s.openings.add(k)
	return nil
}

// Opened says why a node may ask nothing under a grant: no client that was let in has
// opened it there. So who has a node's key, and knows of a grant that others use
// elsewhere, gets nothing by it.
func (s *Service) Opened(ctx context.Context, grant postern.GrantID, node postern.NodeName) error {
	k := openedKey(string(grant), node)
	if s.openings.has(k) {
		return nil
	}
	_, err := s.cfg.Store.Get(ctx, k)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fault.Refused(&postern.Refusal{Code: postern.CodeDenied, Reason: fmt.Sprintf("nobody has opened the grant %.60q at this node", grant), Hint: "connect again"})
	case err != nil:
		return fault.Wrap(err, codes.Unavailable, "the control plane has lost its store; try again").WithKind(postern.CodeUnavailable.String())
	}
	s.openings.add(k)
	return nil
}

// OpenedAt is a grant that a client has opened at a node, as it stands; nil where none is
// known, or what is known cannot be read.
func (s *Service) OpenedAt(ctx context.Context, grant postern.GrantID, node postern.NodeName) (*typesv1.Grant, error) {
	if grant == "" || len(grant) > maxID {
		return nil, nil
	}
	_, err := s.cfg.Store.Get(ctx, openedKey(string(grant), node))
	var e store.Entry
	if err == nil {
		e, err = s.cfg.Store.Get(ctx, grantKey(string(grant)))
	}
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read grant %s: %w", grant, err)
	}
	g, err := decode(e)
	if err != nil {
		s.cfg.Logger.WarnContext(ctx, "whose a session is cannot be told", "error", err)
		return nil, nil
	}
	return g, nil
}

// forgetOpenings removes what is known of where a grant was opened.
func (s *Service) forgetOpenings(ctx context.Context, grant string) error {
	prefix := openedKey(grant, "").Name
	for {
		entries, _, err := s.cfg.Store.List(ctx, openedKind, prefix, forgetOpened)
		if err != nil {
			return fmt.Errorf("forget grant %s: %w", grant, err)
		}
		var ops []store.Op
		for _, e := range entries {
			if strings.HasPrefix(e.Name, prefix) {
				ops = append(ops, store.Op{Key: e.Key, Delete: true, If: store.AnyRevision})
			}
		}
		if len(ops) == 0 {
			return nil
		}
		if _, err := s.cfg.Store.Commit(ctx, ops...); err != nil {
			return fmt.Errorf("forget grant %s: %w", grant, err)
		}
	}
}
