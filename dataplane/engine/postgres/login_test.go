package postgres

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/test/servers"
)

// TestScramVectors is the exchange of RFC 7677, section 3.
func TestScramVectors(t *testing.T) {
	keys := newKeyCache()
	s := &scram{header: "n,,", nonce: "rOprNGfwEbeRWgbNEkqO"}
	s.first()
	s.bare = "n=user,r=rOprNGfwEbeRWgbNEkqO"
	final, err := s.final([]byte("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"), []byte("pencil"), keys)
	if err != nil {
		t.Fatal(err)
	}
	const want = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	if string(final) != want {
		t.Fatalf("got  %s\nwant %s", final, want)
	}
	if err := s.verify([]byte("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"v=", "e=invalid-proof", "v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", ""} {
		if s.verify([]byte(bad)) == nil {
			t.Errorf("believed the server's %q", bad)
		}
	}
	for _, bad := range []string{"", "r=x,s=W22Z,i=1", "r=rOprNGfwEbeRWgbNEkqO,s=W22Z,i=1", "r=rOprNGfwEbeRWgbNEkqOx,s=,i=1", "r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=0", "r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=99999999"} {
		if _, err := s.final([]byte(bad), []byte("pencil"), keys); err == nil {
			t.Errorf("took the challenge %q", bad)
		}
	}
}

func TestBackendLogins(t *testing.T) {
	start(t)
	pg := servers.Postgres(t, servers.PGOptions{HBA: []string{
		"hostnossl all app all scram-sha-256", "host all clear all password", "host all hashed all md5",
	}})
	pg.SQL(t, `create role app login password 'pässword'; create role clear login password 'cleartext-pw'`)
	pg.SQL(t, `set password_encryption = 'md5'`)
	pg.SQL(t, `set password_encryption = 'md5'; create role hashed login password 'hashed-pw'`)
	terms := engine.Terms{
		Task: "t", Resource: "other", Host: pg.Host, Port: pg.Port, Database: "postgres",
		TLS: engine.TLSTerms{Mode: "verify-full", CA: pg.CAPEM, ServerName: pg.Host},
	}
	for _, tc := range []struct {
		name, account, password string
		change                  func(*engine.Terms)
		ok                      bool
	}{
		{"verify-full, bound to the channel", "app", "pässword", nil, true},
		{"verify-ca", "app", "pässword", func(t *engine.Terms) { t.TLS.Mode, t.TLS.ServerName = "verify-ca", "other.name" }, true},
		{"without TLS", "app", "pässword", func(t *engine.Terms) { t.TLS.Mode = "disable" }, true},
		{"wrong password", "app", "wrong", nil, false},
		{"wrong name", "app", "pässword", func(t *engine.Terms) { t.TLS.ServerName = "other.name" }, false},
		{"wrong CA", "app", "pässword", func(t *engine.Terms) { t.TLS.Mode = "verify-ca"; t.TLS.CA = nil }, false},
		{"no mode", "app", "pässword", func(t *engine.Terms) { t.TLS.Mode = "" }, false},
		{"cleartext over verified TLS", "clear", "cleartext-pw", nil, true},
		{"cleartext without TLS", "clear", "cleartext-pw", func(t *engine.Terms) { t.TLS.Mode = "disable" }, false},
		{"md5", "hashed", "hashed-pw", nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tm := terms
			if tc.change != nil {
				tc.change(&tm)
			}
			h := &house{door: enginetest.NewDoor(t, tm, func(engine.Purpose) engine.Credential {
				return engine.Credential{Account: tc.account, Password: secret.FromString(tc.password)}
			})}
			h.engine = New(Config{AllowPlaintext: true, Parser: shared.pool, Loops: loops()})
			h.addr = enginetest.Serve(t, h.engine, h.door)
			c, err := pgx.Connect(testContext(t), h.dsn(""))
			if !tc.ok {
				pe := wantCode(t, err, "58000")
				if strings.Contains(pe.Message+pe.Detail, tc.account) {
					t.Fatalf("the client is told of the account: %+v", pe)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v (%v)", err, h.door.Last().Closed())
			}
			var who string
			if err := c.QueryRow(testContext(t), "select current_user::text").Scan(&who); err != nil || who != tc.account {
				t.Fatalf("%q %v", who, err)
			}
			_ = c.Close(testContext(t))
		})
	}
	if strings.Contains(pg.Log(), "refused by postern") {
		t.Error("statements in the target's log that nobody refused")
	}
}

// serverCertificate makes a certificate for 127.0.0.1 and writes its CA to a file.
func serverCertificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
