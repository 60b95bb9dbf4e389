package session

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	maxTrouble   = 300         // bytes of what is told of a failure
	troubleEvery = time.Minute // a resource that goes on failing is logged so often
)

// Trouble is what keeps a node from a resource. It is for operators: the resource's own words
// are in it.
type Trouble struct {
	Resource    postern.ResourceName
	Error       string
	Since, Last time.Time // when it was first and last met
}

// troubles are those of a node, from when somebody came who could not be let in to when somebody
// could.
type troubles struct {
	log  *slog.Logger
	now  func() time.Time
	some atomic.Int64 // how many, so that who gets in need not look

	mu sync.Mutex // guards what follows
	of map[postern.ResourceName]*trouble
}

type trouble struct {
	Trouble
	object *typesv1.Resource // as it was; nil where it is gone
	logged time.Time
}

func (t *troubles) met(r postern.ResourceName, object *typesv1.Resource, err error) {
	text := err.Error()
	var no *postern.Refusal
	if errors.As(err, &no) && no.Cause != nil {
		text = no.Cause.Error()
	}
	if len(text) > maxTrouble {
		text = text[:maxTrouble] + "…"
	}
	text = strings.ToValidUTF8(text, "")
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.of[r]
	if was == nil || !proto.Equal(was.object, object) {
		was = &trouble{Trouble: Trouble{Resource: r, Since: now}, object: object}
		if t.of == nil {
			t.of = map[postern.ResourceName]*trouble{}
		}
		t.of[r] = was
		t.some.Store(int64(len(t.of)))
	}
	was.Error, was.Last = text, now
	if now.Sub(was.logged) >= troubleEvery {
		was.logged = now
		t.log.Warn("cannot connect to a resource and log in", "resource", r, "error", text)
	}
}

func (t *troubles) over(r postern.ResourceName) {
	if t.some.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, was := t.of[r]; was {
		delete(t.of, r)
		t.some.Store(int64(len(t.of)))
		t.log.Info("a resource can be logged in to again", "resource", r)
	}
}

// Reached tells how the way to the resource went.
func (s *Session) Reached(ctx context.Context, err error) {
	var no *postern.Refusal
	switch {
	case err == nil:
		s.k.troubles.over(s.terms.Resource)
	case s.ctx.Err() != nil, errors.Is(ctx.Err(), context.Canceled), errors.Is(err, context.Canceled): // who asked has left
	case errors.As(err, &no) && no.Code != postern.CodeUnavailable: // policy says no
	default:
		object, _ := s.k.cfg.Snapshots.Current().Resource(s.terms.Resource)
		s.k.troubles.met(s.terms.Resource, object, err)
	}
}

// Troubles are what keeps this node from resources, by name. What was met before a resource was
// changed is forgotten: nobody has tried it since.
func (k *Keeper) Troubles() []Trouble {
	t := &k.troubles
	if t.some.Load() == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Trouble
	now := k.cfg.Snapshots.Current()
	for r, is := range t.of {
		if object, ok := now.Resource(r); !ok || !proto.Equal(is.object, object) {
			delete(t.of, r)
			continue
		}
		out = append(out, is.Trouble)
	}
	t.some.Store(int64(len(t.of)))
	slices.SortFunc(out, func(a, b Trouble) int { return cmp.Compare(a.Resource, b.Resource) })
	return out
}
