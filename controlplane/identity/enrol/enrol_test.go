package enrol_test

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/identity/enrol"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

type plainKeeper struct{}

func (plainKeeper) Seal(_ context.Context, b, _ []byte) ([]byte, error) { return slices.Clone(b), nil }
func (plainKeeper) Open(_ context.Context, b, _ []byte) ([]byte, error) { return slices.Clone(b), nil }

type house struct {
	*enrol.Service
	t        *testing.T
	store    *storetest.Memory
	audit    *audit.Log
	auth     *authority.Authority
	snapshot atomic.Pointer[policy.Snapshot]
	now      time.Time
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, store: storetest.NewMemory(), now: time.Now()}
	h.audit = audit.New(h.store, time.Now)
	var err error
	h.auth, err = authority.Open(t.Context(), authority.Config{Store: h.store, Keeper: plainKeeper{}, Audit: h.audit, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h.policy()
	h.Service = enrol.New(enrol.Config{
		Store: h.store, Authority: h.auth, Snapshot: h.snapshot.Load, Audit: h.audit, Reserved: []string{"control.example", "192.0.2.1", "127.0.0.1"},
		Now: func() time.Time { return h.now }, Logger: slog.New(slog.DiscardHandler),
	})
	return h
}

func (h *house) policy(objects ...*typesv1.Object) {
	s, rejected := policy.Compile(postern.Version{Epoch: "e", Revision: 1}, objects)
	if len(rejected) > 0 {
		h.t.Fatal(rejected)
	}
	h.snapshot.Store(s)
}

func (h *house) token(name string) string {
	h.t.Helper()
	r, err := h.CreateJoinToken(h.t.Context(), "ada", "", &apiv1.CreateJoinTokenRequest{Name: name, Region: "eu-1", Labels: map[string]string{"region": "eu-1"}})
	if err != nil {
		h.t.Fatal(err)
	}
	return r.GetToken()
}

// key is a node's key with what the node asks for.
type key struct {
	private *ecdsa.PrivateKey
	csr     []byte
	hpke    []byte
}

func newKey(t *testing.T) key {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		t.Fatal(err)
	}
	x, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key{k, csr, x.PublicKey().Bytes()}
}

func (h *house) register(token, name string, k key) (*nodev1.RegisterResponse, error) {
	return h.Register(h.t.Context(), &nodev1.RegisterRequest{
		JoinToken: token, Name: name, Csr: k.csr, HpkeKey: k.hpke, Endpoints: map[string]string{"postgres": "127.0.0.1:5432"},
	})
}

func (h *house) renew(cert *x509.Certificate, k key) (*nodev1.RenewResponse, error) {
	return h.renewAt(cert, k, map[string]string{"postgres": "127.0.0.1:5432"})
}

func (h *house) renewAt(cert *x509.Certificate, k key, endpoints map[string]string) (*nodev1.RenewResponse, error) {
	ctx := peer.NewContext(h.t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, AuthInfo: credentials.TLSInfo{
		State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}},
	}})
	return h.Renew(ctx, &nodev1.RenewRequest{Csr: k.csr, HpkeKey: k.hpke, Endpoints: endpoints})
}

func parse(t *testing.T, chain []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain)
	if block == nil {
		t.Fatal("no PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (h *house) node(name string) *typesv1.NodeSpec {
	h.t.Helper()
	e, err := h.store.Get(h.t.Context(), store.Key{Kind: "node", Name: name})
	if err != nil {
		h.t.Fatal(err)
	}
	o, err := store.DecodeObject(e)
	if err != nil {
		h.t.Fatal(err)
	}
	return o.GetNode().GetSpec()
}

func want(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if fault.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error = %v (%s), want %s that says %q", err, fault.CodeOf(err), code, text)
	}
}

func TestRegister(t *testing.T) {
	h := newHouse(t)
	token := h.token("n1")
	if !strings.HasPrefix(token, "pst_join_") || !strings.HasSuffix(token, "."+h.auth.Pin()) {
		t.Errorf("token %d characters long", len(token))
	}
	if strings.Contains(string(dump(t, h.store)), token[9:40]) {
		t.Error("the join token stands in the store")
	}
	k := newKey(t)
	r, err := h.register(token, "n1", k)
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, r.GetCertificate())
	if name, err := h.auth.NodeFromCert(cert); err != nil || name != "n1" {
		t.Errorf("certificate of %q, %v", name, err)
	}
	if err := parse(t, r.GetServerCertificate()).VerifyHostname("127.0.0.1"); err != nil {
		t.Error(err)
	}
	if r.GetRegion() != "eu-1" || r.GetLabels()["region"] != "eu-1" || r.GetName() != "n1" {
		t.Errorf("answer %v", r)
	}
	spec := h.node("n1")
	if spec.GetSerial() != authority.Serial(cert) || !slices.Equal(spec.GetHpkeKey(), k.hpke) || spec.GetRegion() != "eu-1" || spec.GetEndpoints()["postgres"] != "127.0.0.1:5432" {
		t.Errorf("node %v", spec)
	}
	_, err = h.register(token, "n1", newKey(t))
	want(t, err, codes.Unauthenticated, "wrong, used, or over")
}

// dump is every value that the store holds.
func dump(t *testing.T, s store.Store) []byte {
	t.Helper()
	var all []byte
	for _, kind := range []string{"join", "node", "audit"} {
		entries, _, err := s.List(t.Context(), kind, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, e.Value...)
		}
	}
	return all
}

// TestJoinTokens: one is good to the letter, blanks and capitals included (CVE-2025-6015).
func TestJoinTokens(t *testing.T) {
	h := newHouse(t)
	token := h.token("n1")
	other := h.token("n2")
	last := token[len(token)-1]
	for name, wrong := range map[string]string{
		"empty": "", "no token": "pst_join_", "cut": token[:len(token)-1], "longer": token + "0",
		"other secret": other[:25] + token[25:], "upper case": strings.ToUpper(token),
		"other pin": token[:len(token)-1] + string('0'+('9'-last)%2),
		"space":     " " + token, "space after": token + " ", "line end": token + "\n",
		"other sort": "pst_" + token[9:],
	} {
		if wrong == token {
			continue
		}
		_, err := h.register(wrong, "n1", newKey(t))
		if fault.CodeOf(err) != codes.Unauthenticated || !fault.Is(err, "bad-token") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := h.register(token, "n2", newKey(t))
	want(t, err, codes.PermissionDenied, `for the node "n1"`)
	h.now = h.now.Add(10*time.Minute + time.Second)
	_, err = h.register(token, "n1", newKey(t))
	want(t, err, codes.Unauthenticated, "over")
	for _, ttl := range []time.Duration{-1, 61 * time.Minute} {
		_, err = h.CreateJoinToken(t.Context(), "ada", "", &apiv1.CreateJoinTokenRequest{Name: "n1", Ttl: durationpb.New(ttl)})
		want(t, err, codes.InvalidArgument, "ttl")
	}
	_, err = h.CreateJoinToken(t.Context(), "ada", "", &apiv1.CreateJoinTokenRequest{Name: "N_1"})
	want(t, err, codes.InvalidArgument, "name")
}

// TestJoinTokenIsUsedOnce has many use one token at once (CVE-2025-6014).
func TestJoinTokenIsUsedOnce(t *testing.T) {
	h := newHouse(t)
	token := h.token("n1")
	var won atomic.Int32
	g := run.New(t.Context())
	for range 8 {
		k := newKey(t)
		g.Go("register", func(context.Context) error {
			if _, err := h.register(token, "n1", k); err == nil {
				won.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if won.Load() != 1 {
		t.Errorf("%d have registered with one token", won.Load())
	}
}

func TestRenewAndClones(t *testing.T) {
	h := newHouse(t)
	r, err := h.register(h.token("n1"), "n1", newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	first := parse(t, r.GetCertificate())
	k2 := newKey(t)
	r2, err := h.renew(first, k2)
	if err != nil {
		t.Fatal(err)
	}
	second := parse(t, r2.GetCertificate())
	if h.node("n1").GetSerial() != authority.Serial(second) {
		t.Error("the node object has not the new serial")
	}
	// The answer was lost: the same node asks again for the same key.
	if r2, err = h.renew(first, k2); err != nil {
		t.Fatalf("the node that did not hear the answer is refused: %v", err)
	}
	second = parse(t, r2.GetCertificate())
	// A copy of the first key wants a certificate for a key of its own.
	_, err = h.renew(first, newKey(t))
	want(t, err, codes.PermissionDenied, "newer certificate")
	if !strings.Contains(string(dump(t, h.store)), "refused: superseded certificate") {
		t.Error("the refusal is not audited")
	}
	if _, err = h.renew(second, newKey(t)); err != nil {
		t.Errorf("the current certificate is refused: %v", err)
	}
}

// TestNamesOfOthers: a node that runs gets no certificate for a name that is another one's, nor
// for one that covers it; one that an admin enrols may share it.
func TestNamesOfOthers(t *testing.T) {
	h := newHouse(t)
	register := func(name string, endpoints map[string]string) *x509.Certificate {
		t.Helper()
		k := newKey(t)
		r, err := h.Register(t.Context(), &nodev1.RegisterRequest{JoinToken: h.token(name), Name: name, Csr: k.csr, HpkeKey: k.hpke, Endpoints: endpoints})
		if err != nil {
			t.Fatal(err)
		}
		return parse(t, r.GetCertificate())
	}
	register("a", map[string]string{"postgres": "pg.a.example:5432", "http": "web.example:443", "ssh": "198.51.100.7:22"})
	cert := register("b", map[string]string{"postgres": "b.example:5432"})
	for _, c := range []struct {
		protocol, endpoint string
		code               codes.Code
	}{
		{"postgres", "pg.a.example:5432", codes.PermissionDenied},
		{"ssh", "PG.A.example.:22", codes.PermissionDenied},
		{"ssh", "[::ffff:198.51.100.7]:22", codes.PermissionDenied},
		{"http", "web.example:443", codes.PermissionDenied},
		{"http", "a.example:443", codes.PermissionDenied}, // *.a.example
		{"postgres", "sales-report.web.example:5432", codes.PermissionDenied},
		{"postgres", "b2.example:5432", codes.OK},
		{"http", "b2.example:443", codes.OK},
		{"postgres", "x.pg.a.example:5432", codes.OK},
		{"postgres", "127.0.0.1:5432", codes.OK},
	} {
		k := newKey(t)
		r, err := h.renewAt(cert, k, map[string]string{c.protocol: c.endpoint})
		if fault.CodeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), "node a") {
			t.Errorf("%s at %s: %v, want %s", c.protocol, c.endpoint, err, c.code)
		}
		if err == nil {
			cert = parse(t, r.GetCertificate())
		}
	}
	shared := map[string]string{"postgres": "pg.a.example:5432"}
	if _, err := h.renewAt(register("b", shared), newKey(t), shared); err != nil {
		t.Errorf("a name that it was enrolled with: %v", err)
	}
}

func TestEnrolAgainSupersedes(t *testing.T) {
	h := newHouse(t)
	r, err := h.register(h.token("n1"), "n1", newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.register(h.token("n1"), "n1", newKey(t)); err != nil {
		t.Fatalf("a wiped node cannot enrol again: %v", err)
	}
	_, err = h.renew(parse(t, r.GetCertificate()), newKey(t))
	want(t, err, codes.PermissionDenied, "newer certificate")
}

func TestLockedNode(t *testing.T) {
	h := newHouse(t)
	r, err := h.register(h.token("n1"), "n1", newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	token := h.token("n1")
	h.policy(&typesv1.Object{Kind: &typesv1.Object_Lock{Lock: &typesv1.Lock{
		Metadata: &typesv1.Metadata{Name: "stolen"}, Spec: &typesv1.LockSpec{Node: "n1", Reason: "its disk was copied"},
	}}})
	_, err = h.renew(parse(t, r.GetCertificate()), newKey(t))
	want(t, err, codes.PermissionDenied, "its disk was copied")
	_, err = h.register(token, "n1", newKey(t))
	want(t, err, codes.PermissionDenied, "its disk was copied")
	h.snapshot.Store(nil) // before policy was read nobody knows of locks
	_, err = h.register(token, "n1", newKey(t))
	want(t, err, codes.Unavailable, "not read its policy")
}

func TestRenewWithoutACertificate(t *testing.T) {
	h := newHouse(t)
	_, err := h.Renew(t.Context(), &nodev1.RenewRequest{})
	want(t, err, codes.Unauthenticated, "client certificate")
}

func TestEndpoints(t *testing.T) {
	h := newHouse(t)
	for endpoint, code := range map[string]codes.Code{
		"n1.example:5432": codes.OK, "127.0.0.1:5432": codes.OK, "[::1]:5432": codes.OK, "localhost:5432": codes.OK, "198.51.100.7:5432": codes.OK,
		"control.example:443": codes.PermissionDenied, "CONTROL.example.:443": codes.PermissionDenied, "192.0.2.1:443": codes.PermissionDenied, "[::ffff:192.0.2.1]:443": codes.PermissionDenied,
		"*.example:5432": codes.InvalidArgument, "n1.example": codes.InvalidArgument, ":5432": codes.InvalidArgument, "0.0.0.0:5432": codes.InvalidArgument, "a b:1": codes.InvalidArgument,
	} {
		k := newKey(t)
		_, err := h.Register(t.Context(), &nodev1.RegisterRequest{
			JoinToken: h.token("n1"), Name: "n1", Csr: k.csr, HpkeKey: k.hpke, Endpoints: map[string]string{"postgres": endpoint},
		})
		if fault.CodeOf(err) != code {
			t.Errorf("%s: %v, want %s", endpoint, err, code)
		}
	}
}
