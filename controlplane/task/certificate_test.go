package task

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/grantcert"
	"github.com/posterngate/postern/pkg/postern"
)

func request(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// certify takes a task for a certificate instead of a token.
func (w *world) certify(by, task string) (*typesv1.Grant, []byte) {
	w.t.Helper()
	r, err := w.Create(w.t.Context(), w.caller(by), &apiv1.CreateGrantRequest{Task: task, Ttl: durationpb.New(10 * time.Minute), Csr: request(w.t)})
	if err != nil {
		w.t.Fatal(err)
	}
	block, rest := pem.Decode(r.GetCertificate())
	if block == nil || len(rest) > 0 || r.GetToken() != "" || len(r.GetGrant().GetCertificateHash()) > 0 {
		w.t.Fatalf("answer %v", r)
	}
	return r.GetGrant(), block.Bytes
}

func (w *world) show(der []byte, task string) (*typesv1.Grant, error) {
	signed, err := w.Open(w.t.Context(), &nodev1.OpenGrantRequest{ClientCertificate: der, Task: task}, "n1")
	if err != nil {
		return nil, err
	}
	g := &typesv1.Grant{}
	return g, proto.Unmarshal(signed.GetGrant(), g)
}

func TestCertificateOpensItsGrant(t *testing.T) {
	w := newWorld(t)
	want, der := w.certify("alice", "sales-report")
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if end := want.GetEndTime().AsTime(); c.NotAfter.After(end) || end.Sub(c.NotAfter) > time.Second {
		t.Errorf("the certificate ends at %s, the grant at %s", c.NotAfter, end)
	}
	for range 2 {
		if g, err := w.show(der, "sales-report"); err != nil || g.GetId() != want.GetId() || g.GetSubject().GetName() != "alice" {
			t.Errorf("%v, %v", g, err)
		}
	}
	_, err = w.show(der, "nightly-load")
	no(t, err, "no-grant", `this client certificate is for task "sales-report", not for "nightly-load"`)
	// As for a token, what may be done is the grant's, and a lock is a no.
	w.apply(`{kind: Lock, metadata: {name: out}, spec: {subject: alice, reason: gone}}`)
	_, err = w.show(der, "sales-report")
	no(t, err, "bad-token", "gone")
}

// TestCertificateIsOnFile: that the CA has signed it is not enough.
func TestCertificateIsOnFile(t *testing.T) {
	w := newWorld(t)
	g, der := w.certify("alice", "sales-report")
	end := time.Now().Add(time.Hour)
	for what, name := range map[string]grantcert.Name{
		"another for the grant": {Grant: postern.GrantID(g.GetId()), Task: "sales-report", Subject: "alice"},
		"another's grant":       {Grant: postern.GrantID(g.GetId()), Task: "sales-report", Subject: "bob"},
		"no such grant":         {Grant: "g-aaaaaaaaaaaaaaaa", Task: "sales-report", Subject: "alice"},
		"no grant's id":         {Grant: "../key/ca", Task: "sales-report", Subject: "alice"},
	} {
		forged, err := w.certs.IssueGrant(request(t), name, end)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.show(forged.Raw, "sales-report")
		no(t, err, "bad-token", "not known")
		if t.Failed() {
			t.Fatal(what)
		}
	}
	// A grant that was opened by a token has no certificate, and the reverse.
	byToken := w.mustOpen("alice", "sales-report")
	forged, err := w.certs.IssueGrant(request(t), grantcert.Name{Grant: postern.GrantID(byToken.GetId()), Task: "sales-report", Subject: "alice"}, end)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.show(forged.Raw, "sales-report")
	no(t, err, "bad-token", "not known")
	token, err := newToken(g.GetId())
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.open(token, "sales-report")
	no(t, err, "bad-token", "not known")
	if _, err := w.show(der, "sales-report"); err != nil {
		t.Errorf("the real one: %v", err)
	}
}

func TestCertificateEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		g, der := w.certify("alice", "sales-report")
		if _, _, err := w.Revoke(t.Context(), w.caller("alice"), g.GetId(), "done"); err != nil {
			t.Fatal(err)
		}
		_, err := w.show(der, "sales-report")
		no(t, err, "bad-token", "the grant of this client certificate is over: revoked by alice: done")
		_, der = w.certify("alice", "sales-report")
		time.Sleep(10*time.Minute + time.Second)
		_, err = w.show(der, "sales-report")
		no(t, err, "bad-token", "ended at")
	})
}

// TestOneBearerAtATime: a task that people said yes to has one grant, and what it was
// handed out as before is dead.
func TestOneBearerAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		r, err := w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: "new column"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.holds.Review(t.Context(), w.reviewer(), r.GetHold().GetId(), true, "", nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		_, first := w.certify("alice", "schema-change")
		_, second := w.certify("alice", "schema-change")
		_, err = w.show(first, "schema-change")
		no(t, err, "bad-token", "not known")
		if _, err := w.show(second, "schema-change"); err != nil {
			t.Error(err)
		}
		c, err := w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "schema-change"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.show(second, "schema-change")
		no(t, err, "bad-token", "not known")
		if _, err := w.open(c.GetToken(), "schema-change"); err != nil {
			t.Error(err)
		}
	})
}

func TestBadRequestMakesNoGrant(t *testing.T) {
	w := newWorld(t)
	for _, csr := range [][]byte{{1}, make([]byte, 64<<10)} {
		_, err := w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "sales-report", Csr: csr})
		if fault.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "csr: ") {
			t.Errorf("error %v", err)
		}
	}
	if n := len(w.keys(Kind)); n != 0 {
		t.Errorf("%d grants", n)
	}
}

// TestSSHCertificate: a grant's SSH certificate opens it, as what it is, and only the one
// that is on file.
func TestSSHCertificate(t *testing.T) {
	w := newWorld(t)
	newKey := func() string {
		key, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed([]byte(rand.Text() + "......")).Public())
		if err != nil {
			t.Fatal(err)
		}
		return string(ssh.MarshalAuthorizedKey(key))
	}
	r, err := w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "sales-report", SshKey: newKey()})
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(r.GetSshCertificate()))
	if err != nil || r.GetToken() != "" || len(r.GetCertificate()) > 0 || !strings.HasPrefix(r.GetSshHostCa(), "ssh-ed25519 ") {
		t.Fatalf("%v: %v", r, err)
	}
	cert := key.(*ssh.Certificate)
	if !slices.Equal(cert.ValidPrincipals, []string{"sales-report", "sales-report.warehouse"}) || cert.KeyId != r.GetGrant().GetId() || int64(cert.ValidBefore) != r.GetGrant().GetEndTime().GetSeconds() {
		t.Errorf("certificate %+v", cert)
	}
	show := func(req *nodev1.OpenGrantRequest) error {
		req.Task = "sales-report"
		_, err := w.Open(t.Context(), req, "n1")
		return err
	}
	if err := show(&nodev1.OpenGrantRequest{SshCertificate: cert.Marshal()}); err != nil {
		t.Error(err)
	}
	no(t, show(&nodev1.OpenGrantRequest{SshCertificate: cert.Marshal(), Token: "x"}), "bad-token", "at once")
	no(t, show(&nodev1.OpenGrantRequest{ClientCertificate: cert.Marshal()}), "bad-token", "cannot be read")
	another, err := w.certs.IssueSSHGrant(newKey(), grantcert.Name{Grant: postern.GrantID(cert.KeyId), Task: "sales-report"}, cert.ValidPrincipals, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	no(t, show(&nodev1.OpenGrantRequest{SshCertificate: another.Marshal()}), "bad-token", "not known")
	for _, bad := range []*apiv1.CreateGrantRequest{{SshKey: "x"}, {SshKey: newKey(), Csr: request(t)}} {
		bad.Task = "sales-report"
		if _, err := w.Create(t.Context(), w.caller("alice"), bad); fault.CodeOf(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "ssh_key: ") {
			t.Errorf("%v", err)
		}
	}
	if _, _, err := w.Revoke(t.Context(), w.caller("alice"), cert.KeyId, "done"); err != nil {
		t.Fatal(err)
	}
	no(t, show(&nodev1.OpenGrantRequest{SshCertificate: cert.Marshal()}), "bad-token", "is over: revoked by alice: done")
}
