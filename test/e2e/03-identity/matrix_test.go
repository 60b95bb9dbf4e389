package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/posterngate/postern/dataplane/control"
	"github.com/posterngate/postern/deploy/dev/idp"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

// proof is what somebody shows: a token, or a client certificate.
type proof struct {
	name  string
	token string
	cert  *tls.Certificate
	ssh   ssh.Signer // with a certificate
	task  string     // at the listener; sales-report where empty
	works string     // the surfaces at which it does, or empty
	says  string     // what the listener says of it, where it does not work there
}

// show sends the certificate to who asks for one, whatever they name as good, as libpq
// does and an attacker would.
func (p proof) show(c *tls.Config) {
	if p.cert != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return p.cert, nil }
	}
}

// sign makes an ID token of the house's issuer as its provider would.
func sign(t *testing.T, h *house.House, key *ecdsa.PrivateKey, change map[string]any) string {
	t.Helper()
	der := house.Must(x509.MarshalPKIXPublicKey(&key.PublicKey))(t)
	sum := sha256.Sum256(der)
	signer := house.Must(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key},
		(&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", fmt.Sprintf("%x", sum[:8]))))(t)
	claims := map[string]any{
		"iss": h.Issuer, "sub": "alice", "email": "alice@sample.example", "groups": []string{"analysts", "admins"},
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	maps.Copy(claims, change)
	return house.Must(jwt.Signed(signer).Claims(claims).Serialize())(t)
}

// part is one part of a JWT.
func part(t *testing.T, v any) string {
	t.Helper()
	return base64.RawURLEncoding.EncodeToString(house.Must(json.Marshal(v))(t))
}

// issuerKey is the key with which the house's issuer signs.
func issuerKey(t *testing.T, h *house.House) *ecdsa.PrivateKey {
	t.Helper()
	block, _ := pem.Decode(house.Must(os.ReadFile(filepath.Join(h.Dir, "idp.key")))(t))
	return house.Must(x509.ParseECPrivateKey(block.Bytes))(t)
}

// forged is a copy of a certificate by a CA that has the name of the real one.
func forged(t *testing.T, real *x509.Certificate) *tls.Certificate {
	t.Helper()
	key := house.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	ca := &x509.Certificate{SerialNumber: real.SerialNumber, RawSubject: real.RawIssuer, IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	leaf := &x509.Certificate{SerialNumber: real.SerialNumber, RawSubject: real.RawSubject, URIs: real.URIs, ExtKeyUsage: real.ExtKeyUsage, NotBefore: real.NotBefore, NotAfter: real.NotAfter}
	der := house.Must(x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key))(t)
	root := house.Must(x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key))(t)
	return &tls.Certificate{Certificate: [][]byte{der, root}, PrivateKey: key}
}

// selfSigned is a copy of a certificate that nobody has signed.
func selfSigned(t *testing.T, real *x509.Certificate) *tls.Certificate {
	t.Helper()
	key := house.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	leaf := &x509.Certificate{SerialNumber: real.SerialNumber, RawSubject: real.RawSubject, URIs: real.URIs, ExtKeyUsage: real.ExtKeyUsage, NotBefore: real.NotBefore, NotAfter: real.NotAfter}
	return &tls.Certificate{Certificate: [][]byte{house.Must(x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key))(t)}, PrivateKey: key}
}

// proofs are of every kind, good and bad.
func proofs(t *testing.T, h *house.House) []proof {
	t.Helper()
	id := house.Must(control.LoadIdentity(filepath.Join(h.Nodes[0].Dir, "identity")))(t)
	node := house.Must(id.ClientCertificate(nil))(t)
	server := house.Must(id.ServerCertificate(nil))(t)
	grant := house.Must(h.API("alice").Grants.CreateGrant(t.Context(), house.Request(&apiv1.CreateGrantRequest{Task: "sales-report"})))(t)
	client := h.ClientCert(t, "alice", "sales-report", 0)
	dead := h.ClientCert(t, "alice", "sales-report", time.Second)
	house.Eventually(t, func() string { return "the short certificate ends" }, func() bool { return time.Now().After(dead.Leaf.NotAfter.Add(time.Second)) })
	purge := house.Must(h.API("alice").Grants.CreateGrant(t.Context(), house.Request(&apiv1.CreateGrantRequest{Task: "purge-order"})))(t)
	status := house.Must(h.API("alice").Grants.CreateGrant(t.Context(), house.Request(&apiv1.CreateGrantRequest{Task: "web-status"})))(t)
	certified := sshCert(t, h, "web-status")
	real := issuerKey(t, h)
	stranger := house.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	none := func(aud string) string {
		return part(t, map[string]any{"alg": "none", "typ": "JWT"}) + "." + part(t, map[string]any{
			"iss": h.Issuer, "sub": "alice", "groups": []string{"analysts"}, "aud": aud, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		}) + "."
	}
	all := []proof{
		{name: "API token", token: h.APIToken(t, "alice"), works: "API"},
		{name: "data token", token: h.DataToken(t, "alice"), works: "listener, SSH"},
		{name: "grant token", token: grant.Msg.GetToken(), works: "listener"},
		{name: "grant token for SSH", token: status.Msg.GetToken(), works: "SSH"},
		{name: "SSH grant certificate", ssh: certified, works: "SSH"},
		{name: "SSH grant certificate for another task", ssh: certified, task: "web-deploy"},
		{name: "SSH grant certificate for the other protocol's task", ssh: sshCert(t, h, "sales-report")},
		{name: "SSH grant certificate of a CA that says it is ours", ssh: sshForged(t, certified)},
		{name: "node's SSH host certificate", ssh: id.SSHHostKeys()[0]},
		{name: "node's SSH host key", ssh: id.SSHHostKeys()[1]},
		{name: "workload token", token: h.DataToken(t, "nightly"), task: "nightly-load", works: "listener"},
		{name: "node certificate", cert: node, works: "node", says: "certificate of a node"},
		{name: "node's server certificate", cert: server, says: "certificate of a node"},
		{name: "grant certificate", cert: client, works: "listener"},
		{name: "grant certificate for another task", cert: client, task: "purge-order", says: "for task \"sales-report\", not for \"purge-order\""},
		{name: "grant certificate that has ended", cert: dead, says: "ended at"},
		{name: "grant certificate, and another task's token that nobody asks for", cert: client, token: purge.Msg.GetToken(), works: "listener"},
		{name: "grant certificate, and the token of the task that is asked for", cert: client, token: purge.Msg.GetToken(), task: "purge-order", says: "not for \"purge-order\""},
		{name: "grant certificate of a CA that says it is ours", cert: forged(t, client.Leaf), says: "not issued here"},
		{name: "grant certificate of itself", cert: selfSigned(t, client.Leaf), says: "not issued here"},
		{name: "nothing"},
		{name: "nonsense", token: "nonsense"},
		{name: "a password", token: "alice"},
		{name: "grant token that was never made", token: grant.Msg.GetToken()[:len(grant.Msg.GetToken())-4] + "AAAA"},
		{name: "workload's token for a person's task", token: h.DataToken(t, "nightly")},
		{name: "the pages' client's token", token: sign(t, h, real, map[string]any{"aud": idp.WebClient})},
		{name: "another client's token", token: house.Must(idp.SignIn(t.Context(), h.Issuer, idp.SharedClient, "alice"))(t)},
	}
	for _, aud := range []string{idp.APIClient, idp.DataClient} {
		// The forge is good: the same token, without what is wrong, works.
		works := map[string]string{idp.APIClient: "API", idp.DataClient: "listener, SSH"}[aud]
		all = append(all,
			proof{name: "as signed by the issuer for " + aud, token: sign(t, h, real, map[string]any{"aud": aud}), works: works},
			proof{name: "expired for " + aud, token: sign(t, h, real, map[string]any{"aud": aud, "iat": time.Now().Add(-3 * time.Hour).Unix(), "exp": time.Now().Add(-2 * time.Hour).Unix()})},
			proof{name: "not yet valid for " + aud, token: sign(t, h, real, map[string]any{"aud": aud, "nbf": time.Now().Add(time.Hour).Unix()})},
			proof{name: "without an end for " + aud, token: sign(t, h, real, map[string]any{"aud": aud, "exp": nil})},
			proof{name: "another issuer for " + aud, token: sign(t, h, real, map[string]any{"aud": aud, "iss": "https://evil.example"})},
			proof{name: "another key for " + aud, token: sign(t, h, stranger, map[string]any{"aud": aud})},
			proof{name: "alg none for " + aud, token: none(aud)},
		)
	}
	return append(all,
		proof{name: "for both audiences", token: sign(t, h, real, map[string]any{"aud": []string{idp.APIClient, idp.DataClient}, "azp": idp.APIClient})},
		proof{name: "without an audience", token: sign(t, h, real, nil)},
	)
}

// TestTokenBySurface: what is good at one surface is good at no other, and what is bad
// is good nowhere (CVE-2024-47616).
func TestTokenBySurface(t *testing.T) {
	h := house.Start(t, house.Options{SSH: true})
	surfaces := map[string]func(context.Context, *house.House, proof) error{"API": atAPI, "listener": atListener, "SSH": atSSH, "node": atNodes}
	worked := map[string]int{}
	for _, p := range proofs(t, h) {
		for name, try := range surfaces {
			ctx, cancel := context.WithTimeout(t.Context(), house.Patience)
			err := try(ctx, h, p)
			cancel()
			if err == nil {
				worked[name]++
			}
			if (err == nil) != slices.Contains(strings.Split(p.works, ", "), name) || err != nil && strings.HasPrefix(err.Error(), "not as it should be") {
				t.Errorf("%s at %s: %v, and it should work at %q alone", p.name, name, err, p.works)
			}
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s at %s was not answered", p.name, name)
			}
		}
	}
	if len(worked) != len(surfaces) {
		t.Errorf("at some surface nothing works: %v", worked)
	}
	t.Run("the CAs of certificates are replaced", func(t *testing.T) { rotated(t, h) })
}

func atAPI(ctx context.Context, h *house.House, p proof) error {
	c := h.TLS()
	p.show(c)
	tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	req := house.Request(&apiv1.WhoAmIRequest{})
	if p.token != "" {
		req.Header().Set("Authorization", "Bearer "+p.token)
	}
	resp, err := apiv1connect.NewAccessServiceClient(&http.Client{Transport: tr}, h.Addr).WhoAmI(ctx, req)
	switch {
	case err == nil && resp.Msg.GetSubject().GetName() != "alice":
		return fmt.Errorf("it is %v's", resp.Msg.GetSubject())
	case err != nil && connect.CodeOf(err) != connect.CodeUnauthenticated:
		return fmt.Errorf("not as it should be: %w", err)
	}
	return err
}

func atListener(ctx context.Context, h *house.House, p proof) error {
	task := p.task
	if task == "" {
		task = "sales-report"
	}
	cfg, err := pgx.ParseConfig(h.Conninfo(h.Nodes[0], task))
	if err != nil {
		return err
	}
	cfg.Password = p.token
	p.show(cfg.TLSConfig)
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if s := house.State(err); err != nil && s != "28P01" && s != "28000" {
		return fmt.Errorf("not as it should be: %w", err)
	}
	if err != nil {
		if !strings.Contains(err.Error(), p.says) {
			return fmt.Errorf("not as it should be: %w does not say %q", err, p.says)
		}
		return err
	}
	defer conn.Close(ctx)
	return conn.Ping(ctx)
}

func atNodes(ctx context.Context, h *house.House, p proof) error {
	c := h.TLS()
	p.show(c)
	conn, err := grpc.NewClient(h.NodesAddr, grpc.WithTransportCredentials(credentials.NewTLS(c)))
	if err != nil {
		return err
	}
	defer conn.Close()
	if p.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+p.token)
	}
	_, err = nodev1.NewGrantServiceClient(conn).RouteCancel(ctx, &nodev1.RouteCancelRequest{})
	if c := status.Code(err); err != nil && c != codes.Unauthenticated && c != codes.PermissionDenied && c != codes.Unavailable {
		return fmt.Errorf("not as it should be: %w", err)
	}
	return err
}
