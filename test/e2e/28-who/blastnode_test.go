package who

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/dataplane/control"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/test/e2e/house"
)

// thief has what was on a node's disk.
type thief struct {
	*blaster
	id     *control.Identity
	conn   *grpc.ClientConn
	lender nodev1.CredentialServiceClient
}

func (b *blaster) steal(t *testing.T, n *house.Node) *thief {
	t.Helper()
	id := house.Must(control.LoadIdentity(filepath.Join(n.Dir, "identity")))(t)
	cfg := b.TLS()
	cfg.GetClientCertificate = id.ClientCertificate
	conn := house.Must(grpc.NewClient(b.NodesAddr, grpc.WithTransportCredentials(credentials.NewTLS(cfg))))(t)
	t.Cleanup(func() { _ = conn.Close() })
	return &thief{b, id, conn, nodev1.NewCredentialServiceClient(conn)}
}

// borrow asks for a credential, and opens it with the node's key.
func (s *thief) borrow(ctx context.Context, req *nodev1.LeaseRequest) (lease string, c *nodev1.Credential, err error) {
	resp, err := s.lender.Lease(ctx, req)
	if err != nil {
		return "", nil, err
	}
	plain, err := secret.OpenWith(s.id.HPKEKey(), secret.CredentialInfo(string(s.id.Name()), resp.GetLease(), req.GetSession()), resp.GetSealed())
	if err != nil {
		return "", nil, err
	}
	c = &nodev1.Credential{}
	return resp.GetLease(), c, proto.Unmarshal(plain, c)
}

// login goes to the target itself.
func (s *thief) login(t *testing.T, c *nodev1.Credential) (*pgx.Conn, error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.PG.DSN("warehouse", c.GetAccount(), string(c.GetPassword())))
	if err == nil {
		t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	}
	return conn, err
}

// node is robbed of its keys and its disk, and then of the id of a grant that was in its
// memory; what is borrowed with that is the stolen lease.
func (b *blaster) node(t *testing.T) {
	native := b.Connect(t, "alice", "clerk.vault-room")
	if _, err := native.Exec(t.Context(), "SELECT 'the-last-word', status FROM orders LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	plain := b.Connect(t, "alice", "sales-report")
	if err := plain.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := b.Nodes[0]
	s := b.steal(t, n)
	b.unreadable(t, n.Dir, "the-last-word", b.Password("warehouse_app"), b.DataToken(t, "alice"))

	resp := house.Poll(t, "both loans are listed", func() (*apiv1.GetBlastResponse, bool) {
		resp := b.blast(t, "", n.Name)
		leases := 0
		for _, r := range resp.GetReaches() {
			if r.GetTask() != "" {
				leases++
			}
		}
		return resp, leases >= 2
	})
	if resp.GetEndTime() != nil || resp.GetDead() != "" {
		t.Errorf("%v", resp)
	}
	grants := map[string]string{} // by task
	acts := map[string]int{}
	var lease string
	var login *nodev1.Credential
	for _, r := range resp.GetReaches() {
		acts[r.GetAct()]++
		switch {
		case r.GetAct() == "policy":
			told := s.told(t)
			if !slices.Contains(told, "resource/warehouse") || slices.Contains(told, "resource/far-room") || strings.Contains(r.GetTerms()[0], "far-room") {
				t.Errorf("told %v, listed %v", told, r.GetTerms())
			}
		case r.GetAct() == "pose":
			if len(r.GetAddresses()) == 0 {
				t.Errorf("%v", r)
			}
			cert := house.Must(s.id.ServerCertificate(nil))(t)
			for _, address := range r.GetAddresses() {
				if err := b.pose(t, cert, address); err != nil {
					t.Errorf("pose as %s: %v", address, err)
				}
			}
			if err := b.pose(t, cert, "postern-control:1"); err == nil {
				t.Error("it can pose as the control plane")
			}
		case r.GetAct() == "borrow" && r.GetTask() == "":
			_, c, err := s.borrow(t.Context(), &nodev1.LeaseRequest{Session: "thief-" + r.GetResource(), Resource: r.GetResource(), Purpose: "catalog"})
			if err != nil {
				t.Errorf("%v: %v", r, err)
				continue
			}
			if conn, err := s.login(t, c); err != nil || conn.Ping(t.Context()) != nil {
				t.Errorf("%v: %v", r, err)
			}
		case r.GetAct() == "borrow":
			id := grantID.FindStringSubmatch(strings.Join(r.GetTerms(), " "))
			if id == nil || r.GetLease() == "" {
				t.Fatalf("%v does not say under which grant", r)
			}
			grants[r.GetTask()] = id[1]
			lent, c, err := s.borrow(t.Context(), &nodev1.LeaseRequest{Session: "thief-" + r.GetTask(), Grant: grants[r.GetTask()], Resource: r.GetResource(), Purpose: "session"})
			if err != nil {
				t.Errorf("%v: %v", r, err)
			} else if r.GetTask() == "clerk" {
				lease, login = lent, c
			}
		case r.GetAct() == "record" || r.GetAct() == "renew": // below
			if len(r.GetTerms()) == 0 {
				t.Errorf("%v", r)
			}
		default:
			t.Errorf("%v is not known", r)
		}
	}
	if acts["borrow"] < 4 || acts["policy"]*acts["pose"]*acts["record"]*acts["renew"] != 1 || lease == "" {
		t.Fatalf("%v", acts)
	}
	s.noMore(t, n, grants)
	t.Run("record", func(t *testing.T) { s.record(t, b.Nodes[1].Name) })
	t.Run("lease", func(t *testing.T) { s.lease(t, lease, login) })
	t.Run("static lease", func(t *testing.T) { s.static(t, grants["sales-report"]) })
	t.Run("renew", s.renew)

	b.stop(t, resp.GetStops()[0])
	house.Eventually(t, func() string { return "a locked node gets nothing" }, func() bool {
		_, _, err := s.borrow(t.Context(), &nodev1.LeaseRequest{Session: "thief-late", Resource: "warehouse", Purpose: "catalog"})
		return err != nil
	})
	for method, call := range s.calls(n, grants) {
		if err := call(t.Context()); err == nil {
			t.Errorf("%s works after the lock", method)
		}
	}
	if dead := b.blast(t, "", n.Name); dead.GetDead() == "" || len(dead.GetReaches()) != 0 {
		t.Errorf("%v", dead)
	}
}

// told is what the control plane tells of policy to who has a node's key.
func (s *thief) told(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), house.Patience)
	defer cancel()
	stream := house.Must(nodev1.NewSyncServiceClient(s.conn).Sync(ctx))(t)
	if err := stream.Send(&nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Hello{Hello: &nodev1.SyncHello{Protocols: []string{"postgres"}, Process: "thief"}}}); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(m.GetUpdate().GetObjects()) == 0 {
			continue
		}
		var out []string
		for _, o := range m.GetUpdate().GetObjects() {
			if r := o.GetResource(); r != nil {
				out = append(out, "resource/"+r.GetMetadata().GetName())
			}
			if o.GetSecret() != nil || o.GetNode() != nil || o.GetRoleBinding() != nil {
				t.Errorf("a node is told of %v", o)
			}
		}
		return out
	}
}

// calls are what a node may call where it has something to call it with.
func (s *thief) calls(n *house.Node, grants map[string]string) map[string]func(context.Context) error {
	asker := nodev1.NewGrantServiceClient(s.conn)
	lend := func(req *nodev1.LeaseRequest) func(context.Context) error {
		return func(ctx context.Context) error { _, _, err := s.borrow(ctx, req); return err }
	}
	other := house.Node{}
	for _, one := range s.Nodes {
		if one.Name != n.Name {
			other = *one
		}
	}
	return map[string]func(context.Context) error{
		"a resource that it does not serve":               lend(&nodev1.LeaseRequest{Session: "thief-1", Resource: "far-room", Purpose: "catalog"}),
		"an admin credential":                             lend(&nodev1.LeaseRequest{Session: "thief-2", Resource: "vault-room", Purpose: "admin"}),
		"a login without a grant":                         lend(&nodev1.LeaseRequest{Session: "thief-3", Resource: "warehouse", Purpose: "session"}),
		"a grant that is none":                            lend(&nodev1.LeaseRequest{Session: "thief-4", Grant: "g-aaaaaaaaaaaaaaaa", Resource: "warehouse", Purpose: "session"}),
		"a resource that the grant's task does not reach": lend(&nodev1.LeaseRequest{Session: "thief-5", Grant: grants["sales-report"], Resource: "vault-room", Purpose: "session"}),
		"no token": func(ctx context.Context) error {
			_, err := asker.OpenGrant(ctx, &nodev1.OpenGrantRequest{Task: "sales-report", Resource: "warehouse"})
			return err
		},
		"the node's own name as a token": func(ctx context.Context) error {
			_, err := asker.OpenGrant(ctx, &nodev1.OpenGrantRequest{Task: "sales-report", Resource: "warehouse", Token: n.Name})
			return err
		},
		"a grant certificate of its own": func(ctx context.Context) error {
			cert, err := s.id.ClientCertificate(nil)
			if err == nil {
				_, err = asker.OpenGrant(ctx, &nodev1.OpenGrantRequest{Task: "sales-report", Resource: "warehouse", ClientCertificate: cert.Certificate[0]})
			}
			return err
		},
		"a hold of nobody's": func(ctx context.Context) error {
			_, err := asker.ConsumeHold(ctx, &nodev1.ConsumeHoldRequest{Hold: "h-aaaaaaaaaaaaaaaa", Session: "thief-6", Digest: make([]byte, 32)})
			return err
		},
		"a budget of nobody's": func(ctx context.Context) error {
			_, err := asker.DrawBudget(ctx, &nodev1.DrawBudgetRequest{Grant: "g-aaaaaaaaaaaaaaaa"})
			return err
		},
		"another node's name": func(ctx context.Context) error {
			cert, err := s.id.ServerCertificate(nil)
			if err != nil {
				return err
			}
			cfg := s.TLS()
			cfg.Certificates = []tls.Certificate{*cert}
			conn, err := grpc.NewClient(s.NodesAddr, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = nodev1.NewGrantServiceClient(conn).RouteCancel(ctx, &nodev1.RouteCancelRequest{})
			return err
		},
		// CVE-2026-40264 and CVE-2026-39388: with a good certificate, but another's.
		"another node's loan, for longer": func(ctx context.Context) error {
			_, err := s.lender.RenewLease(ctx, &nodev1.RenewLeaseRequest{Lease: leaseAt(ctx, s.blaster, other.Name)})
			return err
		},
		"another node's session": func(ctx context.Context) error {
			_, err := s.lender.Release(ctx, &nodev1.ReleaseRequest{Lease: leaseAt(ctx, s.blaster, other.Name)})
			return err
		},
		"the API": func(ctx context.Context) error {
			cfg := s.TLS()
			cfg.GetClientCertificate = s.id.ClientCertificate
			tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
			defer tr.CloseIdleConnections()
			_, err := apiv1connect.NewAccessServiceClient(&http.Client{Transport: tr}, s.Addr).WhoAmI(ctx, house.Request(&apiv1.WhoAmIRequest{}))
			return err
		},
		"a listener": func(ctx context.Context) error {
			cfg, err := pgx.ParseConfig(s.Conninfo(s.Nodes[1], "sales-report"))
			if err != nil {
				return err
			}
			cfg.TLSConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.id.ClientCertificate(nil) }
			conn, err := pgx.ConnectConfig(ctx, cfg)
			if err == nil {
				_ = conn.Close(ctx)
			}
			return err
		},
	}
}

// leaseAt is a lease that a node has, as blast tells of it.
func leaseAt(ctx context.Context, b *blaster, node string) string {
	resp, err := b.API("ada").Locks.GetBlast(ctx, house.Request(&apiv1.GetBlastRequest{Node: node}))
	if err != nil {
		return ""
	}
	for _, r := range resp.Msg.GetReaches() {
		if r.GetLease() != "" {
			return r.GetLease()
		}
	}
	return ""
}

// noMore tries what is not listed.
func (s *thief) noMore(t *testing.T, n *house.Node, grants map[string]string) {
	t.Helper()
	other := house.Must(s.open(t, s.Nodes[1], s.DataToken(t, "bob"), "sales-report", "warehouse"))(t)
	if err := other.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if leaseAt(t.Context(), s.blaster, s.Nodes[1].Name) == "" {
		t.Fatal("the other node has no lease")
	}
	s.elsewhere(t, s.Nodes[1].Name)
	s.accepts(t, grants["sales-report"])
	for what, call := range s.calls(n, grants) {
		ctx, cancel := context.WithTimeout(t.Context(), house.Patience)
		if err := call(ctx); err == nil {
			t.Errorf("%s: works, and that is not listed", what)
		}
		cancel()
	}
	if err := other.Ping(t.Context()); err != nil {
		t.Errorf("the other node's session: %v", err)
	}
}

// accepts: that a tool of a server of MCP has changed a node may say, but not that people
// have let it be.
func (s *thief) accepts(t *testing.T, grant string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), house.Patience)
	defer cancel()
	says := &nodev1.PinServerRequest{Grant: grant, Resource: "warehouse", Path: "/mcp", List: "tools"}
	asker := nodev1.NewGrantServiceClient(s.conn)
	for _, b := range []byte("12") {
		says.Said = []*nodev1.Pin{{Name: "tool", Now: bytes.Repeat([]byte{b}, 32)}}
		house.Must(asker.PinServer(ctx, says))(t)
	}
	says.Accepted, says.Hold = says.GetSaid(), "h-aaaaaaaaaaaaaaaa"
	if _, err := asker.PinServer(ctx, says); err == nil || !strings.Contains(err.Error(), "by people alone") {
		t.Errorf("a node says that people have let a change be: %v", err)
	}
}

// elsewhere: a grant that a client has opened at another node is of no use to this one,
// though it is alive, and its id is known.
func (s *thief) elsewhere(t *testing.T, node string) {
	t.Helper()
	id := ""
	for _, r := range s.blast(t, "", node).GetReaches() {
		if m := grantID.FindStringSubmatch(strings.Join(r.GetTerms(), " ")); m != nil {
			id = m[1]
		}
	}
	if id == "" {
		t.Fatal("no grant of the other node is known")
	}
	ctx, cancel := context.WithTimeout(t.Context(), house.Patience)
	defer cancel()
	asker := nodev1.NewGrantServiceClient(s.conn)
	for what, call := range map[string]func() error{
		"borrow": func() error {
			_, _, err := s.borrow(ctx, &nodev1.LeaseRequest{Session: "thief-8", Grant: id, Resource: "warehouse", Purpose: "session"})
			return err
		},
		"borrow for the catalogue": func() error {
			_, _, err := s.borrow(ctx, &nodev1.LeaseRequest{Session: "thief-9", Grant: id, Resource: "warehouse", Purpose: "catalog"})
			return err
		},
		"use its budget": func() error {
			_, err := asker.DrawBudget(ctx, &nodev1.DrawBudgetRequest{Grant: id, Process: "thief", Sequence: 1})
			return err
		},
		"ask people in its name": func() error {
			stream, err := asker.OpenHold(ctx, &nodev1.OpenHoldRequest{Scope: "statement", Grant: id, Resource: "warehouse", Session: "thief-8", Statement: "SELECT 1", Rule: "leads"})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"say what a server of its clients is": func() error {
			_, err := asker.PinServer(ctx, &nodev1.PinServerRequest{Grant: id, Resource: "warehouse", Path: "/mcp"})
			return err
		},
		"be vouched for": func() error {
			_, err := asker.Vouch(ctx, &nodev1.VouchRequest{Grant: id, Resource: "warehouse", Session: "thief-8"})
			return err
		},
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "nobody has opened the grant") {
			t.Errorf("%s under a grant of another node's clients: %v", what, err)
		}
	}
}

// grantID finds under which grant something is listed.
var grantID = regexp.MustCompile(`grant (g-[a-z2-7]+)`)

// lease is that of level native: what is listed can be done at the target, and nothing else.
func (s *thief) lease(t *testing.T, id string, c *nodev1.Credential) {
	resp := s.blast(t, "", id)
	if len(resp.GetReaches()) != 1 || resp.GetEndTime() == nil || resp.GetReaches()[0].GetAct() != "login" || resp.GetReaches()[0].GetAccount() != c.GetAccount() {
		t.Fatalf("%v", resp)
	}
	conn := house.Must(s.login(t, c))(t)
	s.held(t, conn, resp.GetReaches()[0])
	_ = conn.Close(t.Context())
	s.stop(t, resp.GetStops()[len(resp.GetStops())-1])
	house.Eventually(t, func() string { return "the login is gone" }, func() bool {
		conn, err := s.login(t, c)
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err != nil
	})
	house.Eventually(t, func() string { return "the lease is dead" }, func() bool { return s.blast(t, "", id).GetDead() != "" })
}

// static is a password that outlives its loan, until it is replaced.
func (s *thief) static(t *testing.T, grant string) {
	id, c, err := s.borrow(t.Context(), &nodev1.LeaseRequest{Session: "thief-static", Grant: grant, Resource: "warehouse", Purpose: "session"})
	if err != nil {
		t.Fatal(err)
	}
	resp := s.blast(t, "", id)
	if len(resp.GetReaches()) != 1 || resp.GetEndTime() != nil || fmt.Sprint(resp.GetStops()) != "[postern rotate warehouse]" || resp.GetReaches()[0].GetRights()[0].GetVerb() != "anything" {
		t.Fatalf("%v", resp)
	}
	if _, err := s.lender.Release(t.Context(), &nodev1.ReleaseRequest{Lease: id}); err != nil {
		t.Fatal(err)
	}
	if after := s.blast(t, "", id); after.GetDead() != "" {
		t.Errorf("the loan is over, and its password is not: %v", after)
	}
	if conn, err := s.login(t, c); err != nil || conn.Ping(t.Context()) != nil {
		t.Errorf("the password: %v", err)
	}
	s.stop(t, resp.GetStops()[0])
	if _, err := s.login(t, c); house.State(err) != "28P01" {
		t.Errorf("the password after that: %v", err)
	}
	if err := pgxPing(t, s, "warehouse_admin", string(c.GetPassword())); err == nil {
		t.Error("it is another account's as well")
	}
}

func pgxPing(t *testing.T, s *thief, account, password string) error {
	t.Helper()
	_, err := s.login(t, &nodev1.Credential{Account: account, Password: []byte(password)})
	return err
}
