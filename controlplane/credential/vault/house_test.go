package vault_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/controlplane/credential/sealed"
	"github.com/posterngate/postern/controlplane/credential/vault"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/etcd"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/test/servers"
)

const (
	makeReader  = `create role "{{name}}" login password '{{password}}' valid until '{{expiration}}'`
	kvPassword  = "canary-kv-77aa10"
	readerUsers = "select count(*) from pg_roles where rolname like 'v-%'"
)

// house is a real Vault, a real PostgreSQL, a real etcd, and a Broker between them.
type house struct {
	t      *testing.T
	pg     *servers.PG
	vault  *servers.VaultServer
	store  store.Store
	key    *secret.PrivateKey
	keeper sealed.Keeper
	log    *buffer
	policy world
	token  string // file of the control plane's own token
}

func newHouse(t *testing.T, s store.Store) *house {
	t.Helper()
	h := &house{t: t, pg: servers.Postgres(t), vault: servers.Vault(t), store: s, log: &buffer{}}
	own, err := h.vault.SetUpLeases(t.Context(), "db/creds/reader", "db/creds/short", "kv/data/crm", "ssh/sign/web")
	check(t, err)
	check(t, h.vault.ServePostgres(t.Context(), "db", h.pg, "postgres",
		servers.VaultRole{Name: "reader", Statements: makeReader},
		servers.VaultRole{Name: "short", Statements: makeReader, TTL: 20 * time.Second}))
	h.vault.Must(t, http.MethodPost, "sys/mounts/kv", map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	h.token = filepath.Join(t.TempDir(), "token")
	check(t, os.WriteFile(h.token, []byte(own+"\n"), 0o600))
	h.keeper, err = sealed.OpenKeyFile(filepath.Join(t.TempDir(), "keeper.key"))
	check(t, err)
	h.key, err = secret.GenerateKey()
	check(t, err)
	h.policy = world{end: time.Now().Add(time.Hour)}
	return h
}

// embedded is a store of its own.
func embedded(t *testing.T) store.Store {
	t.Helper()
	s, err := etcd.Open(t.Context(), etcd.Config{Embedded: &etcd.Embedded{Dir: t.TempDir()}})
	check(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (h *house) config() vault.Config {
	return vault.Config{Address: h.vault.Addr, CA: h.vault.CAFile, TokenFile: h.token, Logger: h.logger()}
}

func (h *house) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (h *house) source(cfg vault.Config) *vault.Source {
	h.t.Helper()
	s, err := vault.New(cfg)
	check(h.t, err)
	return s
}

func (h *house) broker(src credential.Source, now func() time.Time) *credential.Broker {
	h.t.Helper()
	b, err := credential.New(credential.Config{
		Store: h.store, Policy: h.policy, Keeper: h.keeper, Vault: src, Logger: h.logger(), Now: now,
		Sweep: 100 * time.Millisecond,
	})
	check(h.t, err)
	return b
}

func (h *house) node() credential.NodeIdentity {
	return credential.NodeIdentity{Name: "node-1", HPKEKey: h.key.PublicKey()}
}

func (h *house) open(session string, resp *nodev1.LeaseResponse) *nodev1.Credential {
	h.t.Helper()
	plain, err := secret.OpenWith(h.key, secret.CredentialInfo("node-1", resp.GetLease(), session), resp.GetSealed())
	check(h.t, err)
	c := &nodev1.Credential{}
	check(h.t, proto.Unmarshal(plain, c))
	return c
}

func (h *house) login(c *nodev1.Credential) error {
	conn, err := pgconn.Connect(h.t.Context(), h.pg.DSN("postgres", c.GetAccount(), string(c.GetPassword())))
	if err == nil {
		_ = conn.Close(h.t.Context())
	}
	return err
}

func (h *house) users() string { return h.pg.SQL(h.t, readerUsers)[0][0] }

// accessors of all tokens that live in Vault.
func (h *house) accessors() []string {
	h.t.Helper()
	out := h.vault.Must(h.t, "LIST", "auth/token/accessors", nil)
	var all []string
	for _, k := range out["data"].(map[string]any)["keys"].([]any) {
		all = append(all, k.(string))
	}
	return all
}

// clean looks for secrets in everything that is stored and logged.
func (h *house) clean(secrets ...string) {
	h.t.Helper()
	entries, _, err := h.store.List(h.t.Context(), credential.Kind, "", 0)
	check(h.t, err)
	if len(entries) == 0 {
		h.t.Error("the ledger is empty: there is nothing to look at")
	}
	for _, s := range secrets {
		for _, e := range entries {
			if bytes.Contains(e.Value, []byte(s)) {
				h.t.Errorf("%s holds a secret in clear", e.Key)
			}
		}
		if strings.Contains(h.log.String(), s) {
			h.t.Error("the log holds a secret in clear")
		}
	}
}

// world is the policy: everything reaches everything until end.
type world struct{ end time.Time }

func (w world) Resource(_ postern.NodeName, r postern.ResourceName) (*typesv1.Resource, bool) {
	ref := &typesv1.VaultRef{Mount: "db", Role: string(r)}
	if r == "web" {
		ref = &typesv1.VaultRef{Mount: "ssh", SshRole: "web", User: "deploy"}
	}
	if r == "crm" {
		ref = &typesv1.VaultRef{Mount: "kv", Path: "crm"}
	}
	return &typesv1.Resource{Spec: &typesv1.ResourceSpec{Credential: &typesv1.CredentialRef{Vault: ref}}}, true
}

func (world) HostLogin(postern.TaskName) policy.HostLogin { return policy.HostLogin{Terminal: true} }

func (world) Locked(*typesv1.Grant, postern.ResourceName, postern.NodeName) string { return "" }

func (world) Alone(postern.TaskName) time.Duration { return 45 * time.Second }

func (w world) Tokens(postern.TaskName) map[string]*postern.MaskRule { return nil }

func (w world) Login(_ postern.TaskName, r postern.ResourceName) (*typesv1.CredentialRef, bool) {
	res, _ := w.Resource("", r)
	return res.GetSpec().GetCredential(), true
}

func (w world) Grant(_ context.Context, id postern.GrantID) (*typesv1.Grant, error) {
	if id != "g-1" {
		return nil, fault.New(codes.NotFound, "no grant")
	}
	return &typesv1.Grant{Id: "g-1", State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(w.end)}, nil
}

func ask(session, resource string) *nodev1.LeaseRequest {
	return &nodev1.LeaseRequest{Session: session, Grant: "g-1", Resource: resource, Purpose: credential.PurposeSession}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *buffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *buffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
