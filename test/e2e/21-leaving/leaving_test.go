// Package leaving_test is the morning after the contractor leaves.
package leaving_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

const world = `
apiVersion: postern/v1
kind: Binding
metadata: {name: contractors-ask, labels: {team: sales}}
spec:
  subjects: [{group: contractors}]
  tasks: [purge-order]
  approval: {scope: grant, rule: leads}
---
apiVersion: postern/v1
kind: Binding
metadata: {name: carol-too, labels: {team: sales}}
spec: {subjects: [{subject: carol}], tasks: [sales-report]}
---
apiVersion: postern/v1
kind: Workload
metadata: {name: nightly}
spec:
  owner: carol
  trust: {issuer: "${ISSUER}", audience: postern, when: 'claims.sub == "nightly" && claims.environment == "prod"'}
  expires: 2030-01-01T00:00:00Z
`

// at connects to one node with a token as it is given.
func at(t *testing.T, h *house.House, n *house.Node, token, task string, change func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	t.Helper()
	cfg := house.Must(pgx.ParseConfig(h.Conninfo(n, task)))(t)
	cfg.Password = token
	if change != nil {
		change(cfg)
	}
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	}
	return conn, err
}

type end struct {
	err error
	at  time.Time
}

// watch tells when a connection ends that nobody uses.
func watch(t *testing.T, conn *pgx.Conn) <-chan end {
	ended := make(chan end, 1)
	go func() {
		_, err := conn.WaitForNotification(t.Context())
		ended <- end{err, time.Now()}
	}()
	return ended
}

// load takes the nightly job's task as the job does, and runs it.
func load(t *testing.T, h *house.House, id string) house.Result {
	t.Helper()
	p := h.Person(t)
	file := filepath.Join(p.Home, "token")
	if err := os.WriteFile(file, []byte(h.DataToken(t, "nightly")), 0o600); err != nil {
		t.Fatal(err)
	}
	r := p.Run(t, "", "grant", "nightly-load", "--token-file", file)
	if r.Code != 0 {
		return r
	}
	return h.PsqlWith(t, strings.TrimSpace(r.Out), "nightly-load", "INSERT INTO sales.orders (id, customer_id, customer_email, amount, status, created_at) VALUES ("+id+", 1, 'x@example.com', 5, 'open', now());")
}

func offboard(t *testing.T, h *house.House, args ...string) *apiv1.OffboardResponse {
	t.Helper()
	r := h.CLI(t, "ada", append([]string{"offboard", "carol", "--format", "json"}, args...)...)
	if r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	resp := &apiv1.OffboardResponse{}
	if err := protojson.Unmarshal([]byte(r.Out), resp); err != nil {
		t.Fatalf("%v: %s", err, r.Out)
	}
	return resp
}

// known is what offboard answers once it knows of so many sessions, and every node that is there
// has said that it enforces the lock: a command waits two seconds for both, which a busy machine
// may need for other things.
func known(t *testing.T, h *house.House, resp *apiv1.OffboardResponse, sessions int, there []string, args ...string) *apiv1.OffboardResponse {
	t.Helper()
	done := func() bool {
		enforced := 0
		for _, n := range resp.GetReceipt().GetNodes() {
			if n.GetEnforcedTime() != nil && slices.Contains(there, n.GetNode()) {
				enforced++
			}
		}
		return len(resp.GetSessions()) >= sessions && enforced == len(there)
	}
	house.Eventually(t, func() string {
		return fmt.Sprintf("%d sessions are known, and %v enforce it: %v", sessions, there, resp)
	}, func() bool {
		if done() {
			return true
		}
		again := offboard(t, h, args...)
		resp.Sessions, resp.Receipt = again.GetSessions(), again.GetReceipt() // the rest was said at first
		return done()
	})
	return resp
}

// TestLeaving: what must die is dead everywhere within a second, what must live goes on,
// and every place is known.
func TestLeaving(t *testing.T) {
	h := house.Start(t, house.Options{
		Nodes: []house.NodeSpec{{Name: "n1", Region: "eu-1"}, {Name: "n2", Region: "eu-1"}, {Name: "n3", Region: "eu-1"}},
		Extra: world,
	})
	psql := h.StartPsql(t, "carol", "sales-report")
	psql.Say("SELECT 'in', count(*) FROM regions;")
	psql.Expect("in|6")
	conns := map[string]<-chan end{}
	conns["her login"] = watch(t, house.Must(at(t, h, h.Nodes[0], h.DataToken(t, "carol"), "sales-report", nil))(t))
	token := house.Must(h.API("carol").Grants.CreateGrant(t.Context(), house.Request(&apiv1.CreateGrantRequest{Task: "sales-report"})))(t).Msg.GetToken()
	conns["her exchanged token"] = watch(t, house.Must(at(t, h, h.Nodes[1], token, "sales-report", nil))(t))
	if r := h.CLI(t, "carol", "request", "purge-order", "--reason", "one more"); !strings.Contains(r.All(), "h-") {
		t.Fatalf("her ask: %+v", r)
	}
	alice := house.Must(at(t, h, h.Nodes[1], h.DataToken(t, "alice"), "sales-report", nil))(t)
	if r := load(t, h, "800001"); r.Out != "INSERT 0 1\n" {
		t.Fatalf("the job under carol: %+v", r)
	}
	h.Nodes[2].Stop() // cut off while she leaves

	args := []string{"--transfer-to", "bob", "--reason", "contract ended"}
	resp := known(t, h, offboard(t, h, args...), 3, []string{"n1", "n2"}, args...)
	locked := resp.GetLocks()[0].GetLock().GetMetadata().GetCreateTime().AsTime()
	for what, ended := range conns {
		select {
		case e := <-ended:
			if took := e.at.Sub(locked); took > time.Second {
				t.Errorf("%s: dead after %s", what, took)
			}
			if pe := house.PgError(t, e.err); pe.Code != "57P01" || !strings.Contains(pe.Message+pe.Detail, "contract ended") {
				t.Errorf("%s: ended with %+v", what, pe)
			}
		case <-time.After(house.Patience):
			t.Errorf("%s lives", what)
		}
	}
	psql.Say("SELECT 'out';")
	if out := psql.End(); out.Code != 2 || !strings.Contains(out.Out, "contract ended") {
		t.Errorf("her psql: %+v", out)
	}
	t.Run("nothing of hers opens", func(t *testing.T) {
		for what, secret := range map[string]string{"her login": h.DataToken(t, "carol"), "her exchanged token": token} {
			for _, n := range h.Nodes[:2] {
				if _, err := at(t, h, n, secret, "sales-report", nil); err == nil || !strings.Contains(err.Error(), "contract ended") {
					t.Errorf("%s at %s: %v", what, n.Name, err)
				}
			}
		}
		if r := h.CLI(t, "carol", "tasks"); r.Code != 3 {
			t.Errorf("the API: %+v", r)
		}
	})
	t.Run("the inventory is whole", func(t *testing.T) { inventory(t, resp) })
	t.Run("the receipt is true", func(t *testing.T) { receipt(t, resp.GetReceipt(), locked) })
	t.Run("what must live goes on", func(t *testing.T) {
		if _, err := alice.Exec(t.Context(), "SELECT 1"); err != nil {
			t.Errorf("alice: %v", err)
		}
		if r := load(t, h, "800002"); r.Out != "INSERT 0 1\n" {
			t.Errorf("the job under bob: %+v", r)
		}
		w := h.CLI(t, "ada", "get", "workload", "nightly")
		if !strings.Contains(w.Out, "owner: bob") {
			t.Errorf("%+v", w)
		}
	})
	t.Run("again", func(t *testing.T) {
		again := offboard(t, h, args...)
		if len(again.GetGrants()) != len(resp.GetGrants()) || len(again.GetSessions()) != len(resp.GetSessions()) || len(again.GetWorkloads()) != 0 || len(again.GetHolds()) != 0 {
			t.Errorf("%d grants, %d sessions, %d workloads, %d holds", len(again.GetGrants()), len(again.GetSessions()), len(again.GetWorkloads()), len(again.GetHolds()))
		}
	})
	t.Run("it is audited", func(t *testing.T) {
		r := h.CLI(t, "ada", "audit", "log", "--format", "json")
		if !strings.Contains(r.Out, "LockService/Offboard") || !strings.Contains(r.Out, "grant.end") {
			t.Errorf("%.2000s", r.All())
		}
	})
	t.Run("only operators of everything", func(t *testing.T) {
		for _, who := range []string{"alice", "bob"} { // bob's role has a scope
			if r := h.CLI(t, who, "offboard", "ada"); r.Code != 3 {
				t.Errorf("%s: %+v", who, r)
			}
		}
	})
	t.Run("text", func(t *testing.T) {
		r := h.CLI(t, "ada", "offboard", "carol", "--transfer-to", "bob", "--reason", "contract ended")
		for _, want := range []string{"subject carol locked by offboard-", "sessions ended: 3", "enforced at n1 (eu-1) at ", "pending at n3 (eu-1), which is cut off since ", "worst case: everywhere by ", "binding/carol-too still names carol"} {
			if !strings.Contains(r.Out, want) {
				t.Errorf("%q is missing:\n%s", want, r.All())
			}
		}
	})
}

func inventory(t *testing.T, resp *apiv1.OffboardResponse) {
	tasks := map[string]bool{}
	for _, g := range resp.GetGrants() {
		tasks[g.GetTask()] = true
		if !strings.Contains(g.GetEndReason(), "contract ended") {
			t.Errorf("grant %s ended for %q", g.GetId(), g.GetEndReason())
		}
	}
	// Her login's claims are not those of the token that she exchanged: two grants of one task.
	if !tasks["sales-report"] || !tasks["purge-order"] || len(resp.GetGrants()) != 3 {
		t.Errorf("grants: %v", resp.GetGrants())
	}
	nodes := map[string]int{}
	for _, s := range resp.GetSessions() {
		nodes[s.GetNode()]++
	}
	if nodes["n1"] != 2 || nodes["n2"] != 1 {
		t.Errorf("sessions: %v", resp.GetSessions())
	}
	if h := resp.GetHolds(); len(h) != 1 || h[0].GetTask() != "purge-order" {
		t.Errorf("holds: %v", h)
	}
	if w := resp.GetWorkloads(); len(w) != 1 || w[0].GetName() != "nightly" || w[0].GetOwner() != "bob" || w[0].GetLocked() {
		t.Errorf("workloads: %v", w)
	}
	if len(resp.GetLeases()) == 0 {
		t.Error("no leases")
	}
	if n := resp.GetNamedIn(); len(n) != 1 || n[0] != "binding/carol-too" {
		t.Errorf("named in: %v", n)
	}
}

func receipt(t *testing.T, r *apiv1.Receipt, locked time.Time) {
	at := map[string]*apiv1.NodeReceipt{}
	for _, n := range r.GetNodes() {
		at[n.GetNode()] = n
	}
	for _, n := range []string{"n1", "n2"} {
		if took := at[n].GetEnforcedTime().AsTime().Sub(locked.Truncate(time.Millisecond)); at[n].GetEnforcedTime() == nil || took < 0 || took > time.Second {
			t.Errorf("%s: enforced after %s: %v", n, took, at[n])
		}
	}
	// 30 s and 15 s where a task says nothing else, and what is not known to the second.
	if b := at["n3"].GetWorstCaseTime().AsTime().Sub(locked); at["n3"].GetEnforcedTime() != nil || b < 30*time.Second || b > 3*time.Minute {
		t.Errorf("n3: bound %s: %v", b, at["n3"])
	}
	if !r.GetWorstCaseTime().AsTime().Equal(at["n3"].GetWorstCaseTime().AsTime()) {
		t.Errorf("worst case %v", r.GetWorstCaseTime())
	}
}

// TestNobodyTakesIt: without a new owner a workload stops, until somebody takes it.
func TestNobodyTakesIt(t *testing.T) {
	h := house.Start(t, house.Options{Extra: world})
	cert := h.ClientCert(t, "carol", "sales-report", 0)
	withCert := func(c *pgx.ConnConfig) {
		c.TLSConfig.Certificates = []tls.Certificate{*cert}
		c.Password = ""
	}
	ended := watch(t, house.Must(at(t, h, h.Nodes[0], "", "sales-report", withCert))(t))
	if r := load(t, h, "800001"); r.Out != "INSERT 0 1\n" {
		t.Fatalf("%+v", r)
	}
	resp := offboard(t, h)
	if w := resp.GetWorkloads(); len(w) != 1 || !w[0].GetLocked() || len(resp.GetLocks()) != 2 {
		js, _ := json.Marshal(resp)
		t.Errorf("%s", js)
	}
	if known(t, h, resp, 0, []string{h.Nodes[0].Name}).GetReceipt().GetWorstCaseTime() != nil {
		t.Errorf("every node is there, and yet: %v", resp.GetReceipt())
	}
	if e := <-ended; house.PgError(t, e.err).Code != "57P01" {
		t.Errorf("the certificate's session: %v", e.err)
	}
	if _, err := at(t, h, h.Nodes[0], "", "sales-report", withCert); err == nil {
		t.Error("her certificate opens")
	}
	if r := load(t, h, "800002"); r.Code == 0 || !strings.Contains(r.Err, "nobody took it") {
		t.Errorf("the job without an owner: %+v", r)
	}
	if resp = offboard(t, h, "--transfer-to", "bob"); len(resp.GetWorkloads()) != 1 || resp.GetWorkloads()[0].GetOwner() != "bob" {
		t.Errorf("%v", resp)
	}
	house.Eventually(t, func() string { return "the job runs again" }, func() bool { return load(t, h, "800003").Out == "INSERT 0 1\n" })
}
