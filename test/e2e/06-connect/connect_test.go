package connect

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

// signedIn is alice after a login, whose CA lies in a folder with an awkward name.
func signedIn(t *testing.T, h *house.House) *house.Person {
	t.Helper()
	p := h.Person(t)
	dir := filepath.Join(p.Home, "it's a CA")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, h.CA, 0o644); err != nil {
		t.Fatal(err)
	}
	p.Env = append(p.Env, "POSTERN_CA="+ca)
	p.Browser(t, "alice")
	if r := p.Run(t, "", "login"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	return p
}

// TestConnect runs the stock psql through postern connect, at a fleet of two.
func TestConnect(t *testing.T) {
	h := house.Start(t, house.Options{Nodes: []house.NodeSpec{{Name: "eu-1-a", Region: "eu-1"}, {Name: "us-1-a", Region: "us-1"}}})
	p := signedIn(t, h)
	files := func() (left []string) {
		left, _ = filepath.Glob(filepath.Join(p.Home, "postern", ".client-*"))
		return left
	}
	t.Run("print", func(t *testing.T) {
		r := p.Run(t, "", "connect", "sales-report", "--print")
		house.Has(t, r.Err, "node ", "then ", "eu-1-a (eu-1, "+h.Nodes[0].PG, "us-1-a (us-1, "+h.Nodes[1].PG)
		house.Has(t, r.Out, "psql '", "host=127.0.0.1,127.0.0.1", "user=sales-report.warehouse", "sslmode=verify-full")
		if strings.Contains(r.All(), "pst_") {
			t.Error("a token is shown")
		}
	})
	t.Run("exit codes", func(t *testing.T) {
		for _, c := range []struct {
			args []string
			code int
		}{
			{[]string{"-c", "SELECT count(*) FROM orders"}, 0},
			{[]string{"-c", "DROP TABLE orders"}, 1},
			{[]string{"-v", "ON_ERROR_STOP=1", "-f", "-"}, 3},
			{[]string{"--no-such-option"}, 1},
		} {
			r := p.Run(t, "DROP TABLE orders;\n", append([]string{"connect", "sales-report.warehouse", "--", "-X", "-At"}, c.args...)...)
			if r.Code != c.code {
				t.Errorf("psql %v: %+v, want %d", c.args, r, c.code)
			}
		}
		if left := files(); len(left) > 0 {
			t.Errorf("password files are left: %v", left)
		}
	})
	t.Run("nothing secret where others look", func(t *testing.T) {
		p.Env = append(p.Env, "PGPASSWORD=mine", "PGDATABASE=elsewhere", "PGOPTIONS=-c x=y", "POSTERN_TOKEN_ALICE=secret")
		s := p.Start(t, "psql", "sales-report", "--", "-X", "-At")
		s.Say(`SELECT 'in';`)
		s.Expect("in")
		s.Say(`\! tr '\0' '\n' < /proc/$PPID/cmdline; tr '\0' '\n' < /proc/$PPID/environ; echo read`)
		out := s.Expect("\nread\n")
		house.Has(t, out, "user=sales-report.warehouse", "PGPASSFILE=")
		for _, secret := range []string{"pst_", "eyJ", "PGPASSWORD", "POSTERN_TOKEN", "PGDATABASE", "PGOPTIONS"} {
			if strings.Contains(out, secret) {
				t.Errorf("%s can be seen in the client's arguments or environment", secret)
			}
		}
		left := house.Must(filepath.Glob(filepath.Join(p.Home, "postern", ".client-*", "*")))(t)
		if len(left) != 1 || house.Must(os.Stat(left[0]))(t).Mode().Perm() != 0o600 {
			t.Errorf("the password file is %v", left)
		}
		s.Say(`\c`) // psql connects again by itself
		s.Say(`SELECT 'again';`)
		s.Expect("again")
		if r := s.End(); r.Code != 0 || len(files()) > 0 {
			t.Errorf("code %d, left %v", r.Code, files())
		}
		if left := active(t, h); len(left) > 0 {
			t.Errorf("grants are left: %v", left)
		}
	})
	t.Run("with a certificate", func(t *testing.T) {
		r := p.Run(t, "", "connect", "sales-report", "--cert", "--", "-X", "-At", "-w", "-c", "SELECT email FROM customers WHERE id = 900001")
		if r.Code != 0 || r.Out != "***\n" || len(files()) > 0 || len(active(t, h)) > 0 {
			t.Errorf("%+v, left %v and %v", r, files(), active(t, h))
		}
		if r := p.Run(t, "", "connect", "sales-report", "--cert", "--listen", "127.0.0.1:0"); r.Code != 2 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("a certificate for another server is not shown", func(t *testing.T) {
		dir := filepath.Join(p.Home, ".postgresql")
		key, cert := stray(t)
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "postgresql.key"), key, 0o600), os.WriteFile(filepath.Join(dir, "postgresql.crt"), cert, 0o600)); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if r := p.Run(t, "", "connect", "sales-report", "--", "-X", "-At", "-c", "SELECT 'in'"); r.Code != 0 || r.Out != "in\n" {
			t.Errorf("%+v", r)
		}
	})
	t.Run("asked to end", func(t *testing.T) {
		s := p.Start(t, "connect", "sales-report", "--", "-X", "-At")
		s.Say(`SELECT 'in';`)
		s.Expect("in")
		s.Signal(syscall.SIGTERM)
		if r := s.Wait(); r.Code != 128+int(syscall.SIGTERM) || len(files()) > 0 {
			t.Errorf("code %d, left %v:\n%s", r.Code, files(), r.Out)
		}
	})
	t.Run("listening for other tools", func(t *testing.T) {
		s := p.Start(t, "connect", "sales-report", "--listen", "127.0.0.1:0")
		addr := regexp.MustCompile(`at (127\.0\.0\.1):(\d+)`).FindStringSubmatch(s.Expect("Ctrl-C"))
		psql := func(sql string) house.Result {
			return h.Run(t, nil, h.PG.Psql, fmt.Sprintf("host=%s port=%s user=me dbname=warehouse sslmode=prefer", addr[1], addr[2]), "-X", "-At", "-w", "-c", sql)
		}
		if r := psql("SELECT email FROM customers WHERE id = 900001"); r.Code != 0 || r.Out != "***\n" {
			t.Errorf("%+v", r)
		}
		if r := psql("DROP TABLE orders"); r.Code != 1 || !strings.Contains(r.Err, "does not allow DROP TABLE") {
			t.Errorf("%+v", r)
		}
		s.Signal(syscall.SIGINT)
		if r := s.Wait(); r.Code != 130 {
			t.Errorf("ended with %d:\n%s", r.Code, r.Out)
		}
		if r := p.Run(t, "", "connect", "sales-report", "--listen", "0.0.0.0:0"); r.Code != 2 {
			t.Errorf("all the world may come in: %+v", r)
		}
	})
	t.Run("refusals", func(t *testing.T) {
		for task, says := range map[string]string{"nothing": `no binding offers you task "nothing"`, "sales-report.shop": `does not reach "shop"`} {
			if r := p.Run(t, "", "connect", task); r.Code != 3 || !strings.Contains(r.Err, says) {
				t.Errorf("%s: %+v", task, r)
			}
		}
	})

	service := filepath.Join(p.Home, "service.conf")
	t.Run("config pg", func(t *testing.T) {
		if r := p.Run(t, "", "config", "pg", "--file", service); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		text := string(house.Must(os.ReadFile(service))(t))
		house.Has(t, text, "[sales-report.warehouse]\n", "[purge-order.warehouse]\n", "host=127.0.0.1,127.0.0.1\n", "sslrootcert="+filepath.Join(p.Home, "it's a CA", "ca.pem")+"\n")
		if strings.Contains(text, "eyJ") || strings.Contains(text, "pst_") {
			t.Error("a token is in the file")
		}
		byService(t, h, service)
	})
	certs := filepath.Join(p.Home, "certs")
	byCert := filepath.Join(p.Home, "cert-service.conf")
	t.Run("config pg with certificates", func(t *testing.T) {
		if r := p.Run(t, "", "config", "pg", "--cert", certs, "--file", byCert); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		house.Has(t, string(house.Must(os.ReadFile(byCert))(t)), "sslcert="+filepath.Join(certs, "sales-report.crt")+"\n", "sslkey="+filepath.Join(certs, "sales-report.key")+"\n")
		if r := p.Run(t, "", "grant", "sales-report", "--cert", certs); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		byService(t, h, byCert)
	})
	t.Run("when the nearest node is gone", func(t *testing.T) {
		for _, n := range h.Nodes[:1] {
			n.Stop()
			if c, err := net.Dial("tcp", n.PG); err == nil {
				_ = c.Close()
				t.Fatal("the node still listens")
			}
		}
		byService(t, h, service)
		byService(t, h, byCert)
		r := p.Run(t, "", "connect", "sales-report", "--", "-X", "-At", "-c", "SELECT 'over'")
		if r.Code != 0 || r.Out != "over\n" {
			t.Errorf("%+v", r)
		}
		h.Nodes[1].Stop()
		if r := p.Run(t, "", "connect", "sales-report", "--", "-X", "-c", "SELECT 1"); r.Code != 5 {
			t.Errorf("no node at all: %+v", r)
		}
	})
}

// stray is a key with a certificate that has nothing to do with us.
func stray(t *testing.T) (key, cert []byte) {
	t.Helper()
	k := house.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der := house.Must(x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k))(t)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: house.Must(x509.MarshalPKCS8PrivateKey(k))(t)}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// byService connects by the service file, as a GUI tool would.
func byService(t *testing.T, h *house.House, service string) {
	t.Helper()
	env := []string{"PGSERVICEFILE=" + service}
	if !strings.Contains(string(house.Must(os.ReadFile(service))(t)), "sslcert=") {
		env = append(env, "PGPASSWORD="+h.DataToken(t, "alice"))
	}
	r := h.Run(t, env, h.PG.Psql, "service=sales-report.warehouse", "-X", "-w", "-At", "-c", "SELECT email FROM customers WHERE id = 900001")
	if r.Code != 0 || r.Out != "***\n" {
		t.Errorf("by the service file: %+v", r)
	}
}

// active are alice's live grants that were made for a client, by id.
func active(t *testing.T, h *house.House) (ids []string) {
	t.Helper()
	resp := house.Must(h.API("alice").Grants.ListGrants(t.Context(), house.Request(&apiv1.ListGrantsRequest{Active: true})))(t)
	for _, g := range resp.Msg.GetGrants() {
		ids = append(ids, fmt.Sprintf("%s of %s", g.GetId(), g.GetTask()))
	}
	return ids
}
