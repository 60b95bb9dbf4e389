// Package house is what is measured: PostgreSQL, a control plane with its etcd embedded,
// and a node, each a process of its own on loopback, made from the shipped binaries.
package house

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/bench/child"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	"github.com/posterngate/postern/test/e2e/fleet"
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
	client          *http.Client
	catalogPassword string
}

const nodeName = "bench-a"

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
	port, err := child.Port()
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
			Embedded: true, Sealed: true, World: world(h.Password, h.catalogPassword, h.BlastAddr), LogLevel: "warn",
			Nodes:    []fleet.NodeSpec{{Name: nodeName, Region: "bench", Plaintext: true, Profiling: true, Binary: o.NodeBinary}},
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
	var client apiv1connect.SessionServiceClient
	var token string
	if err := h.t.try(func(t testing.TB) {
		client, token = apiv1connect.NewSessionServiceClient(h.api(t), h.Addr), h.APIToken(t, "bob")
	}); err != nil {
		return nil, err
	}
	var all []Session
	for page := ""; ; {
		req := connect.NewRequest(&apiv1.ListSessionsRequest{Since: timestamppb.New(since), PageSize: 1000, PageToken: page})
		req.Header().Set("Authorization", "Bearer "+token)
		resp, err := client.ListSessions(h.t.ctx, req)
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

// api is one client for all calls.
func (h *House) api(t testing.TB) *http.Client {
	if h.client == nil {
		h.client = h.HTTPClient(t)
	}
	return h.client
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
