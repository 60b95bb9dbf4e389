package account

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// Kind is that of sightings in the store.
const Kind = "sighting"

const (
	// again is after how long an absence somebody is told of anew.
	again = 24 * time.Hour
	// refresh is how often the last time is written of somebody who stays.
	refresh = time.Minute
	// keep is how long a sighting is kept after its last.
	keep = 90 * 24 * time.Hour
	// maxSightings bounds what is kept of one resource.
	maxSightings = 1000
)

// A sighting is somebody who used an account around Postern.
type sighting struct {
	revision int64
	live     bool

	Resource postern.ResourceName `json:"resource"`
	Account  string               `json:"account"`
	Host     string               `json:"host,omitempty"`
	Program  string               `json:"program,omitempty"`
	Database string               `json:"database,omitempty"`
	First    time.Time            `json:"first"`
	Last     time.Time            `json:"last"`
}

// key is one for all that comes from one address with one program.
func (g *sighting) key() store.Key {
	h := sha256.New()
	for _, part := range []string{g.Account, g.Host, g.Program} {
		_, _ = fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return store.Key{Kind: Kind, Name: string(g.Resource) + "." + hex.EncodeToString(h.Sum(nil)[:12])}
}

func (g *sighting) message() *apiv1.AroundUse {
	return &apiv1.AroundUse{
		Host: g.Host, Program: g.Program, Database: g.Database, Live: g.live,
		FirstTime: timestamppb.New(g.First), LastTime: timestamppb.New(g.Last),
	}
}

// kept are the sightings of a resource, by key.
func (s *Service) kept(ctx context.Context, r postern.ResourceName) (map[store.Key]*sighting, error) {
	entries, _, err := s.cfg.Store.List(ctx, Kind, string(r)+".", maxSightings+1)
	if err != nil {
		return nil, fmt.Errorf("list sightings: %w", err)
	}
	out := map[store.Key]*sighting{}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name, string(r)+".") {
			break
		}
		g := &sighting{revision: e.Revision}
		if err := json.Unmarshal(e.Value, g); err != nil {
			return nil, fmt.Errorf("sighting %s is unreadable: %w", e.Name, err)
		}
		out[e.Key] = g
	}
	return out, nil
}

// sighted keeps who is seen now, and tells the audit log of each who was not there for a
// day. It returns all that are kept, those who were seen last first.
func (s *Service) sighted(ctx context.Context, r postern.ResourceName, strangers []*nodev1.BackendSession) ([]*sighting, error) {
	all, err := s.kept(ctx, r)
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	for _, b := range strangers {
		g := &sighting{Resource: r, Account: b.GetAccount(), Host: b.GetHost(), Program: b.GetProgram(), Database: b.GetDatabase(), First: now}
		k := g.key()
		have := all[k]
		fresh := have == nil || now.Sub(have.Last) > again
		if have != nil {
			g.First, g.revision, g.Last = have.First, have.revision, have.Last
		} else if len(all) >= maxSightings {
			s.cfg.Logger.WarnContext(ctx, "more use around Postern than is kept", "resource", r)
			continue
		}
		if have == nil || now.Sub(have.Last) >= refresh {
			g.Last = now
			if err := s.keepSighting(ctx, k, g, fresh); err != nil {
				return nil, err
			}
		}
		g.live = true
		all[k] = g
	}
	out := make([]*sighting, 0, len(all))
	for k, g := range all {
		if now.Sub(g.Last) > keep {
			_, err := s.cfg.Store.Commit(ctx, store.Op{Key: k, Delete: true, If: g.revision})
			if err = unlessFirst(err); err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b *sighting) int { return b.Last.Compare(a.Last) })
	return out, nil
}

// keepSighting writes a sighting, and with it the audit entry where it is news. Another
// replica may have been first.
func (s *Service) keepSighting(ctx context.Context, k store.Key, g *sighting, news bool) error {
	value, err := json.Marshal(g)
	if err != nil {
		return err
	}
	op := store.Op{Key: k, Value: value, If: g.revision}
	if !news {
		_, err = s.cfg.Store.Commit(ctx, op)
		return unlessFirst(err)
	}
	_, err = s.cfg.Audit.Commit(ctx, audit.Entry{
		Actor: "postern", Action: "account.around", Object: "resource/" + string(g.Resource), Outcome: "account " + g.Account + " is used around Postern",
		Detail: map[string]any{"account": g.Account, "host": g.Host, "program": g.Program, "database": g.Database},
	}, op)
	if err == nil {
		s.cfg.Logger.WarnContext(ctx, "account is used around postern", "resource", g.Resource, "account", g.Account, "host", g.Host, "program", g.Program)
	}
	return unlessFirst(err)
}

// unlessFirst is err, but for that somebody else was first.
func unlessFirst(err error) error {
	if store.IsConflict(err) {
		return nil
	}
	return err
}
