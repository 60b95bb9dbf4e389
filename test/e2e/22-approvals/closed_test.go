package approvals_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	controlconfig "github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/controlplane/hook"
	"github.com/posterngate/postern/test/e2e/house"
)

const bound = `
apiVersion: postern/v1
kind: Secret
metadata: {name: jira-hook}
spec: {data: {value: a key that only jira has}}
---
apiVersion: postern/v1
kind: Binding
metadata: {name: analysts, labels: {team: sales}}
spec:
  subjects: [{group: analysts}, {group: leads}]
  tasks: [sales-report]
  bound: {hook: jira}
`

// TestClosedTicket: a session ends within a second of the word that its ticket is closed,
// and no other one begins for it.
func TestClosedTicket(t *testing.T) {
	h := house.Start(t, house.Options{Extra: bound, Control: func(c *controlconfig.Config) {
		c.Hooks = []controlconfig.Hook{{Name: "jira", Secret: "jira-hook"}}
	}})
	tell := func(key, id, ref string) int {
		t.Helper()
		body := `{"id":"` + id + `","event":"closed","ref":"` + ref + `"}`
		req := house.Must(http.NewRequestWithContext(t.Context(), http.MethodPost, h.Addr+hook.Path+"jira", strings.NewReader(body)))(t)
		req.Header.Set(hook.Header, hook.Sign([]byte(key), time.Now(), []byte(body)))
		resp := house.Must(h.HTTP().Do(req))(t)
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	const key = "a key that only jira has"
	if r := h.CLI(t, "alice", "request", "sales-report", "--reason", "OPS-1: figures"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	psql := h.StartPsql(t, "alice", "sales-report")
	psql.Say("SELECT 'in', count(*) FROM regions;")
	psql.Expect("in|6")
	for what, status := range map[string]int{"forged": tell("a key that somebody has", "m-1", "OPS-1"), "another ticket": tell(key, "m-2", "OPS-10")} {
		if want := map[string]int{"forged": http.StatusUnauthorized, "another ticket": http.StatusNoContent}[what]; status != want {
			t.Errorf("%s: %d", what, status)
		}
	}
	psql.Say("SELECT 'still', count(*) FROM regions;")
	psql.Expect("still|6")
	if status := tell(key, "m-3", "OPS-1"); status != http.StatusNoContent {
		t.Fatalf("closed: %d", status)
	}
	began := time.Now()
	psql.Say("SELECT count(*) FROM orders a, orders b, orders c, orders d;") // it would take hours, and is cut off
	psql.Expect("OPS-1 is closed, as jira says")
	t.Logf("cut off within %s, as psql shows it", time.Since(began).Round(time.Millisecond))
	if r := h.CLI(t, "alice", "request", "sales-report", "--reason", "OPS-1: once more"); r.Code != 3 || !strings.Contains(r.All(), "OPS-1 is closed") {
		t.Errorf("once more: %+v", r)
	}
	if status := tell(key, "m-3", "OPS-1"); status != http.StatusConflict {
		t.Errorf("replayed: %d", status)
	}
}
