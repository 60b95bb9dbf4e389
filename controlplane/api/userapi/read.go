package userapi

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	scanPage = 500
	maxScan  = 5000 // entries that one List looks at
)

func knownKind(kind string) (string, error) {
	kind = strings.ToLower(kind)
	if !slices.Contains(object.Kinds(), kind) {
		return "", fault.Invalid(fault.Violation{Field: "kind", Reason: "is one of " + strings.Join(object.Kinds(), ", ")})
	}
	return kind, nil
}

// Get implements apiv1connect.PolicyServiceHandler.
func (p *Policy) Get(ctx context.Context, r *connect.Request[apiv1.GetRequest]) (*connect.Response[typesv1.Object], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	kind, err := knownKind(r.Msg.GetKind())
	if err != nil {
		return nil, err
	}
	name := r.Msg.GetName()
	if err := object.CheckName(name); err != nil {
		return nil, fault.Invalid(fault.Violation{Field: "name", Reason: err.Error()})
	}
	e, err := p.entry(ctx, store.Key{Kind: kind, Name: name})
	if errors.Is(err, store.ErrNotFound) {
		return nil, notFound(kind, name)
	}
	if err != nil {
		return nil, err
	}
	o := p.decoded.object(e)
	if o == nil {
		return nil, fmt.Errorf("stored %s cannot be read", e.Key)
	}
	if !c.MayRead(o) {
		return nil, notFound(kind, name)
	}
	return connect.NewResponse(p.decoded.answer(e)), nil
}

// entry reads one entry as it is now: from the replica where it can be told that it has
// everything, which many calls ask together.
func (p *Policy) entry(ctx context.Context, k store.Key) (store.Entry, error) {
	view, err := p.cfg.Cache.Current(ctx)
	if err != nil {
		return p.cfg.Store.Get(ctx, k)
	}
	if e, ok := view.Get(k); ok {
		return e, nil
	}
	return store.Entry{}, fmt.Errorf("%s: %w", k, store.ErrNotFound)
}

// List implements apiv1connect.PolicyServiceHandler. A page may be short, and even
// empty, and have a next one.
func (p *Policy) List(ctx context.Context, r *connect.Request[apiv1.ListRequest]) (*connect.Response[apiv1.ListResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	kind, err := knownKind(r.Msg.GetKind())
	if err != nil {
		return nil, err
	}
	size, err := pageSize(r.Msg.GetPageSize())
	if err != nil {
		return nil, err
	}
	query := queryHash(append([]string{"policy", kind}, labelParts(r.Msg.GetLabels())...)...)
	after, err := pageStart(r.Msg.GetPageToken(), query)
	if err != nil {
		return nil, err
	}
	epoch, err := p.cfg.Store.Epoch(ctx)
	if err != nil {
		return nil, err
	}
	resp := &apiv1.ListResponse{Version: &typesv1.Version{Epoch: epoch}}
	for scanned := 0; ; {
		entries, revision, err := p.cfg.Store.List(ctx, kind, after, scanPage)
		if err != nil {
			return nil, err
		}
		if resp.GetVersion().GetRevision() == 0 {
			resp.Version.Revision = revision
		}
		for _, e := range entries {
			if len(resp.GetObjects()) == size {
				resp.NextPageToken = pageToken(query, after)
				return connect.NewResponse(resp), nil
			}
			after = e.Name
			o, err := store.DecodeObject(e)
			if err != nil {
				return nil, err
			}
			if c.MayRead(o) && object.Carries(object.Meta(o).GetLabels(), r.Msg.GetLabels()) {
				resp.Objects = append(resp.Objects, shown(o))
			}
		}
		if scanned += len(entries); len(entries) < scanPage {
			return connect.NewResponse(resp), nil
		}
		if scanned >= maxScan {
			resp.NextPageToken = pageToken(query, after)
			return connect.NewResponse(resp), nil
		}
	}
}

// rightsPeriod is how often a watch looks whether its caller may still read.
const rightsPeriod = 5 * time.Second

// Watch implements apiv1connect.PolicyServiceHandler. An object that leaves what the
// caller may read is told as deleted.
func (p *Policy) Watch(ctx context.Context, r *connect.Request[apiv1.WatchRequest], out *connect.ServerStream[apiv1.WatchResponse]) error {
	c, err := authz.Require(ctx)
	if err != nil {
		return err
	}
	kinds := PolicyKinds()
	if len(r.Msg.GetKinds()) > 0 {
		kinds = nil
		for _, k := range r.Msg.GetKinds() {
			kind, err := knownKind(k)
			if err != nil {
				return err
			}
			kinds = append(kinds, kind)
		}
	}
	changed, stop := p.cfg.Cache.Subscribe()
	defer stop()
	select {
	case <-p.cfg.Cache.Ready():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	tick := time.NewTicker(rightsPeriod)
	defer tick.Stop()
	w := &watch{policy: p, out: out, kinds: kinds, told: make(map[store.Key]int64)}
	view := p.cfg.Cache.View()
	if err := w.bring(c, view); err != nil {
		return err
	}
	if err := w.send("synced", nil, view.Version()); err != nil {
		return err
	}
	for {
		select {
		case <-changed:
		case <-tick.C:
			if reflect.DeepEqual(c.Roles, c.Now().Roles) {
				continue
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if c = c.Now(); !c.HasSome(authz.Viewer) {
			return fault.New(codes.PermissionDenied, "you may no longer read policy").WithKind("denied")
		}
		if err := w.bring(c, p.cfg.Cache.View()); err != nil {
			return err
		}
	}
}

// watch is what one watcher was told.
type watch struct {
	policy *Policy
	out    *connect.ServerStream[apiv1.WatchResponse]
	kinds  []string
	told   map[store.Key]int64 // the revision
}

// bring tells the difference between what was told and what the caller may read now.
func (w *watch) bring(c *authz.Caller, view *store.View) error {
	now := make(map[store.Key]bool, len(w.told))
	for _, kind := range w.kinds {
		for e := range view.All(kind) {
			o := w.policy.decoded.object(e)
			if o == nil || !c.MayRead(o) {
				continue
			}
			now[e.Key] = true
			if w.told[e.Key] == e.Revision {
				continue
			}
			w.told[e.Key] = e.Revision
			if err := w.send("put", shown(o), view.Version()); err != nil {
				return err
			}
		}
	}
	for k := range w.told {
		if now[k] {
			continue
		}
		delete(w.told, k)
		if err := w.send("delete", object.Bare(k.Kind, k.Name), view.Version()); err != nil {
			return err
		}
	}
	return nil
}

func (w *watch) send(event string, o *typesv1.Object, v postern.Version) error {
	return w.out.Send(&apiv1.WatchResponse{Event: event, Object: o, Version: &typesv1.Version{Epoch: v.Epoch, Revision: v.Revision}})
}
