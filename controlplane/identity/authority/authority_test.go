package authority_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	pname "github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// xorKeeper is no secret, but tells whether aad and key are those that it sealed with.
type xorKeeper byte

func (k xorKeeper) Seal(_ context.Context, plain, aad []byte) ([]byte, error) {
	out := append(sum(aad), plain...)
	for i := range out {
		out[i] ^= byte(k)
	}
	return out, nil
}

func (k xorKeeper) Open(_ context.Context, sealed, aad []byte) ([]byte, error) {
	out := slices.Clone(sealed)
	for i := range out {
		out[i] ^= byte(k)
	}
	if len(out) < 32 || !slices.Equal(out[:32], sum(aad)) {
		return nil, errors.New("not sealed here")
	}
	return out[32:], nil
}

func sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

func config(s store.Store) authority.Config {
	return authority.Config{Store: s, Keeper: xorKeeper(0x5a), Audit: audit.New(s, time.Now), Logger: slog.New(slog.DiscardHandler)}
}

func open(t *testing.T, s store.Store) *authority.Authority {
	t.Helper()
	a, err := authority.Open(t.Context(), config(s))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func csr(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "postern-control"}, DNSNames: []string{"control.example"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func ecKey(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestReplicasAgreeOnOneCA(t *testing.T) {
	s := storetest.NewMemory()
	all := make([]*authority.Authority, 4)
	g := run.New(t.Context())
	for i := range all {
		g.Go("open", func(ctx context.Context) (err error) {
			all[i], err = authority.Open(ctx, config(s))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, a := range all[1:] {
		if a.Pin() != all[0].Pin() {
			t.Error("two replicas have two CAs")
		}
	}
	if got := open(t, s).Pin(); got != all[0].Pin() {
		t.Error("a restart made another CA")
	}
}

func TestAnotherKeeperOpensNothing(t *testing.T) {
	s := storetest.NewMemory()
	open(t, s)
	cfg := config(s)
	cfg.Keeper = xorKeeper(0x17)
	if _, err := authority.Open(t.Context(), cfg); err == nil {
		t.Error("keys were opened with another keeper")
	}
}

func TestKeysAreSealedToTheirNames(t *testing.T) {
	s := storetest.NewMemory()
	open(t, s)
	keys, _, err := s.List(t.Context(), authority.Kind, "", 0)
	if err != nil || len(keys) != 6 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	for i, k := range keys { // each in another's place: the CAs and a grant key
		s.Tamper(k.Key, keys[(i+1)%len(keys)].Value)
		if _, err := authority.Open(t.Context(), config(s)); err == nil {
			t.Errorf("a key was opened under the name %s", k.Name)
		}
		s.Tamper(k.Key, k.Value)
	}
}

func TestServerCertificateLeadsToThePin(t *testing.T) {
	a := open(t, storetest.NewMemory())
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: a.Server("control.example", "127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	g := run.New(t.Context())
	g.Go("serve", func(context.Context) error {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		return c.(*tls.Conn).Handshake()
	})
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.Bundle()) {
		t.Fatal("the bundle is no PEM")
	}
	c, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	peers := c.ConnectionState().PeerCertificates
	_ = c.Close()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	last := sha256.Sum256(peers[len(peers)-1].Raw)
	if hex.EncodeToString(last[:]) != a.Pin() {
		t.Error("the chain does not end with the pinned CA")
	}
	if err := peers[0].VerifyHostname("control.example"); err != nil {
		t.Error(err)
	}
	if len(peers[0].URIs) != 1 || peers[0].URIs[0].String() != "postern://control" {
		t.Errorf("URI names %v", peers[0].URIs)
	}
	if _, err := a.NodeFromCert(peers[0]); err == nil {
		t.Error("the control plane's certificate passed for a node's")
	}
}

func TestServerCertificateIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		get := open(t, storetest.NewMemory()).Server("control.example")
		first, err := get(nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(14 * 24 * time.Hour)
		if again, _ := get(nil); again != first {
			t.Error("renewed before half of its life")
		}
		time.Sleep(2 * 24 * time.Hour)
		if again, _ := get(nil); again == first {
			t.Error("not renewed after half of its life")
		}
	})
}

func TestNodeCertificate(t *testing.T) {
	a := open(t, storetest.NewMemory())
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{ecKey(t, elliptic.P256()), ed} {
		c, err := a.IssueNode(csr(t, key), "n1")
		if err != nil {
			t.Fatal(err)
		}
		if name, err := a.NodeFromCert(c); err != nil || name != "n1" {
			t.Errorf("node %q, %v", name, err)
		}
		if len(c.DNSNames) != 0 || c.Subject.CommonName != "n1" {
			t.Errorf("the request's own names were taken: %v", c.Subject)
		}
		if life := c.NotAfter.Sub(c.NotBefore); life > 25*time.Hour {
			t.Errorf("lives for %s", life)
		}
		l, err := a.IssueListener(csr(t, key), "n1", []string{"n1.example", "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.VerifyHostname("127.0.0.1"); err != nil {
			t.Error(err)
		}
		if _, err := a.NodeFromCert(l); err == nil {
			t.Error("a listener's certificate passed for a client's")
		}
	}
}

func TestWeakRequestsAreRefused(t *testing.T) {
	a := open(t, storetest.NewMemory())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := csr(t, ecKey(t, elliptic.P256()))
	forged := slices.Clone(good)
	forged[len(forged)-3] ^= 1 // within the signature
	for name, der := range map[string][]byte{
		"RSA": csr(t, rsaKey), "P-384": csr(t, ecKey(t, elliptic.P384())), "signed by another": forged,
		"empty": nil, "garbage": []byte("hello"), "endless": make([]byte, 1<<20),
	} {
		if _, err := a.IssueNode(der, "n1"); err == nil {
			t.Errorf("%s: certified", name)
		}
	}
	for _, name := range []string{"", "UPPER", "a/b", "a--b", "../n1"} {
		if _, err := a.IssueNode(good, "n1"); err != nil {
			t.Fatal(err)
		}
		if _, err := a.IssueNode(good, pname.NodeName(name)); err == nil {
			t.Errorf("node %q: certified", name)
		}
	}
	for _, host := range []string{"*.example", "a b", "", "-a.example", "n1..example"} {
		if _, err := a.IssueListener(good, "n1", []string{host}); err == nil {
			t.Errorf("host %q: certified", host)
		}
	}
}

// TestForeignCertificates holds NodeFromCert against certificates that say the right
// name and are not ours, or ours and not a node's.
func TestForeignCertificates(t *testing.T) {
	a, other := open(t, storetest.NewMemory()), open(t, storetest.NewMemory())
	key := ecKey(t, elliptic.P256())
	foreign, err := other.IssueNode(csr(t, key), "n1")
	if err != nil {
		t.Fatal(err)
	}
	own := selfSigned(t, key, "postern://node/n1")
	for name, c := range map[string]*x509.Certificate{"nil": nil, "another CA": foreign, "self-signed": own, "the CA": a.CA()} {
		if got, err := a.NodeFromCert(c); err == nil {
			t.Errorf("%s: node %q", name, got)
		}
	}
}

func TestExpiredNodeCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, storetest.NewMemory())
		c, err := a.IssueNode(csr(t, ecKey(t, elliptic.P256())), "n1")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(25 * time.Hour)
		if _, err := a.NodeFromCert(c); err == nil {
			t.Error("an expired certificate passed")
		}
	})
}

func selfSigned(t *testing.T, key crypto.Signer, uri string) *x509.Certificate {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func verify(a *authority.Authority, s *typesv1.SignedGrant) bool {
	key := a.GrantKeys()[s.GetKeyId()]
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, append([]byte("postern/grant/v1"), s.GetGrant()...), s.GetSignature())
}

func TestGrantsAreSigned(t *testing.T) {
	a := open(t, storetest.NewMemory())
	g := &typesv1.Grant{Id: "g-1", Task: "sales-report", TokenHash: []byte("hash")}
	s, err := a.SignGrant(g)
	if err != nil {
		t.Fatal(err)
	}
	if !verify(a, s) {
		t.Error("the signature does not verify")
	}
	back := &typesv1.Grant{}
	if err := proto.Unmarshal(s.GetGrant(), back); err != nil {
		t.Fatal(err)
	}
	if back.GetTask() != "sales-report" || len(back.GetTokenHash()) != 0 || len(g.GetTokenHash()) == 0 {
		t.Errorf("signed %v", back)
	}
	s.Grant[0] ^= 1
	if verify(a, s) {
		t.Error("a changed grant verifies")
	}
}

func TestListsAreSigned(t *testing.T) {
	a := open(t, storetest.NewMemory())
	sig, err := a.SignList([]byte("list"))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("postern/endpoints/v1list"))
	if !ecdsa.VerifyASN1(a.CA().PublicKey.(*ecdsa.PublicKey), digest[:], sig) {
		t.Error("the signature does not verify")
	}
}

// TestGrantKeysRotate lives through two years of daily restarts: there is always a key
// that signs, it was known before it did, and old ones are forgotten.
func TestGrantKeysRotate(t *testing.T) {
	s := storetest.NewMemory()
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	known, signers := map[string]bool{}, map[string]bool{}
	for day := range 730 {
		cfg := config(s)
		cfg.Now = func() time.Time { return now }
		a, err := authority.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := a.SignGrant(&typesv1.Grant{Id: "g-1"})
		if err != nil || !verify(a, signed) {
			t.Fatalf("day %d: %v", day, err)
		}
		if !known[signed.GetKeyId()] && day > 0 {
			t.Fatalf("day %d: a key signs the moment it is made", day)
		}
		signers[signed.GetKeyId()] = true
		for id := range a.GrantKeys() {
			known[id] = true
		}
		if n := len(a.GrantKeys()); n > 3 {
			t.Fatalf("day %d: %d keys are trusted", day, n)
		}
		now = now.Add(24 * time.Hour)
	}
	if len(signers) < 8 || len(signers) > 9 {
		t.Errorf("%d keys signed in two years", len(signers))
	}
}

// TestReplicasFollowKeys has one replica make a key while the other runs.
func TestReplicasFollowKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.NewMemory()
		a := open(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("run", a.Run)
		synctest.Wait()
		cfg := config(s)
		cfg.Now = func() time.Time { return time.Now().Add(100 * 24 * time.Hour) }
		other, err := authority.Open(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(other.GrantKeys()) != 2 || len(a.GrantKeys()) != 2 {
			t.Errorf("%d and %d keys", len(other.GrantKeys()), len(a.GrantKeys()))
		}
		cancel()
		_ = g.Wait()
	})
}

func FuzzParseCSR(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add([]byte{})
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := authority.ParseCSR(der)
		if (key == nil) != (err != nil) {
			t.Errorf("key %v, error %v", key, err)
		}
	})
}
