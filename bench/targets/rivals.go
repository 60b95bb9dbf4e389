package targets

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/posterngate/postern/bench/child"
	"github.com/posterngate/postern/bench/house"
	"github.com/posterngate/postern/test/e2e/fleet"
	"github.com/posterngate/postern/test/ports"
)

// Find looks for a rival on PATH and where Debian keeps daemons. The error is a Missing.
func Find(program string) (string, error) {
	if file, err := exec.LookPath(program); err == nil {
		return file, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
		if file, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return file, nil
		}
	}
	return "", Missing{program, program}
}

// pgbouncer in session mode, which is what an ordinary session needs, as one process. Its
// clients send the password as it is, which costs it least, and the node's do the same.
func (s *Set) pgbouncer() (*Target, error) {
	program, err := Find("pgbouncer")
	if err != nil {
		return nil, err
	}
	users := s.file("pgbouncer.users", fmt.Sprintf("%q %q\n", house.Account, s.House.Password))
	cert, key := s.copied("server.pem"), s.copied("server.key")
	port, err := ports.Take()
	if err != nil {
		return nil, err
	}
	config := s.file("pgbouncer.ini", fmt.Sprintf(`[databases]
%s = host=%s port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = plain
auth_file = %s
pool_mode = session
max_client_conn = 4000
default_pool_size = 450
log_connections = 0
log_disconnections = 0
ignore_startup_parameters = extra_float_digits
client_tls_sslmode = allow
client_tls_cert_file = %s
client_tls_key_file = %s
server_tls_sslmode = disable
`, house.Database, s.House.PG.Host, s.House.PG.Port, port, users, cert, key))
	return s.rival(PgBouncer, port, program, "-q", config)
}

// haproxy forwards TCP and looks at nothing.
func (s *Set) haproxy() (*Target, error) {
	program, err := Find("haproxy")
	if err != nil {
		return nil, err
	}
	port, err := ports.Take()
	if err != nil {
		return nil, err
	}
	config := s.file("haproxy.cfg", fmt.Sprintf(`global
  maxconn 4000
  nbthread 2
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen pg
  bind 127.0.0.1:%d
  server one %s
`, port, s.House.PG.Addr()))
	return s.rival(HAProxy, port, program, "-q", "-db", "-f", config)
}

func (s *Set) rival(name string, port int, program string, args ...string) (*Target, error) {
	if s.err != nil {
		return nil, s.err
	}
	if err := fleet.Give(s.logFile(name)); err != nil {
		return nil, err
	}
	c, err := child.Start(name, s.logFile(name), true, program, args...)
	if err != nil {
		return nil, err
	}
	s.stops = append(s.stops, c.Stop)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	return &Target{Where: At(addr, house.Account, s.House.Password), Roots: []int{c.PID()}, Child: c}, c.Listening(addr)
}

// copied is a copy of the server's certificate or key, so that both show the same.
func (s *Set) copied(name string) string {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(s.House.PG.CAFile), name))
	if err != nil && s.err == nil {
		s.err = err
	}
	return s.file("pgbouncer."+name, string(b))
}

// file writes a file that the ordinary user can read; an error is kept for rival.
func (s *Set) file(name, text string) string {
	path := filepath.Join(s.House.Dir, name)
	err := os.WriteFile(path, []byte(text), 0o600)
	if err == nil {
		err = fleet.Give(path)
	}
	if err != nil && s.err == nil {
		s.err = err
	}
	return path
}

// Versions are those of what is measured.
func (s *Set) Versions(ctx context.Context) map[string]string {
	out := map[string]string{"postgresql": s.House.PG.Version}
	for name, args := range map[string][]string{PgBouncer: {"-V"}, HAProxy: {"-v"}, "nginx": {"-v"}} {
		program, err := Find(name)
		if err != nil {
			continue
		}
		b, _ := exec.CommandContext(ctx, program, args...).CombinedOutput()
		line, _, _ := strings.Cut(string(b), "\n")
		for _, word := range strings.Fields(strings.ReplaceAll(line, "/", " ")) {
			if word[0] >= '0' && word[0] <= '9' {
				out[name] = word
				break
			}
		}
	}
	return out
}
