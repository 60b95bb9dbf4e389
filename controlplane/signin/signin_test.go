package signin_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/identity"
	"github.com/posterngate/postern/controlplane/signin"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/deploy/dev/idp"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// house is a Service with a real issuer, and a store in memory.
type house struct {
	*signin.Service
	cfg      signin.Config
	verifier *identity.Verifier
	mem      *storetest.Memory
	issuer   string
	page     *httptest.Server
	opened   atomic.Pointer[nodev1.OpenGrantRequest]
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{mem: storetest.NewMemory()}
	h.issuer = startIssuer(t)
	var err error
	if h.verifier, err = identity.New(t.Context(), identity.Config{Issuers: []identity.IssuerConfig{{URL: h.issuer}}, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	h.cfg = signin.Config{
		Store: h.mem, Device: h.verifier.Device, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		URL: func(code string) string { return h.page.URL + signin.Path + code },
		Open: func(_ context.Context, req *nodev1.OpenGrantRequest, node postern.NodeName) (*typesv1.SignedGrant, error) {
			h.opened.Store(req)
			return &typesv1.SignedGrant{KeyId: string(node)}, nil
		},
	}
	h.Service = signin.New(h.cfg)
	mux := http.NewServeMux()
	mux.Handle(signin.Path, h.Handler())
	h.page = httptest.NewServer(mux)
	t.Cleanup(h.page.Close)
	return h
}

func startIssuer(t *testing.T) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	issuer := "http://" + srv.Listener.Addr().String()
	p, err := idp.New(issuer, filepath.Join(t.TempDir(), "key.pem"), []idp.Person{{Name: "alice", Email: "alice@sample.example", Groups: []string{"analysts"}}})
	if err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler = p
	srv.Start()
	t.Cleanup(srv.Close)
	return issuer
}

func ask() *nodev1.SignInRequest {
	return &nodev1.SignInRequest{Task: "web-status", Resource: "web-1", ClientAddress: "192.0.2.7:4711", ClientProgram: "SSH-2.0-<b>x"}
}

func TestSignIn(t *testing.T) {
	h := newHouse(t)
	signed, err := h.SignIn(t.Context(), ask(), "n1", func(p *nodev1.SignInPrompt) error {
		status, text := get(t, p.GetUrl())
		for _, part := range []string{p.GetCode(), "192.0.2.7:4711", "web-status", "web-1", "n1", "SSH-2.0-&lt;b&gt;x", h.issuer + "/device?user_code=" + p.GetCode()} {
			if status != http.StatusOK || !strings.Contains(text, part) {
				t.Errorf("no %q on the page (%d):\n%s", part, status, text)
			}
		}
		resp, err := http.PostForm(h.issuer+"/device", url.Values{"user_code": {p.GetCode()}, "name": {"alice"}, "password": {"alice"}})
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	req := h.opened.Load()
	sub, _, err := h.verifier.Data(t.Context(), req.GetToken())
	if err != nil || sub.Name != "alice" || req.GetTask() != "web-status" || req.GetResource() != "web-1" || signed.GetKeyId() != "n1" {
		t.Errorf("%+v %v, asked with %v", sub, err, req)
	}
	if left, _, _ := h.mem.List(t.Context(), signin.Kind, "", 0); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRefused(t *testing.T) {
	h := newHouse(t)
	_, err := h.SignIn(t.Context(), ask(), "n1", func(p *nodev1.SignInPrompt) error {
		resp, err := http.PostForm(h.issuer+"/device", url.Values{"user_code": {p.GetCode()}, "deny": {"1"}})
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	if fault.CodeOf(err) != codes.Unauthenticated || !fault.Is(err, postern.CodeBadToken.String()) || h.opened.Load() != nil {
		t.Errorf("%v", err)
	}
	for _, bad := range []*nodev1.SignInRequest{{}, {Task: "../x"}, {Task: "t", Resource: "A B"}} {
		if _, err := h.SignIn(t.Context(), bad, "n1", nil); fault.CodeOf(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if left, _, _ := h.mem.List(t.Context(), signin.Kind, "", 0); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestLeft: who hangs up and comes back does not get any number of codes of the issuer, and
// nobody is shown what is waited for no more.
func TestLeft(t *testing.T) {
	h := newHouse(t)
	var now atomic.Pointer[time.Time]
	at := time.Now()
	now.Store(&at)
	h.cfg.Now = func() time.Time { return *now.Load() }
	h.Service = signin.New(h.cfg)
	hangUp := func(address string) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req := ask()
		req.ClientAddress = address
		var link string
		_, err := h.SignIn(ctx, req, "n1", func(p *nodev1.SignInPrompt) error { link = p.GetUrl(); cancel(); return nil })
		if link != "" {
			if status, _ := get(t, link); status != http.StatusNotFound {
				t.Errorf("what was left is shown: %d", status)
			}
		}
		return err
	}
	for range 5 {
		if err := hangUp("192.0.2.7:1"); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if err := hangUp("192.0.2.7:1"); fault.CodeOf(err) != codes.ResourceExhausted {
		t.Errorf("a sixth code: %v", err)
	}
	if err := hangUp("192.0.2.8:1"); !errors.Is(err, context.Canceled) {
		t.Errorf("somebody else: %v", err)
	}
	later := at.Add(2 * time.Minute)
	now.Store(&later)
	if err := hangUp("192.0.2.7:1"); !errors.Is(err, context.Canceled) {
		t.Errorf("after a while: %v", err)
	}
	if left, _, _ := h.mem.List(t.Context(), signin.Kind, "", 0); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// TestFew: strangers begin sign-ins, and so there are few, and what a replica left behind
// that died is forgotten.
func TestFew(t *testing.T) {
	h := newHouse(t)
	put := func(name, address string, end time.Time) {
		t.Helper()
		value := `{"code":"` + name + `","address":"` + address + `","expires":"` + end.Format(time.RFC3339) + `"}`
		if _, err := h.mem.Commit(t.Context(), store.Op{Key: store.Key{Kind: signin.Kind, Name: name}, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	errShown := errors.New("shown")
	begin := func() error {
		_, err := h.SignIn(t.Context(), ask(), "n1", func(*nodev1.SignInPrompt) error { return errShown })
		return err
	}
	for _, name := range []string{"AAAA", "BBBB", "CCCC", "DDDD", "EEEE"} {
		put(name, "192.0.2.7:1", time.Now().Add(time.Minute))
	}
	if err := begin(); fault.CodeOf(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "from this address") {
		t.Errorf("a sixth from one address: %v", err)
	}
	if _, err := h.mem.Commit(t.Context(), store.Op{Key: store.Key{Kind: signin.Kind, Name: "AAAA"}, Delete: true, If: store.AnyRevision}); err != nil {
		t.Fatal(err)
	}
	put("OVER", "192.0.2.7:1", time.Now().Add(-time.Minute))
	if status, _ := get(t, h.page.URL+signin.Path+"OVER"); status != http.StatusNotFound {
		t.Errorf("what is over is shown: %d", status)
	}
	if err := begin(); !errors.Is(err, errShown) {
		t.Errorf("a fifth: %v", err)
	}
	if _, err := h.mem.Get(t.Context(), store.Key{Kind: signin.Kind, Name: "OVER"}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("what is over is kept: %v", err)
	}
	for i := range 496 {
		put("C"+strings.Repeat("0", 3)+string(rune('A'+i%26))+string(rune('A'+i/26)), "198.51.100.1:1", time.Now().Add(time.Minute))
	}
	if err := begin(); fault.CodeOf(err) != codes.ResourceExhausted {
		t.Errorf("very many: %v", err)
	}
}

func TestPage(t *testing.T) {
	h := newHouse(t)
	for _, code := range []string{"", "BCDF-GHJK", "../../x", "%00", "a/b", strings.Repeat("A", 100), "<script>"} {
		if status, text := get(t, h.page.URL+signin.Path+url.PathEscape(code)); status == http.StatusOK || strings.Contains(text, "<script>") {
			t.Errorf("%q: %d %s", code, status, text)
		}
	}
	resp, err := http.Post(h.page.URL+signin.Path+"BCDF-GHJK", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", resp.Status)
	}
	resp, err = http.Get(h.page.URL + signin.Path + "x")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", resp.Header)
	}
}

func get(t *testing.T, link string) (int, string) {
	t.Helper()
	resp, err := http.Get(link)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	if err := resp.Write(&b); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b.String()
}
