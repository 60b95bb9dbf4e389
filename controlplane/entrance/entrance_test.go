package entrance_test

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/credential/sealed"
	"github.com/posterngate/postern/controlplane/entrance"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

const host = "read--orders.postern.example:8443"

type house struct {
	*entrance.Service
	now   time.Time
	ended [][sha256.Size]byte
	log   *audit.Log
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{now: time.Now()}
	mem := storetest.NewMemory()
	keeper, err := sealed.OpenKeyFile(t.TempDir() + "/key")
	if err != nil {
		t.Fatal(err)
	}
	log := audit.New(mem, time.Now)
	h.log = log
	keys, err := authority.Open(t.Context(), authority.Config{Store: mem, Keeper: keeper, Audit: log, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h.Service = entrance.New(entrance.Config{
		URL: "https://postern.example", Store: mem, Audit: log, Sign: keys.SignIdentity, Keys: keys.IdentityKeys, Now: func() time.Time { return h.now },
		Resource: func(node postern.NodeName, r postern.ResourceName) (*typesv1.Resource, bool) {
			protocol := map[postern.ResourceName]string{"orders": "http", "warehouse": "postgres"}[r]
			return &typesv1.Resource{Spec: &typesv1.ResourceSpec{Protocol: protocol}}, protocol != "" && node == "n1"
		},
		Ended: func(_ context.Context, hash [sha256.Size]byte) { h.ended = append(h.ended, hash) },
	})
	return h
}

func begin(task, resource, host string) *nodev1.BeginBrowserRequest {
	challenge := sha256.Sum256([]byte("verifier"))
	return &nodev1.BeginBrowserRequest{Task: task, Resource: resource, Host: host, Challenge: challenge[:]}
}

// code signs alice in, and is the code with which her browser comes back.
func (h *house) code(t *testing.T) string {
	t.Helper()
	resp, err := h.Begin(t.Context(), "n1", begin("read", "orders", host))
	if err != nil {
		t.Fatal(err)
	}
	back, err := h.Enter(t.Context(), strings.TrimPrefix(resp.GetUrl(), "https://postern.example"+entrance.Path), postern.Subject{Name: "alice", Groups: []string{"analysts"}}, "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(back)
	if err != nil || u.Scheme != "https" || u.Host != host || u.Path != entrance.Back {
		t.Fatalf("back to %s (%v)", back, err)
	}
	return u.Query().Get("code")
}

func TestSession(t *testing.T) {
	h := newHouse(t)
	finish := func(code, verifier, host string, node postern.NodeName) (string, error) {
		resp, err := h.Finish(t.Context(), node, &nodev1.FinishBrowserRequest{Code: code, Verifier: verifier, Host: host})
		return resp.GetToken(), err
	}
	code := h.code(t)
	for name, try := range map[string][4]string{
		"another browser": {code, "guess", host, "n1"}, "another host": {code, "verifier", "read--orders.evil.example", "n1"},
		"another node": {code, "verifier", host, "n2"}, "no code": {"x", "verifier", host, "n1"},
	} {
		if token, err := finish(try[0], try[1], try[2], postern.NodeName(try[3])); err == nil {
			t.Errorf("%s: %s", name, token)
		}
	}
	token, err := finish(code, "verifier", host, "n1")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := finish(code, "verifier", host, "n1"); err == nil {
		t.Errorf("the code worked twice: %s", again)
	}
	is := func(token, task, resource string) string {
		sub, err := h.Subject(context.Background(), token, task, resource)
		if err != nil && fault.From(err).Kind != postern.CodeBadToken.String() {
			t.Errorf("%v", err)
		}
		return sub.Name
	}
	other := h.code(t)
	for _, c := range []struct{ token, task, resource, want string }{
		{token, "read", "orders", "alice"}, {token, "write", "orders", ""}, {token, "read", "warehouse", ""},
		{token + "x", "read", "orders", ""}, {other, "read", "orders", ""}, {"psb_" + other, "read", "orders", ""}, {"", "read", "orders", ""},
	} {
		if got := is(c.token, c.task, c.resource); got != c.want {
			t.Errorf("%s for %s on %s is %q", c.token, c.task, c.resource, got)
		}
	}
	h.now = h.now.Add(61 * time.Second)
	if late, err := finish(other, "verifier", host, "n1"); err == nil {
		t.Errorf("a code of a minute ago: %s", late)
	}
	h.now = h.now.Add(time.Hour)
	if got := is(token, "read", "orders"); got != "" {
		t.Errorf("after an hour it is %s", got)
	}
	code = h.code(t)
	if token, err = finish(code, "verifier", host, "n1"); err != nil || is(token, "read", "orders") != "alice" {
		t.Fatal(err)
	}
	if err := h.End(t.Context(), token); err != nil || is(token, "read", "orders") != "" {
		t.Errorf("signed out: %v", err)
	}
	entries, _, err := h.log.List(t.Context(), audit.Query{Actor: "alice"})
	if err != nil || len(entries) == 0 || entries[0].GetAction() != "browser.signout" || entries[0].GetObject() != "task/read" {
		t.Errorf("the audit log tells of it as %v, %v", entries, err)
	}
	if len(h.ended) != 1 || h.ended[0] != sha256.Sum256([]byte(token)) {
		t.Errorf("nodes were told of %x", h.ended)
	}
}

// TestTickets: people are sent back to where a node serves what it says, and by links of
// ours that are not old.
func TestTickets(t *testing.T) {
	h := newHouse(t)
	for name, c := range map[string]struct {
		node postern.NodeName
		req  *nodev1.BeginBrowserRequest
	}{
		"a resource of another node": {"n2", begin("read", "orders", host)},
		"another host":               {"n1", begin("read", "orders", "evil.example")},
		"a host of another task":     {"n1", begin("read", "orders", "write--orders.postern.example")},
		"another protocol":           {"n1", begin("read", "warehouse", "read--warehouse.postern.example")},
		"no challenge":               {"n1", &nodev1.BeginBrowserRequest{Task: "read", Resource: "orders", Host: host}},
		"a long host":                {"n1", begin("read", "orders", host+strings.Repeat("x", 300))},
	} {
		if resp, err := h.Begin(t.Context(), c.node, c.req); err == nil {
			t.Errorf("%s: %s", name, resp.GetUrl())
		}
	}
	resp, err := h.Begin(t.Context(), "n1", begin("read", "orders", host))
	if err != nil {
		t.Fatal(err)
	}
	link := strings.TrimPrefix(resp.GetUrl(), "https://postern.example"+entrance.Path)
	enter := func(link string) error {
		_, err := h.Enter(t.Context(), link, postern.Subject{Name: "alice"}, "192.0.2.1")
		return err
	}
	head, rest, _ := strings.Cut(link, ".")
	for name, bad := range map[string]string{"nothing": "", "another signature": head + "." + rest[:len(rest)-4] + "AAAA", "no signature": "eyJhbGciOiJub25lIn0." + strings.Split(rest, ".")[0] + ".", "long": link + strings.Repeat("x", 4096)} {
		if enter(bad) == nil {
			t.Errorf("%s: let in", name)
		}
	}
	if err := enter(link); err != nil {
		t.Error(err)
	}
	h.now = h.now.Add(11 * time.Minute)
	if enter(link) == nil {
		t.Error("a link of eleven minutes ago lets in")
	}
}
