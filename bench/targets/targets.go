// Package targets is what load is put on: the server itself, the node under several
// tasks, rivals that are installed, and those that the suite brings along.
package targets

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/posterngate/postern/bench/child"
	"github.com/posterngate/postern/bench/house"
	"github.com/posterngate/postern/bench/load"
	"github.com/posterngate/postern/bench/parts"
)

// The names of targets. Those of the node say which task they are used under.
const (
	Direct     = "direct"      // no gateway
	Trust      = "trust"       // no gateway, and no password either
	Splice     = "splice"      // io.Copy
	Naive      = "naive"       // pgproto3, message by message
	Scan       = "scan"        // the node's engine; nothing is judged or recorded
	Judge      = "policy"      // and every statement is judged; nothing is recorded
	Postern    = "postern"     // the node: judged and recorded
	Masked     = "masked"      // and a column is masked
	TLS        = "tls"         // masked, and clients come by TLS
	PlainTLS   = "postern-tls" // postern, and clients come by TLS
	Rows       = "rows"        // postern, and every row is recorded
	Async      = "async"       // postern, but a record may lag
	Disk       = "disk"        // postern, but a record is synced first
	Pool       = "pool"        // postern, and sessions share connections
	PoolTLS    = "pool-tls"    // pool, and clients come by TLS
	PgBouncer  = "pgbouncer"   // session mode
	BouncerTLS = "pgbouncer-tls"
	HAProxy    = "haproxy" // TCP
)

// A Target is one of them, running.
type Target struct {
	Name  string
	Where load.Where
	Roots []int // processes of the gateway; none for the server itself
	Node  bool  // it is the node
	Task  string
	Child *child.Child // where it is one
}

// A Missing rival is not installed.
type Missing struct{ Name, Package string }

func (m Missing) Error() string {
	return fmt.Sprintf("SKIP %s: not installed; it is the Debian package %s", m.Name, m.Package)
}

// A Set starts targets when they are first asked for. It is for one goroutine.
type Set struct {
	House *house.House
	Log   io.Writer
	live  map[string]*Target
	stops []func()
	err   error // of writing files
}

// New makes a Set on a house.
func New(h *house.House, log io.Writer) *Set {
	return &Set{House: h, Log: log, live: map[string]*Target{}}
}

// Close ends what was started.
func (s *Set) Close() {
	for _, stop := range slices.Backward(s.stops) {
		stop()
	}
	s.stops = nil
}

// Get returns a target, started. The error is a Missing for a rival that is not there.
func (s *Set) Get(name string) (*Target, error) {
	if t := s.live[name]; t != nil {
		if t.Node {
			t.Roots = []int{s.House.Node.PID()} // it may have been started anew
		}
		return t, nil
	}
	t, err := s.start(name)
	if err != nil {
		return nil, err
	}
	t.Name = name
	s.live[name] = t
	return t, nil
}

// Forget ends a target, and what else is that same process, so that it is started anew.
func (s *Set) Forget(name string) {
	t := s.live[name]
	if t == nil || t.Child == nil {
		return
	}
	t.Child.Stop()
	for other, o := range s.live {
		if o.Child == t.Child {
			delete(s.live, other)
		}
	}
}

func (s *Set) start(name string) (*Target, error) {
	h := s.House
	switch name {
	case Direct:
		return &Target{Where: s.server(house.Account)}, nil
	case Trust:
		return &Target{Where: s.server(house.TrustAccount)}, nil
	case Splice, Naive:
		return s.proxy(name, parts.Backend{Backend: h.PG.Addr()})
	case Scan, Judge:
		e := parts.Engine{Host: h.PG.Host, Port: h.PG.Port, Account: house.Account, Password: h.Password, Database: house.Database, Resource: "bench"}
		if name == Judge {
			e.Policy = house.Policy(h.PG.Host, strconv.Itoa(h.PG.Port))
		}
		t, err := s.proxy(name, e)
		if err == nil {
			t.Where.User, t.Where.Password = house.TaskPass+".bench", "unused"
		}
		return t, err
	case PgBouncer:
		return s.pgbouncer()
	case BouncerTLS:
		plain, err := s.Get(PgBouncer)
		if err != nil {
			return nil, err
		}
		t := *plain
		t.Where.CA = h.PG.CAFile
		return &t, nil
	case HAProxy:
		return s.haproxy()
	}
	task, ok := map[string]string{
		Postern: house.TaskPass, PlainTLS: house.TaskPass, Masked: house.TaskMasked, TLS: house.TaskMasked,
		Rows: house.TaskRows, Async: house.TaskAsync, Disk: house.TaskDisk, Pool: house.TaskPool, PoolTLS: house.TaskPool,
	}[name]
	if !ok {
		return nil, fmt.Errorf("there is no target %q", name)
	}
	t := &Target{Where: At(h.Node.PG, task+".bench", h.Token), Roots: []int{h.Node.PID()}, Node: true, Task: task}
	if name == TLS || name == PlainTLS || name == PoolTLS {
		t.Where.CA = h.CA
	}
	return t, nil
}

// At is an address of this machine, as one logs in there.
func At(addr, user, password string) load.Where {
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	return load.Where{Host: host, Port: n, User: user, Password: password, Database: house.Database}
}

func (s *Set) server(account string) load.Where {
	return At(s.House.PG.Addr(), account, s.House.Password)
}

// proxy starts one of the suite's own parts before the server.
func (s *Set) proxy(name string, settings any) (*Target, error) {
	var hello parts.Hello
	c, err := parts.Start(s.logFile(name), name2part(name), settings, &hello)
	if err != nil {
		return nil, err
	}
	s.stops = append(s.stops, c.Stop)
	return &Target{Where: At(hello.Addr, house.Account, s.House.Password), Roots: []int{c.PID()}, Child: c}, nil
}

// Before starts one of the suite's own proxies before any address; the caller ends it.
func (s *Set) Before(name, addr string) (*Target, func(), error) {
	var hello parts.Hello
	c, err := parts.Start(s.logFile(name), name2part(name), parts.Backend{Backend: addr}, &hello)
	if err != nil {
		return nil, nil, err
	}
	return &Target{Name: name, Where: At(hello.Addr, house.Account, s.House.Password), Roots: []int{c.PID()}, Child: c}, c.Stop, nil
}

func name2part(name string) string {
	if name == Scan || name == Judge {
		return "engine"
	}
	return name
}

func (s *Set) logFile(name string) string {
	file := filepath.Join(s.House.Dir, name+".log")
	if f, err := os.OpenFile(file, os.O_CREATE, 0o644); err == nil {
		_ = f.Close()
	}
	return file
}
