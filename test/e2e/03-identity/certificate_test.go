package identity

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/test/e2e/house"
)

// holder is somebody with a client certificate in a folder.
type holder struct {
	*house.Person
	h   *house.House
	dir string
}

// psql runs the stock client with what grant has printed, and no password.
func (c holder) psql(t *testing.T, printed, user, script string) house.Result {
	t.Helper()
	info := c.h.Conninfo(c.h.Nodes[0], "x") + " " + strings.TrimSpace(printed)
	if user != "" {
		info += " user=" + user
	}
	return c.h.Run(t, nil, c.h.PG.Psql, info, "-X", "-w", "-At", "-v", "VERBOSITY=verbose", "-c", script)
}

// TestClientCertificate: the stock psql shows a certificate that postern made, and has
// what a token for the task has, until the grant's end.
func TestClientCertificate(t *testing.T) {
	h := house.Start(t)
	c := holder{h.Person(t), h, ""}
	c.dir = filepath.Join(c.Home, "it's mine")
	c.Browser(t, "alice")
	ok(t, c.Run(t, "", "login"))
	printed := ok(t, c.Run(t, "", "grant", "sales-report", "--cert", c.dir)).Out
	house.Has(t, printed, "user=sales-report.warehouse", "sslcert=", "sslkey=", "sslrootcert=")

	t.Run("its files are the holder's alone", func(t *testing.T) {
		for _, f := range []string{"sales-report.key", "sales-report.crt", "ca.crt"} {
			st := house.Must(os.Stat(filepath.Join(c.dir, f)))(t)
			if st.Mode().Perm() != 0o600 {
				t.Errorf("%s has the mode %s", f, st.Mode().Perm())
			}
		}
		if st := house.Must(os.Stat(c.dir))(t); st.Mode().Perm() != 0o700 {
			t.Errorf("the folder has the mode %s", st.Mode().Perm())
		}
	})
	t.Run("what a token may", func(t *testing.T) {
		if r := c.psql(t, printed, "", "SELECT email FROM customers WHERE id = 900001"); r.Code != 0 || r.Out != "***\n" {
			t.Errorf("%+v", r)
		}
		if r := c.psql(t, printed, "", "DROP TABLE orders"); r.Code != 1 || !strings.Contains(r.Err, "42501") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("for one task", func(t *testing.T) {
		r := c.psql(t, printed, "purge-order.warehouse", "SELECT 1")
		house.Has(t, r.Err, `this client certificate is for task "sales-report", not for "purge-order"`)
		if r.Code != 2 || r.Out != "" {
			t.Errorf("%+v", r)
		}
	})
	t.Run("TLS at once", func(t *testing.T) {
		cfg := house.Must(pgx.ParseConfig(h.Conninfo(h.Nodes[0], "sales-report") + " sslnegotiation=direct"))(t)
		cert := house.Must(tls.LoadX509KeyPair(filepath.Join(c.dir, "sales-report.crt"), filepath.Join(c.dir, "sales-report.key")))(t)
		cfg.TLSConfig.Certificates = []tls.Certificate{cert}
		conn := house.Must(pgx.ConnectConfig(t.Context(), cfg))(t)
		defer conn.Close(t.Context())
		var email string
		if err := conn.QueryRow(t.Context(), "SELECT email FROM customers WHERE id = 900001").Scan(&email); err != nil || email != "***" {
			t.Errorf("%q, %v", email, err)
		}
	})
	t.Run("not over TLS 1.2, which shows it on the way", func(t *testing.T) {
		r := c.psql(t, printed+" ssl_max_protocol_version=TLSv1.2", "", "SELECT 1")
		house.Has(t, r.Err, "no password supplied")
	})
	t.Run("again, into the same files", func(t *testing.T) {
		r := ok(t, c.Run(t, "", "grant", "sales-report", "--cert", c.dir, "--ttl", "5m", "--format", "env"))
		house.Has(t, r.Out, "export PGUSER='sales-report.warehouse'", `export PGSSLKEY='`, "it'\\''s mine/sales-report.key'")
		if r := c.psql(t, printed, "", "SELECT 'new'"); r.Out != "new\n" { // by the same files
			t.Errorf("%+v", r)
		}
		for _, format := range []string{"pgpass", "exec-credential"} {
			if r := c.Run(t, "", "grant", "sales-report", "--cert", c.dir, "--format", format); r.Code != 2 {
				t.Errorf("%s: %+v", format, r)
			}
		}
	})
	t.Run("revoked while it works", func(t *testing.T) {
		cert := h.ClientCert(t, "alice", "sales-report", 0)
		cfg := h.Config(t, "", "sales-report")
		cfg.TLSConfig.Certificates = []tls.Certificate{*cert}
		conn := house.Must(pgx.ConnectConfig(t.Context(), cfg))(t)
		defer conn.Close(t.Context())
		ok(t, c.Run(t, "", "revoke", cert.Leaf.Subject.CommonName, "--reason", "laptop lost"))
		house.Eventually(t, func() string { return "the session is cut" }, func() bool {
			_, err := conn.Exec(t.Context(), "SELECT 1")
			return err != nil && (conn.IsClosed() || strings.Contains(err.Error(), "laptop lost"))
		})
		_, err := pgx.ConnectConfig(t.Context(), cfg)
		if house.State(err) != "28P01" || !strings.Contains(err.Error(), "laptop lost") {
			t.Errorf("%v", err)
		}
	})
	t.Run("locked", func(t *testing.T) {
		ok(t, h.CLI(t, "ada", "lock", "--subject", "alice", "--reason", "incident"))
		house.Eventually(t, func() string { return "she is kept out" }, func() bool {
			return strings.Contains(c.psql(t, printed, "", "SELECT 1").Err, "incident")
		})
	})
}

// TestWorkloadCertificate: automation without a login gets a certificate by its own token,
// and it ends by itself.
func TestWorkloadCertificate(t *testing.T) {
	h := house.Start(t)
	c := holder{h.Person(t), h, ""}
	c.dir = filepath.Join(c.Home, "certs")
	token := filepath.Join(c.Home, "token")
	if err := os.WriteFile(token, []byte(h.DataToken(t, "nightly")), 0o600); err != nil {
		t.Fatal(err)
	}
	grant := func(ttl string) string {
		return ok(t, c.Run(t, "", "grant", "nightly-load", "--token-file", token, "--cert", c.dir, "--ttl", ttl)).Out
	}
	printed := grant("5m")
	if r := c.psql(t, printed, "", "INSERT INTO sales.orders (id, customer_id, customer_email, amount, status, created_at) VALUES (800002, 1, 'x@example.com', 5, 'open', now())"); r.Out != "INSERT 0 1\n" {
		t.Errorf("%+v", r)
	}
	const ttl = 2 * time.Second
	began := time.Now().Truncate(time.Second) // as it is told
	grant(ttl.String())
	granted, told := time.Now(), ""
	house.Eventually(t, func() string { return "it ends" }, func() bool {
		r := c.psql(t, printed, "", "SELECT 1")
		_, told, _ = strings.Cut(r.Err, "the client certificate ended at ")
		return r.Code == 2 && told != ""
	})
	told, _, _ = strings.Cut(told, "\n")
	ended, err := time.Parse(time.RFC3339, told)
	if err != nil || ended.Before(began.Add(ttl)) || ended.After(granted.Add(ttl)) {
		t.Errorf("it ended at %q (%v), and was made from %s to %s for %s", told, err, began, granted, ttl)
	}
	r := c.psql(t, printed, "", "SELECT 1")
	house.Has(t, r.Err, "postern grant TASK --cert DIR")
}
