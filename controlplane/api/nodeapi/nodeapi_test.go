package nodeapi_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/posterngate/postern/dataplane/control"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/test/wait"
)

var discard = slog.New(slog.DiscardHandler)

// certFor signs a client certificate that the house itself would not.
func certFor(t *testing.T, ca *x509.Certificate, caKey any, uri string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "x"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		tmpl.URIs = []*url.URL{u}
	}
	if ca == nil {
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, tmpl.KeyUsage|x509.KeyUsageCertSign
		ca, caKey = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func dial(t *testing.T, h *house, w *wire, cert *tls.Certificate) *grpc.ClientConn {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(h.auth.CA())
	config := &tls.Config{RootCAs: roots, ServerName: "postern-control", MinVersion: tls.VersionTLS13}
	if cert != nil {
		// Shown whether or not the server asked for its like.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	cc, err := grpc.NewClient("passthrough:///a:1", append(w.options(), grpc.WithTransportCredentials(credentials.NewTLS(config)))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// every calls each method that a node may call, and Register.
var every = map[string]func(ctx context.Context, cc *grpc.ClientConn) error{
	"Sync": func(ctx context.Context, cc *grpc.ClientConn) error {
		s, err := nodev1.NewSyncServiceClient(cc).Sync(ctx)
		if err == nil {
			_ = s.Send(&nodev1.SyncRequest{Kind: &nodev1.SyncRequest_Hello{Hello: &nodev1.SyncHello{}}})
			_, err = s.Recv()
		}
		return err
	},
	"OpenGrant": func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := nodev1.NewGrantServiceClient(cc).OpenGrant(ctx, &nodev1.OpenGrantRequest{Token: "good", Task: "t"})
		return err
	},
	"OpenHold": func(ctx context.Context, cc *grpc.ClientConn) error {
		s, err := nodev1.NewGrantServiceClient(cc).OpenHold(ctx, &nodev1.OpenHoldRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	},
	"SignIn": func(ctx context.Context, cc *grpc.ClientConn) error {
		s, err := nodev1.NewGrantServiceClient(cc).SignIn(ctx, &nodev1.SignInRequest{Task: "t"})
		if err == nil {
			_, err = s.Recv()
		}
		return err
	},
	"ConsumeHold": func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := nodev1.NewGrantServiceClient(cc).ConsumeHold(ctx, &nodev1.ConsumeHoldRequest{})
		return err
	},
	"RouteCancel": func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := nodev1.NewGrantServiceClient(cc).RouteCancel(ctx, &nodev1.RouteCancelRequest{})
		return err
	},
	"DrawBudget": func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := nodev1.NewGrantServiceClient(cc).DrawBudget(ctx, &nodev1.DrawBudgetRequest{})
		return err
	},
	"Vouch": func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := nodev1.NewGrantServiceClient(cc).Vouch(ctx, &nodev1.VouchRequest{})
		return err
	},
	"PinServer": func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := nodev1.NewGrantServiceClient(cc).PinServer(ctx, &nodev1.PinServerRequest{})
		return err
	},
	"BeginBrowser": func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := nodev1.NewGrantServiceClient(cc).BeginBrowser(ctx, &nodev1.BeginBrowserRequest{})
		return err
	},
	"FinishBrowser": func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := nodev1.NewGrantServiceClient(cc).FinishBrowser(ctx, &nodev1.FinishBrowserRequest{})
		return err
	},
	"EndBrowser": func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := nodev1.NewGrantServiceClient(cc).EndBrowser(ctx, &nodev1.EndBrowserRequest{})
		return err
	},
	"Lease": func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := nodev1.NewCredentialServiceClient(cc).Lease(ctx, &nodev1.LeaseRequest{})
		return err
	},
	"RenewLease": func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := nodev1.NewCredentialServiceClient(cc).RenewLease(ctx, &nodev1.RenewLeaseRequest{})
		return err
	},
	"Release": func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := nodev1.NewCredentialServiceClient(cc).Release(ctx, &nodev1.ReleaseRequest{})
		return err
	},
	"Ship": func(ctx context.Context, cc *grpc.ClientConn) error {
		s, err := nodev1.NewRecordServiceClient(cc).Ship(ctx)
		if err == nil {
			_, err = s.Recv()
		}
		return err
	},
	"Renew": func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := nodev1.NewEnrolServiceClient(cc).Renew(ctx, &nodev1.RenewRequest{})
		return err
	},
}

func TestEveryMethodIsListed(t *testing.T) {
	h := newHouse(t)
	defer h.stop()
	r := h.replica(h.mem)
	registered := 0
	for _, info := range r.server(nil).Methods() {
		registered += len(info.Methods)
	}
	if registered != len(every)+1 {
		t.Errorf("%d methods are registered and %d tested", registered, len(every)+1)
	}
}

func TestWhoMayCall(t *testing.T) {
	h := newHouse(t)
	defer h.stop()
	r := h.replica(h.mem)
	w := newWire(map[string]*replica{"a:1": r})
	h.put(resource("db"))
	stranger := certFor(t, nil, nil, "postern://node/n1")
	listener := listenerCert(t, h)
	for name, tc := range map[string]struct {
		cert *tls.Certificate
		want codes.Code
	}{
		"no certificate":         {nil, codes.Unauthenticated},
		"another CA":             {stranger, codes.Unavailable}, // the handshake fails
		"a listener's":           {listener, codes.Unavailable}, // not for clients
		"a node that is no more": {issued(t, h, "gone"), codes.PermissionDenied},
		"a superseded node":      {superseded(t, h, r, w), codes.PermissionDenied},
		"a locked node":          {locked(t, h, r, w), codes.PermissionDenied},
	} {
		cc := dial(t, h, w, tc.cert)
		for method, call := range every {
			if method == "Renew" && tc.want == codes.PermissionDenied {
				continue // enrol says itself
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
			if err := call(ctx, cc); status.Code(err) != tc.want {
				t.Errorf("%s with %s: %v, want %s", method, name, err, tc.want)
			}
			cancel()
		}
	}
	if len(r.asked) > 0 {
		t.Errorf("a service was reached: %v", r.asked)
	}
	// Register is for anybody, and answers for itself.
	_, err := nodev1.NewEnrolServiceClient(dial(t, h, w, nil)).Register(t.Context(), &nodev1.RegisterRequest{JoinToken: "x"})
	if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "join token") {
		t.Errorf("Register answered %v", err)
	}
}

// issued is a client certificate of the house for a node that is not enrolled.
func issued(t *testing.T, h *house, name string) *tls.Certificate {
	t.Helper()
	key, csr := request(t)
	leaf, err := h.auth.IssueNode(csr, postern.NodeName(name))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

func listenerCert(t *testing.T, h *house) *tls.Certificate {
	t.Helper()
	key, csr := request(t)
	leaf, err := h.auth.IssueListener(csr, "n1", []string{"postern-control"})
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

func request(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

// superseded enrols a node twice, and answers with its first certificate.
func superseded(t *testing.T, h *house, r *replica, w *wire) *tls.Certificate {
	t.Helper()
	first := h.enrolled(r, w, "a:1", "twice", t.TempDir())
	h.enrolled(r, w, "a:1", "twice", t.TempDir())
	cert, _ := first.ClientCertificate(nil)
	return cert
}

func locked(t *testing.T, h *house, r *replica, w *wire) *tls.Certificate {
	t.Helper()
	id := h.enrolled(r, w, "a:1", "locked", t.TempDir())
	h.put(lockOn("l", &typesv1.LockSpec{Node: "locked", Reason: "stolen"}))
	r.await(func(p *policy.Snapshot) bool {
		_, _, ok := p.Locked("", "", "", "", "locked", time.Now())
		return ok
	})
	cert, _ := id.ClientCertificate(nil)
	return cert
}

// TestANodeCannotPassForTheControlPlane has a node that got a certificate with the
// control plane's name, and serves with it.
func TestANodeCannotPassForTheControlPlane(t *testing.T) {
	h := newHouse(t)
	defer h.stop()
	r := h.replica(h.mem)
	cert := listenerCert(t, h)
	cert.Certificate = append(cert.Certificate, h.auth.CA().Raw)
	impostor := &replica{lis: bufconn.Listen(1 << 16)}
	srv := r.server(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil })
	h.group.Go("impostor", func(ctx context.Context) error { return srv.Run(ctx, impostor.lis) })
	w := newWire(map[string]*replica{"a:1": r, "b:1": impostor})
	id := h.enrolled(r, w, "a:1", "n1", t.TempDir())
	n := h.node(id, w, "b:1")
	token, err := r.enrol.CreateJoinToken(t.Context(), "ada", "", &apiv1.CreateJoinTokenRequest{Name: "n2"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = control.Enrol(t.Context(), control.EnrolConfig{
		Addrs: []string{"b:1"}, ServerName: "postern-control", JoinToken: secret.FromString(token.GetToken()), Name: "n2", Dir: t.TempDir(), DialOptions: w.options(),
	})
	if err == nil || !strings.Contains(err.Error(), "not that of the control plane") {
		t.Errorf("enrolled at an impostor: %v", err)
	}
	if n.Connected() || len(r.asked) > 0 {
		t.Error("a node has connected to an impostor")
	}
	if _, err := n.OpenGrant(t.Context(), &nodev1.OpenGrantRequest{Token: "good", Task: "t"}); err == nil || len(r.asked) > 0 {
		t.Errorf("a token was sent to an impostor: %v", err)
	}
}

func TestEnrolTrustsThePinAlone(t *testing.T) {
	h, other := newHouse(t), newHouse(t)
	defer h.stop()
	defer other.stop()
	r, wrong := h.replica(h.mem), other.replica(other.mem)
	w := newWire(map[string]*replica{"a:1": r, "b:1": wrong})
	r.await(func(p *policy.Snapshot) bool { return !p.Version().IsZero() })
	token, err := r.enrol.CreateJoinToken(t.Context(), "ada", "", &apiv1.CreateJoinTokenRequest{Name: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	cfg := control.EnrolConfig{ServerName: "postern-control", JoinToken: secret.FromString(token.GetToken()), Name: "n1", Dir: t.TempDir(), DialOptions: w.options()}
	cfg.Addrs = []string{"b:1"}
	if _, err := control.Enrol(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "the CA that the join token names") {
		t.Errorf("another control plane: %v", err)
	}
	cfg.Addrs, cfg.Name = []string{"a:1"}, "n2"
	if _, err := control.Enrol(t.Context(), cfg); err == nil {
		t.Error("another name was enrolled")
	}
	if _, err := control.LoadIdentity(cfg.Dir); !errors.Is(err, control.ErrNotEnrolled) {
		t.Errorf("after nothing was enrolled: %v", err)
	}
	cfg.Name = "n1"
	id, err := control.Enrol(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := control.Enrol(t.Context(), cfg); err == nil {
		t.Error("a token worked twice")
	}
	again, err := control.LoadIdentity(cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if again.Name() != "n1" || !slices.Equal(again.HPKEKey().PublicKey(), id.HPKEKey().PublicKey()) {
		t.Errorf("read back %q", again.Name())
	}
}
