package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

const canary = "canary-5d20e7b1"

// fakeSource makes users that live until they are revoked, and fails where it is told.
type fakeSource struct {
	mu      sync.Mutex
	made    int
	tokens  map[string]bool      // what a handle undoes, and whether a user hangs on it
	life    time.Duration        // of a user; 0 has no end
	max     time.Time            // no renewal goes beyond; zero is no bound
	ends    map[string]time.Time // of users
	failAt  string               // "token", "recorded" or "read"
	revokes int
	broken  error         // what Revoke and Renew answer
	pause   chan struct{} // Issue waits for it before it reads
	reads   bool          // it makes nothing, and so has nothing to undo
	silent  bool          // Revoke does not answer
}

func newSource() *fakeSource {
	return &fakeSource{tokens: map[string]bool{}, ends: map[string]time.Time{}}
}

func (f *fakeSource) Issue(ctx context.Context, r Request) (Issued, error) {
	f.mu.Lock()
	f.made++
	h := fmt.Sprintf("accessor-%d-%s", f.made, canary)
	user := fmt.Sprintf("user-%d", f.made)
	f.mu.Unlock()
	if f.failAt == "token" {
		return Issued{}, errors.New("no token")
	}
	if f.reads {
		return Issued{Credential: &nodev1.Credential{Account: user, Password: []byte(canary)}}, nil
	}
	if err := r.Record(ctx, []byte(h)); err != nil {
		return Issued{}, err
	}
	f.mu.Lock()
	f.tokens[h] = false
	f.mu.Unlock()
	if f.failAt == "recorded" {
		return Issued{}, errors.New("no secret")
	}
	if f.pause != nil {
		select {
		case <-f.pause:
		case <-ctx.Done():
			return Issued{}, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens[h] = true
	out := Issued{Credential: &nodev1.Credential{Account: user, Password: []byte(canary)}, Handle: []byte(h)}
	if f.life > 0 {
		out.Expires = time.Now().Add(f.life)
	}
	if f.failAt == "read" {
		return Issued{}, errors.New("broke off")
	}
	return out, nil
}

func (f *fakeSource) Renew(_ context.Context, h []byte, until time.Time) (time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return time.Time{}, f.broken
	}
	if _, ok := f.tokens[string(h)]; !ok {
		return time.Time{}, errors.New("no such lease")
	}
	return within(until, f.max), nil
}

func (f *fakeSource) Revoke(ctx context.Context, h []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.silent {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return ctx.Err()
	}
	f.revokes++
	if f.broken != nil {
		return f.broken
	}
	delete(f.tokens, string(h))
	return nil
}

func (f *fakeSource) live() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.tokens)
}

func (f *fakeSource) set(change func(*fakeSource)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// fakePolicy has one resource, one task and whatever grants a test gives it.
type fakePolicy struct {
	tokens map[string]*postern.MaskRule
	mu     sync.Mutex
	grants map[string]*typesv1.Grant
	down   error
	locked string // the reason of a lock on crm
}

func (p *fakePolicy) Resource(node postern.NodeName, r postern.ResourceName) (*typesv1.Resource, bool) {
	if node == "far" || r != "crm" && r != "bare" {
		return nil, false
	}
	res := &typesv1.Resource{Spec: &typesv1.ResourceSpec{}}
	if r == "crm" {
		res.Spec.Credential = &typesv1.CredentialRef{Vault: &typesv1.VaultRef{Mount: "db", Role: "app"}}
		res.Spec.Catalog = &typesv1.CredentialRef{Sealed: "crm-catalog"}
	}
	return res, true
}

func (p *fakePolicy) Tokens(postern.TaskName) map[string]*postern.MaskRule { return p.tokens }

func (p *fakePolicy) Login(t postern.TaskName, r postern.ResourceName) (*typesv1.CredentialRef, bool) {
	switch res, _ := p.Resource("", r); {
	case t == "walled":
		return nil, true
	case res.GetSpec().GetCredential() == nil:
		return &typesv1.CredentialRef{}, t == "report"
	default:
		return res.GetSpec().GetCredential(), t == "report"
	}
}

func (p *fakePolicy) HostLogin(postern.TaskName) policy.HostLogin { return policy.HostLogin{} }

func (p *fakePolicy) Locked(_ *typesv1.Grant, r postern.ResourceName, _ postern.NodeName) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r != "crm" {
		return ""
	}
	return p.locked
}

func (p *fakePolicy) Alone(postern.TaskName) time.Duration { return 45 * time.Second }

func (p *fakePolicy) Grant(_ context.Context, id postern.GrantID) (*typesv1.Grant, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down != nil {
		return nil, p.down
	}
	if g := p.grants[string(id)]; g != nil {
		return proto.CloneOf(g), nil
	}
	return nil, fault.New(codes.NotFound, "no grant %q", id)
}

func (p *fakePolicy) put(id, task string, state typesv1.GrantState, end time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.grants[id] = &typesv1.Grant{Id: id, Task: task, State: state, EndTime: timestamppb.New(end)}
}

// plainKeeper only turns values round: enough to see what was sealed.
type plainKeeper struct{}

func (plainKeeper) Seal(_ context.Context, p, aad []byte) ([]byte, error) {
	out := append(bytes.Clone(aad), 0)
	for _, c := range p {
		out = append(out, ^c)
	}
	return out, nil
}

func (plainKeeper) Open(_ context.Context, s, aad []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(s, append(bytes.Clone(aad), 0))
	if !ok {
		return nil, errors.New("not sealed under this name")
	}
	out := make([]byte, len(rest))
	for i, c := range rest {
		out[i] = ^c
	}
	return out, nil
}

// house is a Broker with all that is around it.
type house struct {
	*Broker
	t      testing.TB
	store  *storetest.Memory
	policy *fakePolicy
	vault  *fakeSource
	sealed *fakeSource
	log    *syncBuffer
	key    *secret.PrivateKey
}

func newHouse(t testing.TB) *house {
	t.Helper()
	key, err := secret.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	h := &house{
		t: t, store: storetest.NewMemory(), policy: &fakePolicy{grants: map[string]*typesv1.Grant{}},
		vault: newSource(), sealed: &fakeSource{reads: true}, log: &syncBuffer{}, key: key,
	}
	h.Broker = h.another()
	h.policy.put("g-1", "report", typesv1.GrantState_GRANT_STATE_ACTIVE, time.Now().Add(time.Hour))
	return h
}

// another is a further control plane over the same store.
func (h *house) another() *Broker {
	h.t.Helper()
	b, err := New(Config{
		Store: h.store, Policy: h.policy, Keeper: plainKeeper{}, Vault: h.vault, Sealed: h.sealed,
		Logger: slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func (h *house) node() NodeIdentity {
	return NodeIdentity{Name: "node-1", HPKEKey: h.key.PublicKey()}
}

func (h *house) take(session string) *nodev1.LeaseResponse {
	h.t.Helper()
	resp, err := h.Lease(h.t.Context(), h.node(), ask(session))
	if err != nil {
		h.t.Fatalf("lease for %s: %v", session, err)
	}
	return resp
}

func ask(session string) *nodev1.LeaseRequest {
	return &nodev1.LeaseRequest{Session: session, Grant: "g-1", Resource: "crm", Purpose: PurposeSession}
}

// open decrypts an answer as the node would.
func (h *house) open(session string, resp *nodev1.LeaseResponse) *nodev1.Credential {
	h.t.Helper()
	plain, err := secret.OpenWith(h.key, secret.CredentialInfo("node-1", resp.GetLease(), session), resp.GetSealed())
	if err != nil {
		h.t.Fatal(err)
	}
	c := &nodev1.Credential{}
	if err := proto.Unmarshal(plain, c); err != nil {
		h.t.Fatal(err)
	}
	return c
}

// states counts the ledger's entries by state.
func (h *house) states() map[state]int {
	h.t.Helper()
	entries, _, err := h.store.List(h.t.Context(), Kind, "", 0)
	if err != nil {
		h.t.Fatal(err)
	}
	n := map[state]int{}
	for _, e := range entries {
		one, err := decode(e)
		if err != nil {
			h.t.Fatal(err)
		}
		n[one.State]++
	}
	return n
}

// clean looks for the canary in all that was stored or logged.
func (h *house) clean() {
	h.t.Helper()
	entries, _, err := h.store.List(h.t.Context(), Kind, "", 0)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		if bytes.Contains(e.Value, []byte(canary)) {
			h.t.Errorf("the store holds a secret: %s", e.Value)
		}
	}
	if strings.Contains(h.log.String(), canary) {
		h.t.Errorf("the log holds a secret: %s", h.log)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
