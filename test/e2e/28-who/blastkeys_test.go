package who

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/posterngate/postern/dataplane/spool"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/e2e/house"
)

// uplink ships with the stolen certificate.
type uplink struct{ records nodev1.RecordServiceClient }

func (u uplink) Stream(ctx context.Context, next func(context.Context) (spool.Chunk, error), acked func(string, uint32), rejected func(string, uint32, string)) error {
	g := run.New(ctx)
	conn, err := u.records.Ship(g.Context())
	if err != nil {
		g.Stop()
		return err
	}
	g.Go("send", func(ctx context.Context) error {
		for {
			c, err := next(ctx)
			if err != nil {
				return err
			}
			if err := conn.Send(&nodev1.ShipRequest{Session: c.Session, Index: c.Index, Chunk: c.Data}); err != nil {
				return err
			}
		}
	})
	g.Go("receive", func(context.Context) error {
		for {
			r, err := conn.Recv()
			switch {
			case err != nil:
				return err
			case r.GetReject() != "":
				rejected(r.GetSession(), r.GetRejectedIndex(), r.GetReject())
			default:
				acked(r.GetSession(), r.GetNextIndex())
			}
		}
	})
	return g.Wait()
}

// record makes up a session in the node's name, as is listed, and one in another's, which
// is not.
func (s *thief) record(t *testing.T, other string) {
	opened := house.Must(nodev1.NewGrantServiceClient(s.conn).OpenGrant(t.Context(), &nodev1.OpenGrantRequest{Token: s.DataToken(t, "alice"), Task: "sales-report", Resource: "warehouse"}))(t)
	cert := house.Must(s.id.ClientCertificate(nil))(t)
	sp, _, err := spool.Open(spool.Config{
		Dir: t.TempDir(), Node: s.id.Name(), Key: cert.PrivateKey.(crypto.Signer), Uplink: uplink{nodev1.NewRecordServiceClient(s.conn)},
		RecordingKey: opened.GetRecordingKey, MaxBytes: 16 << 20, SegmentBytes: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	g := run.New(t.Context())
	g.Go("spool", sp.Run)
	t.Cleanup(func() { g.Stop(); _ = g.Wait(); _ = sp.Close() })
	for id, node := range map[string]string{"s-00000000000000000000f001": string(s.id.Name()), "s-00000000000000000000f002": other} {
		rec, err := sp.Session(record.Session{ID: postern.SessionID(id), Subject: "bob", Grant: "g-forged", Task: "sales-report", Resource: "warehouse", Protocol: postern.Postgres, Node: postern.NodeName(node)})
		if err != nil {
			t.Fatal(err)
		}
		if err := rec.Close("made up"); err != nil {
			t.Fatal(err)
		}
	}
	house.Eventually(t, func() string { return "what was made up in the node's name is listed" }, func() bool {
		return s.CLI(t, "ada", "sessions", "show", "s-00000000000000000000f001").Code == 0
	})
	const made = "s-00000000000000000000f001"
	if out := s.CLI(t, "ada", "sessions", "show", made).Out; !strings.Contains(out, "bob (?)") || !strings.Contains(out, `no grant "g-forged" is known`) {
		t.Errorf("what was made up in bob's name is shown without a doubt:\n%s", out)
	}
	for _, ask := range [][]string{{"usage", "bob"}, {"audit", "who", "warehouse", "--subject", "bob"}} {
		if out := s.CLI(t, "ada", ask...).Out; !strings.Contains(out, "bob (?)") {
			t.Errorf("%v tells what was made up in bob's name without a doubt:\n%s", ask, out)
		}
	}
	if r := s.CLI(t, "ada", "sessions", "verify", made); r.Code == 0 || !strings.Contains(r.Err, "whose session it is cannot be believed") {
		t.Errorf("what was made up in bob's name is verified: %d\n%s%s", r.Code, r.Out, r.Err)
	}
	if out := s.CLI(t, "ada", "audit", "log", "--object", "session/"+made, "--format", "json").Out; !strings.Contains(out, "session.alert") || !strings.Contains(out, `no grant`) {
		t.Errorf("the audit log does not tell of it:\n%s", out)
	}
	if r := s.CLI(t, "ada", "sessions", "show", "s-00000000000000000000f002"); r.Code == 0 {
		t.Errorf("made up in another node's name: %s", r.Out)
	}
}

// renew gets the next certificate with the stolen one, as is listed: the thief goes on with
// that, and who has the one before, as the node itself, is refused and told of.
func (s *thief) renew(t *testing.T) {
	ask := func() (*ecdsa.PrivateKey, *nodev1.RenewResponse, error) {
		key := house.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
		csr := house.Must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))(t)
		resp, err := nodev1.NewEnrolServiceClient(s.conn).Renew(t.Context(), &nodev1.RenewRequest{Csr: csr, HpkeKey: s.id.HPKEKey().PublicKey()})
		return key, resp, err
	}
	key, resp, err := ask()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ask(); err == nil || !strings.Contains(err.Error(), "its key was copied") {
		t.Errorf("renewed twice: %v", err)
	}
	der, _ := pem.Decode(resp.GetCertificate())
	cfg := s.TLS()
	cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{der.Bytes}, PrivateKey: key}}
	conn := house.Must(grpc.NewClient(s.NodesAddr, grpc.WithTransportCredentials(credentials.NewTLS(cfg))))(t)
	t.Cleanup(func() { _ = conn.Close() })
	catalog := &nodev1.LeaseRequest{Session: "thief-renewed", Resource: "warehouse", Purpose: "catalog"}
	if _, _, err := s.borrow(t.Context(), catalog); err == nil || !strings.Contains(err.Error(), "newer certificate") {
		t.Errorf("with the superseded certificate: %v", err)
	}
	s.conn, s.lender = conn, nodev1.NewCredentialServiceClient(conn)
	if _, _, err := s.borrow(t.Context(), catalog); err != nil {
		t.Errorf("with the next certificate: %v", err)
	}
	house.Eventually(t, func() string { return "the audit log tells of the superseded certificate" }, func() bool {
		return strings.Contains(s.CLI(t, "ada", "audit", "log", "--format", "json").Out, "refused: superseded certificate")
	})
}
