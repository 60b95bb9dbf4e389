package publish

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/store"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// A Cache is the replica's view of the store; *store.Cache is one.
type Cache interface {
	View() *store.View
	Staleness() time.Duration
	Subscribe() (<-chan struct{}, func())
	Since(v postern.Version) ([]store.Event, bool)
}

const (
	kindLock  = "lock"
	kindNode  = "node"
	kindGrant = "grant"
)

// Kinds are the kinds that a Cache must hold for a Hub.
func Kinds() []string {
	return []string{"approvalrule", "binding", kindGrant, kindLock, "mask", kindNode, "resource", "rolebinding", "task", "workload"}
}

// An item is one object at one revision, or the end of a grant. It is immutable.
type item struct {
	ref      string
	revision int64
	full     *typesv1.Object  // as it is stored; nil for the end of a grant
	plain    *typesv1.Object  // as nodes get it; nil where they never do
	hash     object.Hash      // of plain
	needs    []string         // the masks and approval rules that it names, by "kind/name"
	end      *nodev1.GrantEnd // instead of an object
}

// leaves says which kinds a node may ever see.
func leaves(kind string) bool {
	switch kind {
	case "resource", "task", "mask", "approvalrule", kindLock:
		return true
	}
	return false
}

// A world is everything that publishing reads, as of one version. It belongs to the
// Hub's mutex.
type world struct {
	version postern.Version
	objects map[string]*item // by "kind/name"
	ended   map[string]*item // by id of the grant
	// unread are locks of which nothing can be read, by "lock/name": whom they shut out is
	// not known, and so no node is told that it is up to date.
	unread map[string]struct{}
	log    *slog.Logger
	now    func() time.Time
}

// change says what a pull found.
type change struct {
	policy bool // objects that may wait for more of their kind
	urgent bool // locks and ended grants
}

func (c *change) note(kind string) {
	switch kind {
	case kindLock, kindGrant:
		c.urgent = true
	default:
		c.policy = true
	}
}

// pull brings the world up to the cache, and at least to what the cache had when pull
// was called.
func (w *world) pull(c Cache) change {
	view := c.View()
	v := view.Version()
	switch {
	case v == w.version:
		return change{}
	case v.Epoch == w.version.Epoch && !w.version.IsZero():
		if events, ok := c.Since(w.version); ok {
			return w.replay(v, events)
		}
	}
	before := w
	if v.Epoch != w.version.Epoch {
		before = &world{} // its revisions mean something else
	}
	next := &world{version: v, objects: map[string]*item{}, ended: map[string]*item{}, unread: map[string]struct{}{}, log: w.log, now: w.now}
	for _, kind := range Kinds() {
		for e := range view.All(kind) {
			next.put(e, before)
		}
	}
	*w = *next
	return change{policy: true, urgent: true}
}

// replay makes the changes up to v, and whatever later ones are among the events.
func (w *world) replay(v postern.Version, events []store.Event) (c change) {
	for _, e := range events {
		v.Revision = max(v.Revision, e.Revision)
		if e.Deleted {
			w.remove(e.Key, &c)
		} else if w.put(e.Entry, w) {
			c.note(e.Kind)
		}
	}
	w.version = v
	return c
}

func (w *world) remove(k store.Key, c *change) {
	if k.Kind == kindGrant {
		return // a node keeps the end of a grant until the grant would have ended
	}
	ref := k.String()
	_, known := w.objects[ref]
	_, unread := w.unread[ref]
	if known || unread {
		delete(w.objects, ref)
		delete(w.unread, ref)
		c.note(k.Kind)
	}
}

// put takes an entry in and reports whether anything changed. An item that before had
// at the same revision is used again, so that what did not change is known by its
// address.
func (w *world) put(e store.Entry, before *world) bool {
	if e.Kind == kindGrant {
		return w.putGrant(e, before)
	}
	if !slices.Contains(Kinds(), e.Kind) {
		return false
	}
	ref := e.Key.String()
	old, was := before.objects[ref], w.objects[ref]
	if old != nil && old.revision == e.Revision {
		w.objects[ref] = old
		return was != old
	}
	delete(w.unread, ref)
	it, err := newItem(e)
	switch {
	case err == nil:
		w.objects[ref] = it
	case e.Kind == kindLock && old != nil:
		w.log.Error("stored lock cannot be read, it stays as it was", "object", ref, "revision", e.Revision, "error", err)
		w.objects[ref] = old
	case e.Kind == kindLock:
		w.log.Error("stored lock cannot be read; until an admin deletes it nobody else is let do anything, and nodes are not told that they are up to date, and stop", "object", ref, "revision", e.Revision, "error", err)
		w.unread[ref] = struct{}{}
		return true
	default:
		w.log.Error("stored object cannot be read, it is not enforced", "object", ref, "revision", e.Revision, "error", err)
		delete(w.objects, ref)
	}
	return w.objects[ref] != was
}

func newItem(e store.Entry) (*item, error) {
	o, err := store.DecodeObject(e)
	if err != nil {
		return nil, err
	}
	if l := o.GetLock(); l != nil && policy.Aimless(l) {
		return nil, errors.New("it names nothing that this release knows")
	}
	it := &item{ref: e.Key.String(), revision: e.Revision, full: o}
	it.needs = slices.DeleteFunc(policy.Refers(o), func(ref string) bool {
		return !strings.HasPrefix(ref, "mask/") && !strings.HasPrefix(ref, "approvalrule/")
	})
	if !leaves(e.Kind) {
		return it, nil
	}
	it.plain = object.Plain(o)
	if it.hash, err = object.HashOf(it.plain); err != nil {
		return nil, fmt.Errorf("hash %s: %w", it.ref, err)
	}
	return it, nil
}

// putGrant keeps a grant that ended before its time, until its time.
func (w *world) putGrant(e store.Entry, before *world) bool {
	if old := before.ended[e.Name]; old != nil && old.revision == e.Revision {
		w.ended[e.Name] = old
		return false
	}
	g := &typesv1.Grant{}
	if err := proto.Unmarshal(e.Value, g); err != nil || g.GetId() != e.Name {
		w.log.Error("stored grant cannot be read", "grant", e.Name, "revision", e.Revision, "error", err)
		return false
	}
	if g.GetState() != typesv1.GrantState_GRANT_STATE_OVER || !g.GetEndTime().AsTime().After(w.now()) {
		return false
	}
	reason := g.GetEndReason()
	if reason == "" {
		reason = "the grant was ended"
	}
	w.ended[e.Name] = &item{
		ref: "grant/" + e.Name, revision: e.Revision,
		end: &nodev1.GrantEnd{Grant: e.Name, Reason: reason, EndTime: timestamppb.New(g.GetEndTime().AsTime())},
	}
	return true
}

// forget drops ended grants whose own end has passed, and reports whether it did.
func (w *world) forget() (any bool) {
	for id, it := range w.ended {
		if !it.end.GetEndTime().AsTime().After(w.now()) {
			delete(w.ended, id)
			any = true
		}
	}
	return any
}

// node is the Node object of a name, or nil.
func (w *world) node(name postern.NodeName) *typesv1.Node {
	if it := w.objects[kindNode+"/"+string(name)]; it != nil {
		return it.full.GetNode()
	}
	return nil
}

// nodes are all Node objects.
func (w *world) nodes(yield func(*typesv1.Node) bool) {
	for ref, it := range w.objects {
		if strings.HasPrefix(ref, kindNode+"/") && !yield(it.full.GetNode()) {
			return
		}
	}
}
