package userapi

import (
	"context"
	"log/slog"
	"time"

	"connectrpc.com/connect"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	api "github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

// SecretSealer seals the values of a Secret, so that only the credential source can
// read them.
type SecretSealer interface {
	SealSecret(ctx context.Context, name string, data map[string]string) ([]byte, error)
}

// PolicyConfig is what Policy needs; all is required but Grants and Logger.
type PolicyConfig struct {
	Store  store.Store
	Cache  *store.Cache // of PolicyKinds, at least
	Audit  *audit.Log
	Sealer SecretSealer
	Grants func(ctx context.Context, c *authz.Caller) ([]*typesv1.Grant, error)  // everybody's that are active; nil tells of none
	Grant  func(ctx context.Context, id postern.GrantID) (*typesv1.Grant, error) // NotFound is the code where there is none
	// Enforced waits until this replica judges by a version, and a moment for its nodes; nil
	// waits for nothing.
	Enforced func(ctx context.Context, v postern.Version) error
	// StoresRaw is whether there is a raw key, without which no task may ask for it.
	StoresRaw bool
	Logger    *slog.Logger
	Now       func() time.Time
}

// PolicyKinds are the kinds that a Cache must hold for Policy.
func PolicyKinds() []string { return object.Kinds() }

// Policy answers PolicyService: the objects that people write.
type Policy struct {
	cfg     PolicyConfig
	decoded *decoded
}

var _ api.PolicyServiceHandler = (*Policy)(nil)

// NewPolicy makes a Policy.
func NewPolicy(cfg PolicyConfig) *Policy {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Policy{cfg: cfg, decoded: &decoded{}}
}

// shown is an object as it is answered: a copy without what must not be read back.
func shown(o *typesv1.Object) *typesv1.Object { return audit.Redact(o) }

// Create implements apiv1connect.PolicyServiceHandler.
func (p *Policy) Create(ctx context.Context, r *connect.Request[apiv1.CreateRequest]) (*connect.Response[typesv1.Object], error) {
	done, _, err := p.write(ctx, r.Msg.GetDryRun(), intent{object: r.Msg.GetObject(), must: absent})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(done[0].GetObject()), nil
}

// Update implements apiv1connect.PolicyServiceHandler.
func (p *Policy) Update(ctx context.Context, r *connect.Request[apiv1.UpdateRequest]) (*connect.Response[typesv1.Object], error) {
	if meta := object.Meta(r.Msg.GetObject()); meta != nil && meta.GetEtag() == "" {
		return nil, fault.Invalid(fault.Violation{Field: "object.metadata.etag", Reason: "is required: get the object, change it, and send it back with the etag it came with"})
	}
	done, _, err := p.write(ctx, r.Msg.GetDryRun(), intent{object: r.Msg.GetObject(), must: present})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(done[0].GetObject()), nil
}

// Delete implements apiv1connect.PolicyServiceHandler.
func (p *Policy) Delete(ctx context.Context, r *connect.Request[apiv1.DeleteRequest]) (*connect.Response[apiv1.DeleteResponse], error) {
	kind, err := knownKind(r.Msg.GetKind())
	if err != nil {
		return nil, err
	}
	o := object.Bare(kind, r.Msg.GetName())
	object.Meta(o).Etag = r.Msg.GetEtag()
	_, version, err := p.write(ctx, r.Msg.GetDryRun(), intent{object: o, must: present, remove: true})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.DeleteResponse{Version: version}), nil
}

// Apply implements apiv1connect.PolicyServiceHandler.
func (p *Policy) Apply(ctx context.Context, r *connect.Request[apiv1.ApplyRequest]) (*connect.Response[apiv1.ApplyResponse], error) {
	objects := r.Msg.GetObjects()
	if len(objects) == 0 || len(objects) > MaxApply {
		return nil, fault.Invalid(fault.Violation{Field: "objects", Reason: "must be at least one, and no more than one transaction takes (" + maxApplyText + ")"})
	}
	intents := make([]intent, len(objects))
	for i, o := range objects {
		intents[i] = intent{object: o}
	}
	done, version, err := p.write(ctx, r.Msg.GetDryRun(), intents...)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.ApplyResponse{Applied: done, Version: version}), nil
}
