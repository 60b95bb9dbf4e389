package task

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const company = `
kind: Resource
metadata: {name: warehouse}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: warehouse, tls: {mode: disable}}, credential: {sealed: rw}, catalog: {sealed: rw}}
---
kind: Task
metadata: {name: sales-report, labels: {team: sales}}
spec: {purpose: figures, resources: {names: [warehouse]}, permit: [{table: sales.orders, verbs: [select], columns: [id]}], duration: 1h}
---
kind: Task
metadata: {name: schema-change, labels: {team: dba}}
spec: {purpose: DDL, resources: {names: [warehouse]}, permit: [{commands: [create table], schemas: [sales]}], duration: 30m}
---
kind: Task
metadata: {name: nightly-load}
spec: {purpose: load, resources: {names: [warehouse]}, permit: [{table: sales.orders, verbs: [select], columns: [id]}], duration: 2h}
---
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}], distinct: true, timeout: 15m, require: [reason]}
---
kind: Binding
metadata: {name: analysts}
spec: {subjects: [{group: analysts}], tasks: [sales-report]}
---
kind: Binding
metadata: {name: analysts-schema}
spec: {subjects: [{group: analysts}], tasks: [schema-change], approval: {scope: grant, rule: leads}}
---
kind: Binding
metadata: {name: nightly}
spec: {subjects: [{workload: nightly}], tasks: [nightly-load]}
---
kind: Workload
metadata: {name: nightly}
spec: {owner: owen, trust: {issuer: https://ci.example, audience: x, when: claims.a == "b"}, expires: 2099-01-01T00:00:00Z}
`

// tokens are the tokens that tests know, by their text.
type tokens map[string]postern.Subject

func (v tokens) Data(_ context.Context, token string) (postern.Subject, time.Time, error) {
	sub, ok := v[token]
	if !ok {
		return sub, time.Time{}, fault.New(codes.Unauthenticated, "the token is not known").WithKind("bad-token")
	}
	return sub, time.Now().Add(time.Hour), nil
}

func (v tokens) Workload(ctx context.Context, token string) (postern.Subject, time.Time, error) {
	sub, end, err := v.Data(ctx, token)
	if err == nil && sub.Workload == "" {
		err = fault.New(codes.Unauthenticated, "not a workload's").WithKind("bad-token")
	}
	return sub, end, err
}

// plain seals nothing.
type plain struct{}

func (plain) Seal(_ context.Context, text, _ []byte) ([]byte, error) { return slices.Clone(text), nil }
func (plain) Open(_ context.Context, sealed, _ []byte) ([]byte, error) {
	return slices.Clone(sealed), nil
}

// world is a control plane as far as grants go, over a store in memory.
type world struct {
	*Service
	t       *testing.T
	store   store.Store
	holds   *approve.Service
	tokens  tokens
	private ed25519.PrivateKey
	certs   *authority.Authority

	mu       sync.Mutex
	snapshot *policy.Snapshot
	changed  map[chan struct{}]struct{}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOver(t, storetest.NewMemory())
}

func newWorldOver(t *testing.T, s store.Store) *world {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: s, private: private, changed: map[chan struct{}]struct{}{}, tokens: tokens{
		"alice":   {Name: "alice", Email: "alice@example.com", Groups: []string{"analysts"}, Claims: map[string]any{"sub": "alice", "auth_time": 1.0}},
		"bob":     {Name: "bob", Groups: []string{"leads"}},
		"nightly": {Name: "nightly", Workload: "nightly"},
	}}
	w.apply(company)
	log := audit.New(w.store, time.Now)
	logger := slog.New(slog.DiscardHandler)
	if w.certs, err = authority.Open(t.Context(), authority.Config{Store: s, Keeper: plain{}, Audit: log, Logger: logger}); err != nil {
		t.Fatal(err)
	}
	w.holds = approve.New(approve.Config{Store: w.store, Snapshot: w.current, Audit: log, URL: func(id string) string { return id }, Logger: logger})
	w.Service = New(Config{
		Store: w.store, Snapshot: w.current, Changed: w.subscribe, Sign: w.sign, Verifier: w.tokens, Certificates: w.certs, Approve: w.holds, Audit: log, Logger: logger,
	})
	return w
}

func (w *world) current() *policy.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.snapshot
}

func (w *world) subscribe() (<-chan struct{}, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := make(chan struct{}, 1)
	w.changed[c] = struct{}{}
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.changed, c)
	}
}

func (w *world) sign(g *typesv1.Grant) (*typesv1.SignedGrant, error) {
	b, err := proto.Marshal(g)
	return &typesv1.SignedGrant{Grant: b, Signature: ed25519.Sign(w.private, b), KeyId: "k"}, err
}

// apply writes objects and publishes the policy that they make.
func (w *world) apply(yaml string) {
	w.t.Helper()
	objects, err := object.ParseYAML(strings.NewReader(yaml))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, o := range objects {
		k, v, err := store.EncodeObject(o)
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.store.Commit(w.t.Context(), store.Op{Key: k, Value: v, If: store.AnyRevision}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.publish()
}

func (w *world) remove(kind, name string) {
	w.t.Helper()
	if _, err := w.store.Commit(w.t.Context(), store.Op{Key: store.Key{Kind: kind, Name: name}, Delete: true, If: store.AnyRevision}); err != nil {
		w.t.Fatal(err)
	}
	w.publish()
}

func (w *world) publish() {
	w.t.Helper()
	epoch, err := w.store.Epoch(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var objects []*typesv1.Object
	var revision int64
	for _, kind := range object.Kinds() {
		entries, at, err := w.store.List(w.t.Context(), kind, "", 0)
		if err != nil {
			w.t.Fatal(err)
		}
		revision = max(revision, at)
		for _, e := range entries {
			o, err := store.DecodeObject(e)
			if err != nil {
				w.t.Fatal(err)
			}
			objects = append(objects, o)
		}
	}
	s, rejected := policy.Compile(postern.Version{Epoch: epoch, Revision: revision}, objects)
	if len(rejected) > 0 && len(w.changed) == 0 {
		w.t.Fatal(rejected)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.snapshot = s
	for c := range w.changed {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// keys are the names of what the store has of a kind.
func (w *world) keys(kind string) []string {
	w.t.Helper()
	entries, _, err := w.store.List(w.t.Context(), kind, "", 0)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names
}

// start runs the services until the test ends; for synctest.
func (w *world) start() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	g := run.New(ctx)
	g.Go("grants", w.Run)
	g.Go("holds", w.holds.Run)
	w.t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			w.t.Error(err)
		}
	})
	synctest.Wait()
}

func (w *world) open(token, task string) (*typesv1.Grant, error) {
	signed, err := w.Open(w.t.Context(), &nodev1.OpenGrantRequest{Token: token, Task: task, ClientAddress: "192.0.2.7:4711", ClientProgram: "psql"}, "n1")
	if err != nil {
		return nil, err
	}
	if !ed25519.Verify(w.private.Public().(ed25519.PublicKey), signed.GetGrant(), signed.GetSignature()) {
		w.t.Error("not signed")
	}
	g := &typesv1.Grant{}
	return g, proto.Unmarshal(signed.GetGrant(), g)
}

func (w *world) mustOpen(token, task string) *typesv1.Grant {
	w.t.Helper()
	g, err := w.open(token, task)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// stored is a grant as it stands in the store.
func (w *world) stored(id string) *typesv1.Grant {
	w.t.Helper()
	g, _, err := w.load(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func (w *world) caller(name string, roles ...policy.RoleGrant) Caller {
	return Caller{Subject: w.tokens[name], Roles: roles, Address: "192.0.2.7:1"}
}

func (w *world) reviewer() approve.Caller { return approve.Caller{Subject: w.tokens["bob"]} }

// no wants a refusal of the kind that says text.
func no(t *testing.T, err error, kind, text string) {
	t.Helper()
	if err == nil || !fault.Is(err, kind) || !strings.Contains(all(err), text) {
		t.Errorf("error %v, want %s that says %q", err, kind, text)
	}
}

func all(err error) string {
	e := fault.From(err)
	out := e.Reason
	for _, v := range e.Violations {
		out += "\n" + v.Field + ": " + v.Reason
	}
	return out
}
