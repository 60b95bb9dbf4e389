package nodeapi_test

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/api/nodeapi"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/identity/enrol"
	"github.com/posterngate/postern/controlplane/publish"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/controlplane/task"
	"github.com/posterngate/postern/dataplane/control"
	"github.com/posterngate/postern/dataplane/snapshot"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/secret"

	"google.golang.org/grpc/codes"
)

type plainKeeper struct{}

func (plainKeeper) Seal(_ context.Context, b, _ []byte) ([]byte, error) { return slices.Clone(b), nil }
func (plainKeeper) Open(_ context.Context, b, _ []byte) ([]byte, error) { return slices.Clone(b), nil }

// A house is one store, its authority, and replicas of the control plane that nodes
// reach over pipes in memory and real TLS.
type house struct {
	t     testing.TB
	mem   *storetest.Memory
	auth  *authority.Authority
	group *run.Group
	stops []func()
	dir   string // of the identity that was enrolled last
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, mem: storetest.NewMemory(), group: run.New(context.Background())}
	var err error
	h.auth, err = authority.Open(context.Background(), authority.Config{Store: h.mem, Keeper: plainKeeper{}, Audit: audit.New(h.mem, time.Now)})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// stop ends everything and waits. It is no Cleanup, for a bubble must be empty before.
func (h *house) stop() {
	h.t.Helper()
	for _, stop := range slices.Backward(h.stops) {
		stop()
	}
	h.group.Stop()
	if err := h.group.Wait(); err != nil {
		h.t.Error(err)
	}
}

// A replica is one control plane.
type replica struct {
	*fakes
	h     *house
	cache *store.Cache
	hub   *publish.Hub
	enrol *enrol.Service
	lis   *bufconn.Listener
	group *run.Group
}

// replica starts a control plane over a view of the store.
func (h *house) replica(view store.Store) *replica {
	h.t.Helper()
	r := &replica{fakes: &fakes{h: h}, h: h, lis: bufconn.Listen(256 << 10), group: run.New(h.group.Context())}
	r.cache = store.NewCache(view, nil, publish.Kinds()...)
	r.hub = publish.New(publish.Config{Cache: r.cache, Keys: func() publish.Keys { return publish.Keys{Grants: h.auth.GrantKeys()} }})
	r.enrol = enrol.New(enrol.Config{Store: h.mem, Authority: h.auth, Snapshot: r.hub.Snapshot, Audit: audit.New(h.mem, time.Now), Logger: discard})
	r.fakes.hub = r.hub
	r.group.Go("cache", r.cache.Run)
	r.group.Go("hub", r.hub.Run)
	srv := r.server(h.auth.Server("postern-control"))
	r.group.Go("nodeapi", func(ctx context.Context) error { return srv.Run(ctx, r.lis) })
	h.group.Go("replica", func(context.Context) error { return r.group.Wait() })
	return r
}

// await waits until the replica's own policy is as wanted.
func (r *replica) await(ok func(*policy.Snapshot) bool) {
	changed, stop := r.hub.Subscribe()
	defer stop()
	for !ok(r.hub.Snapshot()) {
		<-changed
	}
}

func (r *replica) server(cert func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *nodeapi.Server {
	return nodeapi.New(nodeapi.Services{
		TLS:       &tls.Config{GetCertificate: cert},
		Authority: r.h.auth, Nodes: publish.Directory{Cache: r.cache, Store: r.h.mem}, Snapshot: r.hub.Snapshot,
		Enrol: r.enrol, Hub: r.hub, Fleet: r.hub, Grants: r, SignIns: r, Holds: r, Broker: r, Budgets: r, Vouchers: r, Pins: r, Entrances: r, Records: r, RecordingKey: func() []byte { return []byte("key") }, Logger: discard,
	})
}

func (h *house) put(objects ...*typesv1.Object) int64 {
	h.t.Helper()
	var ops []store.Op
	for _, o := range objects {
		k, v, err := store.EncodeObject(o)
		if err != nil {
			h.t.Fatal(err)
		}
		ops = append(ops, store.Op{Key: k, Value: v, If: store.AnyRevision})
	}
	rev, err := h.mem.Commit(context.Background(), ops...)
	if err != nil {
		h.t.Fatal(err)
	}
	return rev
}

// A wire connects nodes with replicas by address, and can be cut.
type wire struct {
	mu       sync.Mutex
	replicas map[string]*bufconn.Listener
	cut      map[string]bool
	conns    map[string][]net.Conn
	delay    func() time.Duration // before what was read is given on; nil for none
}

// A late conn gives on what it reads after a while. The handshake is spared: a call that
// grpc-go tries again holds a mutex while it connects, and in a bubble time does not
// pass while another waits for that.
type late struct {
	net.Conn
	wire *wire
	made time.Time
}

func (l late) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	l.wire.mu.Lock()
	var d time.Duration
	if l.wire.delay != nil && time.Since(l.made) > 0 {
		d = l.wire.delay()
	}
	l.wire.mu.Unlock()
	time.Sleep(d)
	return n, err
}

// Write is lost where the other end is gone, as with TCP: that it is gone is told by
// Read alone, after its while. Told by Write it would make grpc-go begin calls on the
// connection, and begin them again at once, until Read has ended it, and in a bubble
// time does not pass meanwhile.
func (l late) Write(b []byte) (int, error) {
	_, _ = l.Conn.Write(b)
	return len(b), nil
}

func newWire(replicas map[string]*replica) *wire {
	w := &wire{replicas: map[string]*bufconn.Listener{}, cut: map[string]bool{}, conns: map[string][]net.Conn{}}
	for addr, r := range replicas {
		w.replicas[addr] = r.lis
	}
	return w
}

func (w *wire) dial(ctx context.Context, addr string) (net.Conn, error) {
	w.mu.Lock()
	lis, cut := w.replicas[addr], w.cut[addr]
	w.mu.Unlock()
	if lis == nil || cut {
		return nil, errors.New("connection refused")
	}
	c, err := lis.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[addr] = append(w.conns[addr], c)
	return late{c, w, time.Now()}, nil
}

// set cuts or mends the way to a replica.
func (w *wire) set(addr string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[addr] = cut
	if cut {
		for _, c := range w.conns[addr] {
			_ = c.Close()
		}
		w.conns[addr] = nil
	}
}

// cuts are the ways that are cut now.
func (w *wire) cuts() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.cut)
}

// move has an address lead to another replica.
func (w *wire) move(addr string, r *replica) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.replicas[addr] = r.lis
}

func (w *wire) options() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithContextDialer(w.dial)}
}

// enrolled is a node's identity, enrolled at a replica.
func (h *house) enrolled(r *replica, w *wire, addr, name, dir string) *control.Identity {
	h.t.Helper()
	h.dir = dir
	r.await(func(p *policy.Snapshot) bool { return !p.Version().IsZero() })
	token, err := r.enrol.CreateJoinToken(context.Background(), "ada", "", &apiv1.CreateJoinTokenRequest{Name: name, Region: "eu-1"})
	if err != nil {
		h.t.Fatal(err)
	}
	id, err := control.Enrol(context.Background(), control.EnrolConfig{
		Addrs: []string{"nowhere:1", addr}, ServerName: "postern-control", JoinToken: secret.FromString(token.GetToken()), Name: name, Dir: dir,
		Endpoints: map[string]string{"postgres": "127.0.0.1:5432"}, DialOptions: w.options(),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

// A node is a running Client.
type node struct {
	*control.Client
	holder *snapshot.Holder
}

func (h *house) node(id *control.Identity, w *wire, addrs ...string) *node {
	h.t.Helper()
	n := &node{holder: snapshot.New()}
	n.Client = control.New(control.Config{
		Addrs: addrs, ServerName: "postern-control", Identity: id, Snapshot: n.holder, Release: "test",
		Endpoints: map[string]string{"postgres": "127.0.0.1:5432"}, DialOptions: w.options(),
		OnCommand: func(_ context.Context, c *nodev1.Command) *nodev1.CommandResult {
			return &nodev1.CommandResult{Done: string(c.GetCancelQuery().GetKey()) == string(id.Name())}
		},
		Report: func() *nodev1.NodeReport { return &nodev1.NodeReport{Resources: []string{"db"}} },
	})
	g := run.New(context.Background())
	g.Go("node", n.Run)
	h.stops = append(h.stops, func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			h.t.Error(err)
		}
	})
	return n
}

func resource(name string) *typesv1.Object {
	o := object.Bare("resource", name)
	o.GetResource().Spec = &typesv1.ResourceSpec{
		Protocol: "postgres", Endpoint: &typesv1.Endpoint{Host: "127.0.0.1", Port: 5432, Database: "db", Tls: &typesv1.EndpointTLS{Mode: "disable"}},
		Credential: &typesv1.CredentialRef{Sealed: "s"}, Catalog: &typesv1.CredentialRef{Sealed: "s"},
	}
	return o
}

func lockOn(name string, spec *typesv1.LockSpec) *typesv1.Object {
	o := object.Bare("lock", name)
	o.GetLock().Spec = spec
	return o
}

// fakes stand for the services that have tests of their own.
type fakes struct {
	h   *house
	hub *publish.Hub

	mu       sync.Mutex
	hold     *typesv1.Hold
	changed  chan struct{}
	followed int
	asked    []string
	ingest   func(ctx context.Context, c *nodev1.ShipRequest) (*nodev1.ShipResponse, error)
	grant    func(*typesv1.Grant)
	reuse    time.Duration
	broker   nodeapi.Broker // a real one, instead of the fake
}

func (f *fakes) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, what)
}

func (f *fakes) Open(_ context.Context, req *nodev1.OpenGrantRequest, node postern.NodeName) (*typesv1.SignedGrant, error) {
	f.note("grant " + string(node))
	if req.GetToken() != "good" {
		e := fault.New(codes.Unauthenticated, "this token is over").WithKind("bad-token")
		e.Violations = []fault.Violation{{Field: "hint", Reason: "log in again"}}
		return nil, e
	}
	v := f.hub.Version()
	g := &typesv1.Grant{
		Id: "g-1", Subject: &typesv1.Subject{Name: "alice", Groups: []string{"analysts"}}, Task: req.GetTask(), State: typesv1.GrantState_GRANT_STATE_ACTIVE,
		StartTime: timestamppb.Now(), EndTime: timestamppb.New(time.Now().Add(time.Hour)), MinVersion: &typesv1.Version{Epoch: v.Epoch, Revision: v.Revision},
		Approval: &typesv1.ApprovalRequirement{Scope: "session", Rule: "leads"},
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.grant != nil {
		f.grant(g)
	}
	return f.h.auth.SignGrant(g)
}

// openings is how often a grant was asked for.
func (f *fakes) openings() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, what := range f.asked {
		if what == "grant n1" {
			n++
		}
	}
	return n
}

func (f *fakes) OpenFor(ctx context.Context, req *nodev1.OpenGrantRequest, node postern.NodeName) (task.Opening, error) {
	g, err := f.Open(ctx, req, node)
	f.mu.Lock()
	defer f.mu.Unlock()
	return task.Opening{Grant: g, Reuse: f.reuse, Alternatives: []postern.Alternative{{Task: "u"}, {Task: "v", Asks: true}}}, err
}

func (f *fakes) Opened(_ context.Context, g postern.GrantID, _ postern.NodeName) error {
	if g == "g-elsewhere" {
		return fault.New(codes.PermissionDenied, "nobody has opened it here").WithKind(postern.CodeDenied.String())
	}
	return nil
}

func (f *fakes) SignIn(ctx context.Context, req *nodev1.SignInRequest, node postern.NodeName, show func(*nodev1.SignInPrompt) error) (*typesv1.SignedGrant, error) {
	if err := show(&nodev1.SignInPrompt{Code: "BCDF-GHJK"}); err != nil {
		return nil, err
	}
	return f.Open(ctx, &nodev1.OpenGrantRequest{Token: "good", Task: req.GetTask()}, node)
}

func (f *fakes) OpenHold(_ context.Context, node postern.NodeName, req *nodev1.OpenHoldRequest) (*typesv1.Hold, error) {
	f.note("hold " + string(node))
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hold == nil {
		f.hold = &typesv1.Hold{Id: "h-1", Scope: req.GetScope(), State: typesv1.HoldState_HOLD_STATE_PENDING}
		f.changed = make(chan struct{})
	}
	return f.hold, nil
}

func (f *fakes) settle(s typesv1.HoldState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = &typesv1.Hold{Id: f.hold.GetId(), Scope: f.hold.GetScope(), State: s}
	close(f.changed)
	f.changed = make(chan struct{})
}

// Follow does as approve.Service promises.
func (f *fakes) Follow(ctx context.Context, _ string, each func(*typesv1.Hold) error) (*typesv1.Hold, error) {
	f.mu.Lock()
	f.followed++
	f.mu.Unlock()
	for {
		f.mu.Lock()
		h, changed := f.hold, f.changed
		f.mu.Unlock()
		if err := each(h); err != nil {
			return h, err
		}
		if h.GetState() != typesv1.HoldState_HOLD_STATE_PENDING {
			return h, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			f.mu.Lock()
			f.followed--
			alone := f.followed == 0
			f.mu.Unlock()
			if alone {
				f.settle(typesv1.HoldState_HOLD_STATE_WITHDRAWN)
			}
			return h, ctx.Err()
		}
	}
}

func (f *fakes) state() typesv1.HoldState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hold.GetState()
}

func (f *fakes) Consume(_ context.Context, node postern.NodeName, id string, digest []byte, session string) (*typesv1.Hold, error) {
	f.note("consume " + string(node) + " " + id + " " + string(digest) + " " + session)
	return &typesv1.Hold{Id: id, State: typesv1.HoldState_HOLD_STATE_CONSUMED}, nil
}

func (f *fakes) URL(id string) string { return "https://postern.example/holds/" + id }

func (f *fakes) Lease(ctx context.Context, node credential.NodeIdentity, req *nodev1.LeaseRequest) (*nodev1.LeaseResponse, error) {
	if f.broker != nil {
		return f.broker.Lease(ctx, node, req)
	}
	sealed, err := secret.SealTo(node.HPKEKey, secret.CredentialInfo(string(node.Name), "l-1", req.GetSession()), []byte("password"))
	return &nodev1.LeaseResponse{Lease: "l-1", Sealed: sealed}, err
}

func (f *fakes) Renew(ctx context.Context, node postern.NodeName, req *nodev1.RenewLeaseRequest) (*nodev1.RenewLeaseResponse, error) {
	if f.broker != nil {
		return f.broker.Renew(ctx, node, req)
	}
	panic("a bug")
}

func (f *fakes) Release(ctx context.Context, node postern.NodeName, req *nodev1.ReleaseRequest) (*nodev1.ReleaseResponse, error) {
	if f.broker != nil {
		return f.broker.Release(ctx, node, req)
	}
	return nil, errors.New("the database says: password=hunter2")
}

func (f *fakes) Draw(context.Context, postern.NodeName, *nodev1.DrawBudgetRequest) (*nodev1.DrawBudgetResponse, error) {
	return &nodev1.DrawBudgetResponse{}, nil
}

func (f *fakes) Ingest(ctx context.Context, _ postern.NodeName, c *nodev1.ShipRequest) (*nodev1.ShipResponse, error) {
	return f.ingest(ctx, c)
}

func deletion(kind, name string) store.Op {
	return store.Op{Key: store.Key{Kind: kind, Name: name}, Delete: true, If: store.AnyRevision}
}

func (f *fakes) Pin(context.Context, *nodev1.PinServerRequest) (*nodev1.PinServerResponse, error) {
	return &nodev1.PinServerResponse{}, nil
}

func (f *fakes) Vouch(context.Context, postern.NodeName, *nodev1.VouchRequest) (*nodev1.VouchResponse, error) {
	return &nodev1.VouchResponse{}, nil
}

func (f *fakes) Begin(context.Context, postern.NodeName, *nodev1.BeginBrowserRequest) (*nodev1.BeginBrowserResponse, error) {
	return &nodev1.BeginBrowserResponse{}, nil
}

func (f *fakes) Finish(context.Context, postern.NodeName, *nodev1.FinishBrowserRequest) (*nodev1.FinishBrowserResponse, error) {
	return &nodev1.FinishBrowserResponse{}, nil
}

func (f *fakes) End(context.Context, string) error { return nil }
