// Package house is what is measured: PostgreSQL, a control plane with its etcd embedded,
// and a node, each a process of its own on loopback, made from the shipped binaries.
package house

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	"github.com/posterngate/postern/test/e2e/fleet"
	"github.com/posterngate/postern/test/ports"
	"github.com/posterngate/postern/test/servers"
)

// Options change the house.
type Options struct {
	NodeBinary string    // instead of the checkout's; a path
	Log        io.Writer // what takes long
}

// A House is running. Its methods are for one goroutine at a time.
type House struct {
	*fleet.Fleet
	Node     *fleet.Node
	Password string // of Account
	Token    string // alice's, for listeners
	// BlastAddr is where BlastResource is to be; nobody listens there yet.
	BlastAddr string

	t               *tb
	apis            map[string]*API
	catalogPassword string
}

const (
	nodeName = "bench-a"
	// spool holds what a round of rows records faster than it is stored.
	spool = 4 << 30
)

// Open starts everything and fills the database. The caller must Close, also after an
// error.
func Open(ctx context.Context, o Options) (*House, error) {
	h := &House{t: &tb{ctx: ctx, log: o.Log}, Password: rand.Text(), catalogPassword: rand.Text()}
	if o.NodeBinary != "" {
		file, err := filepath.Abs(o.NodeBinary)
		if err != nil {
			return h, err
		}
		o.NodeBinary = file
	}
	port, err := ports.Take()
	if err != nil {
		return h, err
	}
	h.BlastAddr = fmt.Sprintf("127.0.0.1:%d", port)
	hba := []string{
		fmt.Sprintf("hostnossl %s %s 127.0.0.1/32 trust", Database, TrustAccount),
		fmt.Sprintf("hostnossl %s all 127.0.0.1/32 scram-sha-256", Database),
	}
	err = h.t.try(func(t testing.TB) {
		h.Fleet = fleet.Start(t, fleet.Options{
			Embedded: true, Sealed: true, World: world(h.Password, h.catalogPassword, h.BlastAddr), LogLevel: "warn", Profiling: true,
			Nodes:    []fleet.NodeSpec{{Name: nodeName, Region: "bench", Plaintext: true, SSH: true, HTTP: true, Profiling: true, Spool: spool, Binary: o.NodeBinary}},
			Postgres: servers.PGOptions{HBA: hba, Settings: map[string]string{"shared_buffers": "512MB", "max_connections": "1000", "max_wal_size": "4GB", "autovacuum": "off"}},
		})
		h.Node = h.Nodes[nodeName]
		h.Fleet.Must(t, "ada", "tasks")
		h.Token = h.Fleet.Token(t, "alice")
	})
	if err != nil {
		return h, err
	}
	if h.PG.Pgbench == "" {
		return h, errors.New("pgbench is missing: it comes with the Debian package postgresql-contrib or postgresql")
	}
	return h, h.fill(ctx)
}

// Far starts a node from which the control plane is a round trip of such a length away.
func (h *House) Far(roundTrip time.Duration) (n *fleet.Node, err error) {
	err = h.t.try(func(t testing.TB) {
		n = h.Fleet.Join(t, fleet.NodeSpec{Name: "bench-far", Region: "far", Plaintext: true, Proxied: true})
		n.Proxy.Delay(roundTrip / 2)
		n.Proxy.Cut() // so that it connects anew, over the long way
		n.Proxy.Heal()
		h.Fleet.AwaitServing(t, n.Name)
	})
	return n, err
}

// Close ends everything and removes it.
func (h *House) Close() error { return h.t.end() }

// Postern runs "postern ARGS" as bob, an auditor, and returns what it says.
func (h *House) Postern(args ...string) (out string, err error) {
	err = h.t.try(func(t testing.TB) { out = h.Must(t, "bob", args...) })
	return out, err
}

// Try runs what was written for tests.
func (h *House) Try(f func(testing.TB)) error { return h.t.try(f) }

// PostgresPID is the postmaster's.
func (h *House) PostgresPID() (int, error) {
	rows, err := h.PG.Exec(h.t.ctx, "postgres", "SHOW data_directory")
	if err != nil {
		return 0, err
	}
	b, err := os.ReadFile(filepath.Join(rows[0][0], "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strconv.Atoi(line)
}

// A Session is a recorded one.
type Session struct {
	ID, Task, Recording string
	Statements, Denied  int64
}

// Sessions lists those that began at or after a time, newest first.
func (h *House) Sessions(since time.Time) ([]Session, error) {
	a, err := h.API("bob")
	if err != nil {
		return nil, err
	}
	var all []Session
	for page := ""; ; {
		req := connect.NewRequest(&apiv1.ListSessionsRequest{Since: timestamppb.New(since), PageSize: 1000, PageToken: page})
		resp, err := a.Sessions.ListSessions(h.t.ctx, req)
		if err != nil {
			return nil, fmt.Errorf("sessions: %w", err)
		}
		for _, s := range resp.Msg.GetSessions() {
			all = append(all, Session{ID: s.GetId(), Task: s.GetTask(), Recording: s.GetRecording(), Statements: s.GetStatements(), Denied: s.GetDenied()})
		}
		if page = resp.Msg.GetNextPageToken(); page == "" {
			return all, nil
		}
	}
}

// API is the public API as one person.
type API struct {
	Sessions apiv1connect.SessionServiceClient
	Policy   apiv1connect.PolicyServiceClient
	Nodes    apiv1connect.NodeAdminServiceClient
	Token    string
}

// API speaks as a person, who is signed in first where they are not yet.
func (h *House) API(who string) (*API, error) {
	if a := h.apis[who]; a != nil {
		return a, nil
	}
	a := &API{}
	if err := h.t.try(func(t testing.TB) {
		a.Token = h.APIToken(t, who)
		hc, auth := h.HTTPClient(t), connect.WithInterceptors(bearer(a.Token))
		a.Sessions = apiv1connect.NewSessionServiceClient(hc, h.Addr, auth)
		a.Policy = apiv1connect.NewPolicyServiceClient(hc, h.Addr, auth)
		a.Nodes = apiv1connect.NewNodeAdminServiceClient(hc, h.Addr, auth)
	}); err != nil {
		return nil, err
	}
	if h.apis == nil {
		h.apis = map[string]*API{}
	}
	h.apis[who] = a
	return a, nil
}

// Unauthenticated makes a call without a token and returns what became of it.
func (h *House) Unauthenticated(ctx context.Context) (err error) {
	terr := h.t.try(func(t testing.TB) {
		_, err = apiv1connect.NewPolicyServiceClient(h.HTTPClient(t), h.Addr).Get(ctx, connect.NewRequest(&apiv1.GetRequest{Kind: "task", Name: TaskPass}))
	})
	if terr != nil {
		return terr
	}
	return err
}

func bearer(token string) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			req.Header().Set("Authorization", "Bearer "+token)
			return next(ctx, req)
		}
	}
}

// RestartNode ends the node and starts it again, so that it has nothing in memory.
func (h *House) RestartNode() error {
	return h.t.try(func(t testing.TB) {
		h.Node.Stop()
		if err := h.Node.Start(); err != nil {
			t.Fatal(err)
		}
		h.AwaitServing(t, h.Node.Name)
	})
}
