package publish_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/publish"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/dataplane/snapshot"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// A house is a store, a replica and a Hub that serves over pipes in memory.
type house struct {
	t     testing.TB
	mem   *storetest.Memory
	cache *store.Cache
	hub   *publish.Hub
	lis   *bufconn.Listener

	// settle is how long connect waits for what was put before; in a bubble that is free.
	settle time.Duration

	mu   sync.Mutex
	keys map[string][]byte
}

type door struct {
	nodev1.UnimplementedSyncServiceServer
	hub *publish.Hub
}

// Sync trusts the name that the caller gives; nodeapi does not.
func (d door) Sync(conn nodev1.SyncService_SyncServer) error {
	md, _ := metadata.FromIncomingContext(conn.Context())
	return d.hub.Serve(conn.Context(), publish.Node{Name: postern.NodeName(md.Get("node")[0]), Region: "eu-1", Serial: strings.Join(md.Get("serial"), "")}, conn)
}

// inHouse runs test in a bubble, on a running house.
func inHouse(t *testing.T, test func(h *house)) {
	synctest.Test(t, func(t *testing.T) {
		h, stop := newHouse(t)
		defer stop()
		h.settle = 100 * time.Millisecond
		test(h)
	})
}

func newHouse(t testing.TB) (*house, func()) {
	h := &house{t: t, mem: storetest.NewMemory(), lis: bufconn.Listen(1 << 20), keys: map[string][]byte{"k1": make([]byte, 32)}}
	h.cache = store.NewCache(h.mem, nil, publish.Kinds()...)
	h.hub = publish.New(publish.Config{Cache: h.cache, Keys: func() publish.Keys {
		h.mu.Lock()
		defer h.mu.Unlock()
		return publish.Keys{Grants: h.keys, ClientCAs: [][]byte{[]byte("a CA")}}
	}})
	srv := grpc.NewServer()
	nodev1.RegisterSyncServiceServer(srv, door{hub: h.hub})
	ctx, cancel := context.WithCancel(context.Background())
	g := run.New(ctx)
	g.Go("cache", h.cache.Run)
	g.Go("hub", h.hub.Run)
	g.Go("grpc", func(context.Context) error { return srv.Serve(h.lis) })
	return h, func() {
		cancel()
		srv.Stop()
		if err := g.Wait(); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	}
}

// put commits objects in one transaction and returns its version.
func (h *house) put(objects ...*typesv1.Object) postern.Version {
	h.t.Helper()
	var ops []store.Op
	for _, o := range objects {
		k, v, err := store.EncodeObject(o)
		if err != nil {
			h.t.Fatal(err)
		}
		ops = append(ops, store.Op{Key: k, Value: v, If: store.AnyRevision})
	}
	return h.commit(ops...)
}

func (h *house) remove(kind, name string) postern.Version {
	h.t.Helper()
	return h.commit(store.Op{Key: store.Key{Kind: kind, Name: name}, Delete: true, If: store.AnyRevision})
}

func (h *house) commit(ops ...store.Op) postern.Version {
	h.t.Helper()
	rev, err := h.mem.Commit(context.Background(), ops...)
	if err != nil {
		h.t.Fatal(err)
	}
	epoch, err := h.mem.Epoch(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return postern.Version{Epoch: epoch, Revision: rev}
}

func (h *house) endGrant(id, reason string, until time.Time) postern.Version {
	h.t.Helper()
	v, err := proto.Marshal(&typesv1.Grant{Id: id, State: typesv1.GrantState_GRANT_STATE_OVER, EndReason: reason, EndTime: timestamppb.New(until)})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.commit(store.Op{Key: store.Key{Kind: "grant", Name: id}, Value: v, If: store.AnyRevision})
}

func resource(name string, reachable map[string]string) *typesv1.Object {
	o := object.Bare("resource", name)
	o.GetResource().Spec = &typesv1.ResourceSpec{
		Protocol: "postgres", ReachableFrom: reachable,
		Endpoint:   &typesv1.Endpoint{Host: "127.0.0.1", Port: 5432, Database: "db", Tls: &typesv1.EndpointTLS{Mode: "disable"}},
		Credential: &typesv1.CredentialRef{Sealed: "secret"}, Catalog: &typesv1.CredentialRef{Sealed: "secret"},
	}
	return o
}

func task(name, purpose string, resources ...string) *typesv1.Object {
	o := object.Bare("task", name)
	o.GetTask().Spec = &typesv1.TaskSpec{
		Purpose: purpose, Duration: "1h", Resources: &typesv1.ResourceSelector{Names: resources},
		Permit: []*typesv1.Permit{{Table: "sales.orders", Verbs: []string{"select"}, Columns: []string{"id"}}},
	}
	return o
}

func lockOn(name string, spec *typesv1.LockSpec) *typesv1.Object {
	o := object.Bare("lock", name)
	o.GetLock().Spec = spec
	return o
}

func node(name, region string, labels map[string]string) *typesv1.Object {
	o := object.Bare("node", name)
	o.GetNode().Metadata.Labels = labels
	o.GetNode().Spec = &typesv1.NodeSpec{Region: region, Endpoints: map[string]string{"postgres": name + ":5432"}}
	return o
}

// A peer is the other side of one stream.
type peer struct {
	h      *house
	cc     *grpc.ClientConn
	conn   nodev1.SyncService_SyncClient
	cancel context.CancelFunc
	holder *snapshot.Holder
}

// connect opens a stream for a node that has what the holder has.
func (h *house) connect(name string, holder *snapshot.Holder) *peer {
	h.t.Helper()
	return h.reconnect(name, holder, false)
}

// reconnect is connect; with forget the node asks for everything anew.
func (h *house) reconnect(name string, holder *snapshot.Holder, forget bool) *peer {
	h.t.Helper()
	time.Sleep(h.settle)
	return h.dial(name, "", holder, forget)
}

// dial opens a stream by a certificate with the serial, at once.
func (h *house) dial(name, serial string, holder *snapshot.Holder, forget bool) *peer {
	h.t.Helper()
	cc, err := grpc.NewClient("passthrough:///hub", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return h.lis.DialContext(ctx) }))
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "node", name, "serial", serial))
	conn, err := nodev1.NewSyncServiceClient(cc).Sync(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	p := &peer{h: h, cc: cc, conn: conn, cancel: cancel, holder: holder}
	hello := &nodev1.SyncHello{ContentHash: holder.Hash(), Release: "test"}
	if forget {
		hello.ContentHash = nil
	}
	if v := holder.Version(); !v.IsZero() {
		hello.Applied = &typesv1.Version{Epoch: v.Epoch, Revision: v.Revision}
	}
	p.send(&nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Hello{Hello: hello}})
	return p
}

func (p *peer) close() {
	p.cancel()
	_ = p.cc.Close()
}

func (p *peer) send(m *nodev1.SyncRequest) {
	p.h.t.Helper()
	if err := p.conn.Send(m); err != nil && !errors.Is(err, io.EOF) {
		p.h.t.Fatal(err)
	}
}

func (p *peer) ack(a *nodev1.SyncAck) {
	p.h.t.Helper()
	p.send(&nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Ack{Ack: a}})
}

func (p *peer) ping(nanos int64) {
	p.h.t.Helper()
	p.send(&nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Ping{Ping: &nodev1.SyncPing{MonotonicNanos: nanos}}})
}

// update waits for the next update.
func (p *peer) update() *nodev1.Update {
	p.h.t.Helper()
	m, err := p.conn.Recv()
	if err != nil {
		p.h.t.Fatal(err)
	}
	u := m.GetUpdate()
	if u == nil {
		p.h.t.Fatalf("got %v, want an update", m)
	}
	return u
}

// apply waits for the next update, applies and acks it.
func (p *peer) apply() *nodev1.Update {
	p.h.t.Helper()
	u := p.update()
	ack := p.holder.Apply(u)
	if ack == nil {
		p.h.t.Fatalf("the update %v does not follow %s", u, p.holder.Version())
	}
	p.ack(ack)
	return u
}

// live applies and acks whatever comes, until the stream ends; its error is sent.
func (p *peer) live() <-chan error {
	ended := make(chan error, 1)
	go func() {
		for {
			m, err := p.conn.Recv()
			if err != nil {
				ended <- err
				return
			}
			switch m := m.GetKind().(type) {
			case *nodev1.SyncResponse_Update:
				ack := p.holder.Apply(m.Update)
				if ack == nil {
					ended <- fmt.Errorf("%v does not follow %s", m.Update, p.holder.Version())
					return
				}
				_ = p.conn.Send(&nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Ack{Ack: ack}})
			case *nodev1.SyncResponse_Bookmark:
				p.holder.Advance(postern.Version{Epoch: m.Bookmark.GetVersion().GetEpoch(), Revision: m.Bookmark.GetVersion().GetRevision()})
			}
		}
	}()
	return ended
}

func refs(u *nodev1.Update) []string {
	var out []string
	for _, o := range u.GetObjects() {
		out = append(out, object.Ref(o))
	}
	return out
}
