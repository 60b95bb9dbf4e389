package cells

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/posterngate/postern/bench/child"
	"github.com/posterngate/postern/bench/parts"
	"github.com/posterngate/postern/bench/targets"
	"github.com/posterngate/postern/test/e2e/fleet"
	"github.com/posterngate/postern/test/ports"
)

// Rivals for HTTP alone.
const (
	nginxProxy   = "nginx"   // as a proxy, kept connections on both sides
	reverseProxy = "reverse" // httputil.ReverseProxy as it comes
)

// A site is where one target can be asked.
type site struct {
	name          string
	plain, secure string // host:port without TLS and with
	host, token   string // that requests carry
	other         string // token of the proof
	ca, server    string // for TLS
	task          string // where it is the node
	proven        bool   // that it refuses
	roots         []int
}

// webs are nginx with files, and what stands before it.
type webs struct {
	sites map[string]*site
	stops []func()
}

func (w *webs) stop() {
	for _, f := range w.stops {
		f()
	}
}

const nginxHead = `
daemon off;
worker_processes %d;
pid %[2]s/nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path %[2]s/body;
  proxy_temp_path %[2]s/proxy;
  fastcgi_temp_path %[2]s/fastcgi;
  uwsgi_temp_path %[2]s/uwsgi;
  scgi_temp_path %[2]s/scgi;
  types { text/plain txt; application/json json; }
  sendfile on;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
`

const nginxFiles = nginxHead + `
  server { listen 127.0.0.1:%[3]d; root %[4]s; }
}
`

// The buffers hold what is asked for, so that no proxy pays for a file.
const nginxBefore = nginxHead + `
  proxy_buffers 32 64k;
  proxy_max_temp_file_size 0;
  upstream files { server 127.0.0.1:%[3]d; keepalive 64; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:%[4]d;
    listen 127.0.0.1:%[5]d ssl http2;
    ssl_certificate %[6]s;
    ssl_certificate_key %[6]s;
    ssl_protocols TLSv1.3;
    location / { proxy_pass http://files; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
`

const haproxyBefore = `global
  maxconn 4000
  nbthread 2
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen web
  bind 127.0.0.1:%[1]d
  bind 127.0.0.1:%[2]d ssl crt %[3]s alpn h2
  server one 127.0.0.1:%[4]d
`

// webs starts all of them. Without nginx there is nothing to ask for.
func (e *Env) webs(ctx context.Context) (_ *webs, err error) {
	w := &webs{sites: map[string]*site{}}
	defer func() {
		if err != nil {
			w.stop()
		}
	}()
	nginx, err := targets.Find("nginx")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(e.House.Dir, "web-")
	if err != nil {
		return nil, err
	}
	if err := put(dir); err != nil {
		return nil, err
	}
	var taken [5]int
	for i := range taken {
		if taken[i], err = ports.Take(); err != nil {
			return nil, err
		}
	}
	files := taken[0]
	if _, err := w.start("files", nginx, dir, "files.conf", fmt.Sprintf(nginxFiles, 1, dir, files, dir), files); err != nil {
		return nil, err
	}
	w.sites[targets.Direct] = &site{plain: at(files), host: at(files)}

	pem, err := e.pem(dir)
	if err != nil {
		return nil, err
	}
	before := filepath.Join(dir, "before")
	if err := os.Mkdir(before, 0o777); err != nil {
		return nil, err
	}
	pid, err := w.start(nginxProxy, nginx, before, "nginx.conf", fmt.Sprintf(nginxBefore, 2, before, files, taken[1], taken[2], pem), taken[1])
	if err != nil {
		return nil, err
	}
	w.sites[nginxProxy] = &site{plain: at(taken[1]), secure: at(taken[2]), host: at(files), roots: []int{pid}}
	if program, err := targets.Find("haproxy"); err != nil {
		e.skip(err)
	} else {
		pid, err := w.start(targets.HAProxy, program, dir, "haproxy.cfg", fmt.Sprintf(haproxyBefore, taken[3], taken[4], pem, files), taken[3])
		if err != nil {
			return nil, err
		}
		w.sites[targets.HAProxy] = &site{plain: at(taken[3]), secure: at(taken[4]), host: at(files), roots: []int{pid}}
	}
	var hello parts.Hello
	c, err := parts.Start(filepath.Join(dir, "reverse.log"), "reverse", parts.Backend{Backend: at(files)}, &hello)
	if err != nil {
		return nil, err
	}
	w.stops = append(w.stops, c.Stop)
	w.sites[reverseProxy] = &site{plain: hello.Addr, host: at(files), roots: []int{c.PID()}}

	load, other, err := e.applyHTTP(files)
	if err != nil {
		return nil, err
	}
	n := e.House.Node
	for name, task := range map[string]string{targets.Postern: taskHTTP, targets.Masked: taskHTTPMasked} {
		host := task + "--" + resourceHTTP + "." + n.HTTPDomain
		server, _, _ := strings.Cut(host, ":")
		w.sites[name] = &site{plain: n.HTTP, secure: n.HTTP, host: host, token: load, other: other, task: task, ca: e.House.CA, server: server, roots: []int{n.PID()}}
	}
	for name, s := range w.sites {
		s.name = name
		if s.ca == "" {
			s.ca, s.server = e.House.PG.CAFile, "127.0.0.1"
		}
	}
	return w, nil
}

func at(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// start starts a program with its configuration, and is its process.
func (w *webs) start(name, program, dir, config, text string, port int) (int, error) {
	config = filepath.Join(dir, config)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return 0, err
	}
	log := filepath.Join(dir, name+".log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		return 0, err
	}
	for _, path := range []string{dir, config, log} {
		if err := fleet.Give(path); err != nil {
			return 0, err
		}
	}
	args := []string{"-c", config}
	if name == targets.HAProxy {
		args = []string{"-q", "-db", "-f", config}
	}
	c, err := child.Start(name, log, true, program, args...)
	if err != nil {
		return 0, err
	}
	w.stops = append(w.stops, c.Stop)
	return c.PID(), c.Listening(at(port))
}

// pem is a file with the certificate of the database server and its key, which the
// rivals show.
func (e *Env) pem(dir string) (string, error) {
	var both []byte
	for _, name := range []string{"server.pem", "server.key"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(e.House.PG.CAFile), name))
		if err != nil {
			return "", err
		}
		both = append(append(both, b...), '\n')
	}
	file := filepath.Join(dir, "both.pem")
	if err := os.WriteFile(file, both, 0o600); err != nil {
		return "", err
	}
	return file, fleet.Give(file)
}
