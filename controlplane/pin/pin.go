// Package pin remembers what servers of MCP say of themselves, for all nodes and longer than
// any grant: by task, resource and path, what each tool, prompt, template and introduction
// was when it was seen first, or when people let it be. What that means for a model is the
// nodes' to enforce. The state is in the store, changed by compare-and-swap alone.
package pin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// Kind is the kind of pins in the store; their names are TASK/RESOURCE/ and a hash of the
// path.
const Kind = "server-pins"

const (
	maxPath    = 2048 // bytes
	maxServers = 64   // of one task at one resource
	maxTries   = 32   // of one change, against others that change the same server
	// touchEvery is how often it is written down that a server is still asked for.
	touchEvery = 24 * time.Hour
	// keep is for how long a server is remembered that nobody asks for.
	keep       = 180 * 24 * time.Hour
	cleanEvery = time.Hour
)

// Config is what a Service works with; everything is required.
type Config struct {
	Store    store.Store
	Snapshot func() *policy.Snapshot // the policy as it is now
	// Grant is the grant, or a *fault.Error of code NotFound.
	Grant func(ctx context.Context, id postern.GrantID) (*typesv1.Grant, error)
	// Hold is a hold as it is on file, or a *fault.Error of code NotFound.
	Hold   func(ctx context.Context, id string) (*typesv1.Hold, error)
	Logger *slog.Logger
	Now    func() time.Time
}

// A Service remembers. It is safe for concurrent use.
type Service struct{ cfg Config }

// New makes a Service.
func New(cfg Config) *Service { return &Service{cfg} }

// Pin notes what is told of a server, and tells what is known of it. Errors are
// *fault.Error.
func (s *Service) Pin(ctx context.Context, req *nodev1.PinServerRequest) (*nodev1.PinServerResponse, error) {
	if p := req.GetPath(); !strings.HasPrefix(p, "/") || len(p) > maxPath {
		return nil, fault.New(codes.InvalidArgument, "a server has a path of at most %d bytes", maxPath)
	}
	grant, err := s.cfg.Grant(ctx, postern.GrantID(req.GetGrant()))
	if err != nil {
		return nil, err
	}
	if grant.GetState() != typesv1.GrantState_GRANT_STATE_ACTIVE || !s.cfg.Now().Before(grant.GetEndTime().AsTime()) {
		return nil, fault.New(codes.PermissionDenied, "grant %q is over", req.GetGrant()).WithKind(postern.CodeKilled.String())
	}
	task, name := postern.TaskName(grant.GetTask()), postern.ResourceName(req.GetResource())
	if r, err := s.cfg.Snapshot().ResourceOf(task, name); err != nil || r != name {
		return nil, fault.New(codes.PermissionDenied, "task %q does not reach resource %q", task, name).WithKind(postern.CodeDenied.String())
	}
	asked, err := s.asked(ctx, grant, req)
	if err != nil {
		return nil, err
	}
	of := fmt.Sprintf("%s/%s/", task, name)
	sum := sha256.Sum256([]byte(req.GetPath()))
	key := store.Key{Kind: Kind, Name: of + hex.EncodeToString(sum[:16])}
	for range maxTries {
		pins, err := s.try(ctx, key, of, req, asked)
		if store.IsConflict(err) {
			continue
		} else if err != nil {
			return nil, err
		}
		return &nodev1.PinServerResponse{Pins: pins}, nil
	}
	return nil, fault.New(codes.Unavailable, "too many nodes tell of this server at once").WithKind(postern.CodeUnavailable.String())
}

// asked are the parameters with which people were asked who let be what the request says
// that they did. The word of a node is not enough for that: it must name a hold under the
// same grant, which they have answered by a rule that the task has for it, and which was
// used for what it asked.
func (s *Service) asked(ctx context.Context, g *typesv1.Grant, req *nodev1.PinServerRequest) ([]string, error) {
	if len(req.GetAccepted()) == 0 {
		return nil, nil
	}
	h, err := s.cfg.Hold(ctx, req.GetHold())
	if err != nil && fault.CodeOf(err) != codes.NotFound {
		return nil, err
	}
	rules := s.cfg.Snapshot().Reviews(postern.TaskName(g.GetTask()), req.GetPath())
	if h.GetState() != typesv1.HoldState_HOLD_STATE_CONSUMED || h.GetScope() != string(postern.ScopeStatement) ||
		h.GetGrant() != g.GetId() || h.GetResource() != req.GetResource() || !strings.HasSuffix(h.GetStatement(), " at "+req.GetPath()) || !slices.Contains(rules, h.GetRule()) {
		return nil, errNobody
	}
	var out []string
	for _, p := range h.GetParameters() {
		out = append(out, p.GetValue())
	}
	return out, nil
}

// errNobody refuses what no people have let be.
var errNobody = fault.New(codes.PermissionDenied, "what has changed of a server is let be by people alone, and none have said yes to just that").WithKind(postern.CodeDenied.String())

// try is one attempt to note something.
func (s *Service) try(ctx context.Context, key store.Key, of string, req *nodev1.PinServerRequest, asked []string) (*nodev1.ServerPins, error) {
	pins, revision := &nodev1.ServerPins{}, int64(0)
	switch e, err := s.cfg.Store.Get(ctx, key); {
	case err == nil:
		revision = e.Revision
		if err := proto.Unmarshal(e.Value, pins); err != nil {
			return nil, fault.Wrap(err, codes.Internal, "what is known of the server cannot be read")
		}
	case !errors.Is(err, store.ErrNotFound):
		return nil, unavailable(err)
	case req.GetList() == "":
		return pins, nil
	default:
		if err := s.room(ctx, of); err != nil {
			return nil, err
		}
	}
	if !mcp.Shown(pins, req, asked) {
		return nil, errNobody
	}
	now := s.cfg.Now()
	changed, err := mcp.Note(pins, req, now)
	if err != nil {
		return nil, fault.Wrap(err, codes.InvalidArgument, "what is told of the server")
	}
	if used := pins.GetUsedTime(); !changed && now.Sub(used.AsTime()) < touchEvery {
		return pins, nil
	}
	pins.UsedTime = timestamppb.New(now)
	value, err := proto.Marshal(pins)
	if err != nil {
		return nil, err
	}
	_, err = s.cfg.Store.Commit(ctx, store.Op{Key: key, Value: value, If: revision})
	if err != nil && !store.IsConflict(err) {
		return nil, unavailable(err)
	}
	return pins, err
}

// room refuses one server more than are remembered.
func (s *Service) room(ctx context.Context, of string) error {
	entries, _, err := s.cfg.Store.List(ctx, Kind, of, maxServers)
	if err != nil {
		return unavailable(err)
	}
	if n := len(entries); n == maxServers && strings.HasPrefix(entries[n-1].Name, of) {
		return fault.New(codes.ResourceExhausted, "too many servers of MCP at one resource: %d are remembered", maxServers).WithKind(postern.CodeLimit.String())
	}
	return nil
}

func unavailable(err error) error {
	return fault.Wrap(err, codes.Unavailable, "what is known of the server could not be looked up").WithKind(postern.CodeUnavailable.String())
}

// Run forgets servers that nobody has asked for in a long time, while this replica leads.
func (s *Service) Run(ctx context.Context) error {
	return store.Clean(ctx, s.cfg.Store, Kind, cleanEvery, func(e store.Entry) bool {
		var pins nodev1.ServerPins
		// One that cannot be read must not become one that is seen first.
		return proto.Unmarshal(e.Value, &pins) == nil && s.cfg.Now().Sub(pins.GetUsedTime().AsTime()) >= keep
	}, s.cfg.Logger)
}
