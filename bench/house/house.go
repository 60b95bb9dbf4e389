// Package house is what is measured: PostgreSQL, a control plane with its etcd embedded,
// and a node, each a process of its own on loopback, made from the shipped binaries.
package house

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

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

	t               *tb
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
	hba := []string{
		fmt.Sprintf("hostnossl %s %s 127.0.0.1/32 trust", Database, TrustAccount),
		fmt.Sprintf("hostnossl %s all 127.0.0.1/32 scram-sha-256", Database),
	}
	err := h.t.try(func(t testing.TB) {
		h.Fleet = fleet.Start(t, fleet.Options{
			Embedded: true, Sealed: true, World: world(h.Password, h.catalogPassword), LogLevel: "warn",
			Nodes:    []fleet.NodeSpec{{Name: nodeName, Region: "bench", Plaintext: true, Profiling: true, Binary: o.NodeBinary}},
			Postgres: servers.PGOptions{HBA: hba, Settings: map[string]string{"shared_buffers": "512MB", "max_connections": "600", "max_wal_size": "4GB", "autovacuum": "off"}},
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
	Start               time.Time
}

// Sessions lists those that began at or after a time, newest first.
func (h *House) Sessions(since time.Time) ([]Session, error) {
	out, err := h.Postern("sessions", "list", "--limit", "1000", "--since", since.Format(time.RFC3339Nano), "--format", "json")
	if err != nil {
		return nil, err
	}
	var raw []struct {
		ID, Task, Recording string
		Statements, Denied  string
		StartTime           time.Time
	}
	if err := json.Unmarshal([]byte(out), &raw); err != nil {
		return nil, fmt.Errorf("sessions list: %w", err)
	}
	all := make([]Session, 0, len(raw))
	for _, r := range raw {
		s := Session{ID: r.ID, Task: r.Task, Recording: r.Recording, Start: r.StartTime}
		s.Statements, _ = strconv.ParseInt(r.Statements, 10, 64)
		s.Denied, _ = strconv.ParseInt(r.Denied, 10, 64)
		all = append(all, s)
	}
	return all, nil
}
