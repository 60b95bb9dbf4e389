package account

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/controlplane/credential/sealed"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
)

const world = `
kind: Resource
metadata: {name: shop}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: shop, tls: {mode: disable}}, credential: {sealed: app}, catalog: {sealed: reader}, level: {admin: {sealed: admin}}}
---
kind: Resource
metadata: {name: shop-ends}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: shop, tls: {mode: disable}}, credential: {sealed: app}, catalog: {sealed: reader}, rotatedSessions: end}
---
kind: Resource
metadata: {name: kept}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: shop, tls: {mode: disable}}, credential: {vault: {mount: kv, path: team/kept}}, catalog: {sealed: reader}, level: {admin: {sealed: admin}}}
---
kind: Resource
metadata: {name: standing}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: shop, tls: {mode: disable}}, credential: {vault: {mount: db, staticRole: own}}, catalog: {vault: {mount: db, role: made}}}
---
kind: Resource
metadata: {name: alone}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: shop, tls: {mode: disable}}, credential: {sealed: lonely}, catalog: {sealed: lonely}}
`

// server is a resource's server with the wall and the nodes that reach it.
type server struct {
	verifiers map[string]string // by account
	sessions  []*nodev1.BackendSession
	ports     []string // of nodes' connections
	killed    []string
	fails     string // what the wall answers to a new password
	late      bool   // and has done it all the same
}

func (s *server) Nodes() []*apiv1.NodeStatus {
	return []*apiv1.NodeStatus{{Name: "n1", Connected: true, Report: &nodev1.NodeReport{Resources: []string{"shop"}}}}
}

func (s *server) WallFor(r postern.ResourceName) (postern.NodeName, bool) {
	return "wall-1", r != "alone"
}

func (s *server) Command(_ context.Context, _ postern.NodeName, cmd *nodev1.Command) (*nodev1.CommandResult, error) {
	switch {
	case cmd.GetListConnections() != nil:
		return &nodev1.CommandResult{Connections: s.ports}, nil
	case cmd.GetInspectAccounts() != nil:
		return &nodev1.CommandResult{Accounts: &nodev1.AccountReport{Accounts: []*nodev1.BackendAccount{{Name: "app"}, {Name: "root", Superuser: true}}, Sessions: s.sessions}}, nil
	case cmd.GetSetPassword() != nil:
		set := cmd.GetSetPassword()
		if s.fails == "" || s.late {
			s.verifiers[set.GetAccount()] = set.GetVerifier()
		}
		if s.fails != "" {
			return nil, errors.New(s.fails)
		}
		return &nodev1.CommandResult{Done: true}, nil
	}
	return nil, fmt.Errorf("not known: %v", cmd)
}

func (s *server) Broadcast(_ context.Context, cmd *nodev1.Command) (postern.NodeName, error) {
	s.killed = append(s.killed, cmd.GetKillSession().GetSession())
	return "n1", nil
}

// cupboard is a Vault with one KV secret and one static role.
type cupboard struct {
	values  map[string]string
	version int
	rotated int
	broken  error
	meddle  func() // before a write
}

func (c *cupboard) Read(context.Context, *typesv1.VaultRef) (map[string]string, int, error) {
	out := map[string]string{}
	for k, v := range c.values {
		out[k] = v
	}
	return out, c.version, c.broken
}

func (c *cupboard) Write(_ context.Context, _ *typesv1.VaultRef, values map[string]string, version int) (int, error) {
	if c.meddle != nil {
		c.meddle()
	}
	if version != c.version {
		return 0, fault.New(codes.Aborted, "somebody changed it")
	}
	c.values, c.version = map[string]string{}, c.version+1
	for k, v := range values {
		c.values[k] = v
	}
	return c.version, c.broken
}

func (c *cupboard) Static(context.Context, *typesv1.VaultRef) (string, error) { return "own", c.broken }

func (c *cupboard) Rotate(context.Context, *typesv1.VaultRef) error {
	c.rotated++
	return c.broken
}

type house struct {
	*Service
	t      *testing.T
	store  *storetest.Memory
	server *server
	vault  *cupboard
	log    *audit.Log
	lent   []credential.Lent
	now    time.Time
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, store: storetest.NewMemory(), server: &server{verifiers: map[string]string{}}, now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}
	h.vault = &cupboard{values: map[string]string{"username": "kept", "password": "old", "note": "ours"}, version: 7}
	h.log = audit.New(h.store, func() time.Time { return h.now })
	snapshot := policytest.Compile(t, world)
	keeper, err := sealed.OpenKeyFile(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	h.Service = New(Config{
		Store: h.store, Snapshot: func() *policy.Snapshot { return snapshot }, Fleet: h.server, Keeper: keeper, Vault: h.vault, Audit: h.log,
		Lent: func(_ context.Context, r postern.ResourceName) (out []credential.Lent, _ error) {
			for _, l := range h.lent {
				if l.Resource == r {
					out = append(out, l)
				}
			}
			return out, nil
		},
		Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return h.now },
	})
	for name, account := range map[string]string{"app": "app", "reader": "reader", "admin": "root", "lonely": "lonely"} {
		o := object.Bare("secret", name)
		o.GetSecret().Spec = &typesv1.SecretSpec{Data: map[string]string{"username": account, "password": "old"}}
		if err := sealed.SealSecret(t.Context(), keeper, o.GetSecret()); err != nil {
			t.Fatal(err)
		}
		k, v, err := store.EncodeObject(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.store.Commit(t.Context(), store.Op{Key: k, Value: v}); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// values are those of a Secret now.
func (h *house) values(secret string) map[string]string {
	h.t.Helper()
	one := &static{name: secret, ref: &typesv1.CredentialRef{Sealed: secret}}
	if err := h.read(h.t.Context(), one); err != nil {
		h.t.Fatal(err)
	}
	return one.values
}

func (h *house) rotate(name string) (*apiv1.RotateAccountResponse, error) {
	return h.Rotate(h.t.Context(), name, audit.Entry{Actor: "ada"})
}

// told counts the audit entries of an action.
func (h *house) told(action string) int {
	h.t.Helper()
	entries, _, err := h.log.List(h.t.Context(), audit.Query{Limit: 1000})
	if err != nil {
		h.t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if e.GetAction() == action {
			n++
		}
	}
	return n
}
