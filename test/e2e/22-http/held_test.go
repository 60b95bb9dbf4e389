package http

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

// held: a request that people must approve waits, shows them its body, is sent once,
// and can be refused.
func (s *service) held(t *testing.T) {
	pending := func() string {
		t.Helper()
		id := s.pending(t, "PATCH /api/orders/7")
		house.Has(t, s.CLI(t, "bob", "approvals", "--format", "json").Out, "PATCH /api/orders/7", "shipped")
		return id
	}
	for _, c := range []struct{ verb, code, says string }{{"deny", "403", "not now"}, {"approve", "200", `"status":"shipped"`}} {
		cmd := exec.Command("curl", "--silent", "--max-time", "60", "--cacert", s.CAFile, "--write-out", "\n%{http_code}",
			"-X", "PATCH", "--json", `{"status":"shipped"}`, "-H", "Authorization: Bearer "+s.DataToken(t, "alice"),
			"https://fix-order--orders-api."+s.Nodes[0].HTTPDomain+"/api/orders/7")
		waiting := house.Begin(t, cmd)
		id := pending()
		if before := s.Target(t, "SELECT status FROM sales.orders WHERE id = 7"); before[0][0] == "shipped" {
			t.Fatal("it was sent before the yes")
		}
		args := []string{c.verb, id}
		if c.verb == "deny" {
			args = []string{c.verb, "--reason", "not now", id}
		}
		if r := s.CLI(t, "bob", args...); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		if r := waiting.Wait(); !strings.HasSuffix(r.Out, "\n"+c.code) || !strings.Contains(r.Out, c.says) {
			t.Errorf("%s: %+v", c.verb, r)
		}
	}
	if after := s.Target(t, "SELECT status FROM sales.orders WHERE id = 7"); after[0][0] != "shipped" {
		t.Errorf("it was not sent: %v", after)
	}
	// A program that would rather come back is told where people approve, and comes back.
	ask := func(more ...string) house.Result {
		return s.curl(t, "alice", "fix-order", append([]string{"-X", "PATCH", "--json", `{"status":"lost"}`, "-H", "Prefer: respond-async", "/api/orders/7"}, more...)...)
	}
	r := ask()
	if !strings.HasSuffix(r.Out, "\n202") {
		t.Fatalf("%+v", r)
	}
	house.Has(t, r.Out, `"code":"held"`, `"url":"`+s.Addr+`/approvals/h-`)
	for _, h := range s.holds(t) {
		if r := s.CLI(t, "bob", "approve", h.ID); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
	}
	// The yes is for that request, and for none that says more.
	if r := ask("-H", "X-Tenant: other"); !strings.HasSuffix(r.Out, "\n202") {
		t.Fatalf("%+v", r)
	}
	house.Eventually(t, func() string { return "the request goes through" }, func() bool {
		r := ask()
		if !strings.HasSuffix(r.Out, "\n202") && !strings.HasSuffix(r.Out, "\n200") {
			t.Fatalf("%+v", r)
		}
		return strings.Contains(r.Out, `"status":"lost"`)
	})
}

// revoked: an ended right ends what goes on, and what comes after.
func (s *service) revoked(t *testing.T) {
	if r := s.curl(t, "alice", "read-orders", "/api/orders/7/status"); !strings.HasSuffix(r.Out, "\n200") {
		t.Fatalf("%+v", r)
	}
	if r := s.CLI(t, "ada", "lock", "--subject", "alice", "--reason", "contract ended"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	house.Eventually(t, func() string { return "alice is refused" }, func() bool {
		r := s.curl(t, "alice", "read-orders", "/api/orders/7/status")
		return strings.HasSuffix(r.Out, "\n403") && strings.Contains(r.Out, "contract ended")
	})
}
