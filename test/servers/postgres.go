package servers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// PGOptions change a private PostgreSQL; the zero value is right for most.
type PGOptions struct {
	Major    int               // 15, 16, 17 or 18; 0 takes whatever is there
	Port     int               // 0 chooses one; a persistent server keeps its choice
	Settings map[string]string // postgresql.conf, such as "max_connections": "200"
	HBA      []string          // lines of pg_hba.conf that come before the server's own
}

// PG is a running private PostgreSQL. TLS is on and required over TCP, passwords are
// scram-sha-256, and nothing is synced to disk.
type PG struct {
	Host      string // always 127.0.0.1, which the certificate names
	Port      int
	CAFile    string // the CA that signed the server's certificate, PEM
	CAPEM     []byte
	Superuser string
	Password  string // of Superuser
	Version   string // as the server says it
	Bin       string // folder of the server's programs
	Psql      string // path of psql; empty where there is none
	Pgbench   string // path of pgbench; empty where there is none

	proc *process
}

// Addr is host:port.
func (pg *PG) Addr() string { return pg.Host + ":" + strconv.Itoa(pg.Port) }

// DSN is a URL for libpq and pgx that verifies the server in full.
func (pg *PG) DSN(database, user, password string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(user, password), Host: pg.Addr(), Path: "/" + database,
		RawQuery: url.Values{"sslmode": {"verify-full"}, "sslrootcert": {pg.CAFile}}.Encode(),
	}
	return u.String()
}

// SuperDSN is the DSN of the superuser.
func (pg *PG) SuperDSN(database string) string { return pg.DSN(database, pg.Superuser, pg.Password) }

// TLS is a client configuration that trusts the server.
func (pg *PG) TLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pg.CAPEM)
	return &tls.Config{RootCAs: roots, ServerName: pg.Host, MinVersion: tls.VersionTLS12}
}

// Exec runs SQL text, of one or more statements, as the superuser, and returns the rows
// of the last one as text; NULL is the empty string.
func (pg *PG) Exec(ctx context.Context, database, text string) ([][]string, error) {
	conn, err := pgconn.Connect(ctx, pg.SuperDSN(database))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	results, err := conn.Exec(ctx, text).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	if len(results) > 0 {
		for _, r := range results[len(results)-1].Rows {
			row := make([]string, len(r))
			for i, v := range r {
				row[i] = string(v)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// SQL is Exec in the database postgres; an error ends the test.
func (pg *PG) SQL(t testing.TB, text string) [][]string {
	t.Helper()
	return pg.SQLIn(t, "postgres", text)
}

// SQLIn is Exec; an error ends the test.
func (pg *PG) SQLIn(t testing.TB, database, text string) [][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rows, err := pg.Exec(ctx, database, text)
	if err != nil {
		t.Fatalf("sql in %s: %v", database, err)
	}
	return rows
}

// Log is everything that the server has said.
func (pg *PG) Log() string {
	b, err := os.ReadFile(pg.proc.logFile)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Kill ends the server at once, as a crash would.
func (pg *PG) Kill() { pg.proc.kill() }

// Postgres starts a private PostgreSQL for one test; it is gone at the test's end.
func Postgres(t testing.TB, opts ...PGOptions) *PG {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var o PGOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	pg, stop, err := StartPostgres(ctx, folder(t, "pg"), o, logTo(t))
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	t.Cleanup(stop)
	return pg
}

// StartPostgres starts a PostgreSQL that keeps its data, port, password and CA in dir.
// It works for ordinary users; for root the server runs as nobody. What takes long is
// told to log. stop ends the server in order.
func StartPostgres(ctx context.Context, dir string, o PGOptions, log func(string)) (pg *PG, stop func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	data, err := dataHome(dir, log)
	if err != nil {
		return nil, nil, err
	}
	if b, err := os.ReadFile(filepath.Join(data, "PG_VERSION")); err == nil && o.Major == 0 {
		o.Major = majorOf(string(b)) // only the same major reads what is there
	}
	bin, err := findPostgres(ctx, o.Major, log)
	if err != nil {
		return nil, nil, err
	}
	password, err := ensureCluster(ctx, bin, data, log)
	if err != nil {
		return nil, nil, err
	}
	pg = &PG{
		Host: "127.0.0.1", Superuser: "postgres", Password: password, Bin: bin,
		Psql: onPath("psql", bin), Pgbench: onPath("pgbench", bin),
	}
	f, ca, err := identity(dir, "postgres")
	if err != nil {
		return nil, nil, err
	}
	pg.CAFile, pg.CAPEM = f.ca, ca
	for try := 1; ; try++ {
		if pg.Port, err = pgPort(dir, o.Port); err != nil {
			return nil, nil, err
		}
		if err := configure(data, f, pg.Port, o); err != nil {
			return nil, nil, fmt.Errorf("configure PostgreSQL: %w", err)
		}
		for end := time.Now().Add(orphansWait); ; {
			pg.proc, err = launch(ctx, pg, data, filepath.Join(dir, "postgres.log"))
			if !orphansLeft(err) || time.Now().After(end) {
				break
			}
			select {
			case <-time.After(orphansPause):
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
		}
		if err == nil {
			return pg, func() { pg.proc.stop(syscall.SIGINT) }, nil
		}
		if !portClash(err) || o.Port != 0 || try == portTries {
			return nil, nil, err
		}
		log(fmt.Sprintf("port %d is taken, choosing another", pg.Port))
		_ = os.Remove(filepath.Join(dir, "port"))
	}
}

// What a server that was killed had started goes by itself, a moment later.
const (
	orphansWait  = 30 * time.Second
	orphansPause = 100 * time.Millisecond
)

func orphansLeft(err error) bool {
	return err != nil && strings.Contains(err.Error(), "pre-existing shared memory block")
}

func pgPort(dir string, asked int) (int, error) {
	if asked != 0 {
		return asked, nil
	}
	return keptPort(filepath.Join(dir, "port"))
}

// configure writes the server's files anew: settings, who may log in, certificate.
func configure(data string, f files, port int, o PGOptions) error {
	conf := map[string]string{
		"listen_addresses": "127.0.0.1", "port": strconv.Itoa(port), "unix_socket_directories": "",
		"ssl": "on", "ssl_cert_file": "server.pem", "ssl_key_file": "server.key",
		"password_encryption": "scram-sha-256",
		"fsync":               "off", "synchronous_commit": "off", "full_page_writes": "off",
		"shared_buffers": "64MB", "max_connections": "100", "timezone": "UTC", "log_timezone": "UTC",
		"log_min_messages": "warning", "wal_level": "minimal", "max_wal_senders": "0",
	}
	for k, v := range o.Settings {
		conf[k] = v
	}
	var text strings.Builder
	for k, v := range conf {
		fmt.Fprintf(&text, "%s = '%s'\n", k, strings.ReplaceAll(v, "'", "''"))
	}
	hba := strings.Join(append(append([]string(nil), o.HBA...), "hostssl all all 127.0.0.1/32 scram-sha-256"), "\n") + "\n"
	for name, content := range map[string]string{"postgresql.conf": text.String(), "pg_hba.conf": hba} {
		if err := writeOwned(filepath.Join(data, name), []byte(content)); err != nil {
			return err
		}
	}
	for from, name := range map[string]string{f.cert: "server.pem", f.key: "server.key"} {
		b, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := writeOwned(filepath.Join(data, name), b); err != nil {
			return err
		}
	}
	return nil
}

func launch(ctx context.Context, pg *PG, data, logFile string) (*process, error) {
	_ = os.Remove(logFile)
	cmd := exec.Command(filepath.Join(pg.Bin, "postgres"), "-D", data)
	unprivileged(cmd)
	p, err := start("PostgreSQL", cmd, logFile)
	if err != nil {
		return nil, err
	}
	err = waitReady(ctx, p, func(ctx context.Context) error {
		conn, err := pgconn.Connect(ctx, pg.SuperDSN("postgres"))
		if err != nil {
			return err
		}
		pg.Version = conn.ParameterStatus("server_version")
		return conn.Close(ctx)
	})
	if err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}
