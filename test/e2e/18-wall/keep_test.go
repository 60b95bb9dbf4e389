package wall

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/test/e2e/house"
)

// TestRevisions follows a task through a change, a repair and its end.
func TestRevisions(t *testing.T) {
	h := start(t)
	live := h.Connect(t, "alice", "report.vault-room")
	first := func() (email string, err error) {
		return email, live.QueryRow(t.Context(), "SELECT email FROM customers WHERE id = 1").Scan(&email)
	}
	if email, err := first(); email != "***" || err != nil {
		t.Fatal(email, err)
	}
	schema := func() string {
		return h.Target(t, `SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_namespace WHERE nspname LIKE 'postern\_%\_report\_%'`)[0][0]
	}
	before := schema()
	h.Apply(t, "ada", "kind: Mask\nmetadata: {name: email}\nspec: {method: redact, value: hidden}\n")
	house.Eventually(t, func() string { return "the live session sees the new mask" }, func() bool {
		email, _ := first()
		return email == "hidden"
	})
	house.Eventually(t, func() string { return "only the new views are left: " + schema() }, func() bool {
		now := schema()
		return now != before && !strings.Contains(now, " ")
	})

	// Whatever somebody makes of it at the target, it is made right again.
	role := h.Target(t, `SELECT rolname FROM pg_roles WHERE rolname LIKE 'postern\_%\_t\_report'`)[0][0]
	h.Target(t, fmt.Sprintf(`GRANT SELECT ON sales.customers, hr.salaries TO "%s"; GRANT warehouse_rw TO "%[1]s";
		CREATE OR REPLACE VIEW "%s"."sales.regions" AS SELECT code, 'wrong' AS name FROM sales.regions`, role, schema()))
	house.Eventually(t, func() string { return "the privileges are those of the task again" }, func() bool {
		return h.Target(t, fmt.Sprintf(`SELECT NOT has_table_privilege('%s', 'hr.salaries', 'SELECT') AND NOT has_table_privilege('%[1]s', 'sales.customers', 'SELECT')
			AND NOT pg_has_role('%[1]s', 'warehouse_rw', 'MEMBER')`, role))[0][0] == "t"
	})
	house.Eventually(t, func() string { return "the view is that of the task again" }, func() bool {
		return h.Target(t, fmt.Sprintf(`SELECT count(*) FROM "%s"."sales.regions" WHERE name = 'wrong'`, schema()))[0][0] == "0"
	})

	h.Apply(t, "ada", "kind: Binding\nmetadata: {name: vault-room}\nspec: {subjects: [{group: analysts}], tasks: [clerk]}\n")
	h.Delete(t, "task", "report")
	h.Delete(t, "task", "regional")
	house.Eventually(t, func() string { return "what stood for the tasks is gone: " + walls(t, h) }, func() bool {
		return !strings.Contains(walls(t, h), "report") && !strings.Contains(walls(t, h), "regional") && strings.Contains(walls(t, h), "clerk")
	})
}

// TestGrantedByOthers: what a wall cannot take from a task's role keeps sessions out, and is told.
func TestGrantedByOthers(t *testing.T) {
	h := start(t)
	_ = h.Connect(t, "alice", "report.vault-room")
	role := h.Target(t, `SELECT rolname FROM pg_roles WHERE rolname LIKE 'postern\_%\_t\_report'`)[0][0]
	h.Target(t, fmt.Sprintf(`CREATE ROLE deputy; GRANT SELECT ON hr.salaries TO deputy WITH GRANT OPTION; GRANT USAGE ON SCHEMA hr TO deputy;
		SET ROLE deputy; GRANT SELECT ON hr.salaries TO "%s"`, role))
	house.Eventually(t, func() string { return h.CLI(t, "ada", "doctor", "report").All() }, func() bool {
		d := h.CLI(t, "ada", "doctor", "report")
		return d.Code == 6 && strings.Contains(d.Out, `has SELECT on TABLE "hr"."salaries"`)
	})
	if r := h.Psql(t, "alice", "report.vault-room", "SELECT 1;\n"); r.Code == 0 || !strings.Contains(r.All(), "credential") {
		t.Errorf("a session is let in: %s", r.All())
	}
	h.Target(t, fmt.Sprintf(`SET ROLE deputy; REVOKE SELECT ON hr.salaries FROM "%s"`, role))
	house.Eventually(t, func() string { return "sessions are let in again" }, func() bool {
		return h.Psql(t, "alice", "report.vault-room", "SELECT 1;\n").Code == 0
	})
}

// TestNobodyStopsTheWall: no lock that a session can take, and nothing that it can give to a task's
// role, keeps others from their logins.
func TestNobodyStopsTheWall(t *testing.T) {
	h := start(t)
	_, _ = h.Connect(t, "alice", "report.vault-room"), h.Connect(t, "alice", "clerk.vault-room")
	thief := steal(t, h, account(t, h, "report"))
	for _, text := range []string{
		"BEGIN", "SAVEPOINT s", "COMMENT ON ROLE postern_login IS 'mine'", "ROLLBACK TO s", "SELECT FROM pg_roles, pg_auth_members",
		"SELECT pg_advisory_lock(x'706f737465726e'::bigint)", // which walls of one server once took
	} {
		if _, err := thief.Exec(t.Context(), text); err != nil && !strings.HasPrefix(text, "COMMENT") {
			t.Fatal(text, err)
		}
	}
	other := steal(t, h, account(t, h, "clerk"))
	role := h.Target(t, `SELECT rolname FROM pg_roles WHERE rolname LIKE 'postern\_%\_t\_report'`)[0][0]
	for _, text := range []string{
		"CREATE TEMP TABLE mine (i int)", `GRANT SELECT ON mine TO "%s"`, `CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `GRANT EXECUTE ON FUNCTION pg_temp.f TO "%s"`,
		"SELECT lo_create(4242)", `GRANT SELECT ON LARGE OBJECT 4242 TO "%s"`, `ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO "%s"`,
	} {
		if _, err := other.Exec(t.Context(), strings.ReplaceAll(text, "%s", role)); err != nil {
			t.Fatal(text, err)
		}
	}
	h.Apply(t, "ada", "kind: Mask\nmetadata: {name: email}\nspec: {method: redact, value: hidden}\n") // all walls are built anew
	for _, task := range []string{"clerk", "report"} {
		if r := h.Psql(t, "alice", task+".vault-room", "SELECT 1;\n"); r.Code != 0 {
			t.Errorf("%s: %s", task, r.All())
		}
	}
}

// TestLeft: with a resource that has left policy goes the wall's connection to it, and the loan of
// its admin credential.
func TestLeft(t *testing.T) {
	h := start(t)
	connections := func() int {
		return len(h.Target(t, "SELECT FROM pg_stat_activity WHERE application_name = 'postern-wall'"))
	}
	house.Eventually(t, func() string { return "the wall is connected" }, func() bool { return connections() == 1 })
	h.Delete(t, "binding", "vault-room")
	for _, task := range []string{"report", "clerk", "regional", "anything"} {
		h.Delete(t, "task", task)
	}
	h.Delete(t, "resource", "vault-room")
	house.Eventually(t, func() string { return "the connection is closed" }, func() bool { return connections() == 0 })
	house.Eventually(t, func() string { return "the loan is given back" }, func() bool {
		r, err := h.API("ada").Nodes.ListNodes(t.Context(), house.Request(&apiv1.ListNodesRequest{}))
		return err == nil && slices.ContainsFunc(r.Msg.GetNodes(), func(n *apiv1.NodeStatus) bool {
			return n.GetRole() == postern.RoleWall && n.GetReport().GetLeases() == 0
		})
	})
}

// TestExpired ends what a login's time has run out for, though nobody gave it back.
func TestExpired(t *testing.T) {
	h := start(t)
	_ = h.Connect(t, "alice", "report.vault-room")
	login := account(t, h, "report")
	h.Target(t, fmt.Sprintf(`ALTER ROLE "%s" VALID UNTIL '2020-01-01'`, login))
	house.Eventually(t, func() string { return "login and connection are gone" }, func() bool {
		return len(h.Target(t, fmt.Sprintf("SELECT FROM pg_roles WHERE rolname = '%s' UNION ALL SELECT FROM pg_stat_activity WHERE usename = '%[1]s'", login))) == 0
	})
}

// TestWallGone lets nobody in at another level than the one that is wanted.
func TestWallGone(t *testing.T) {
	h := start(t)
	live := h.Connect(t, "alice", "report.vault-room")
	h.StopWall()
	r := h.Psql(t, "alice", "report.vault-room", "SELECT 1;\n")
	if r.Code == 0 || !strings.Contains(r.All(), "credential") {
		t.Errorf("without a wall: %s", r.All())
	}
	var n int
	if err := live.QueryRow(t.Context(), "SELECT count(*) FROM customers").Scan(&n); err != nil || n == 0 {
		t.Errorf("a session that is open: %d, %v", n, err)
	}
	house.Eventually(t, func() string { return "doctor says so" }, func() bool {
		d := h.CLI(t, "ada", "doctor", "report")
		return d.Code == 6 && strings.Contains(d.Out, "not served") && strings.Contains(d.Out, "none")
	})
}

// TestDoctor tells levels, and what weakens them at the target.
func TestDoctor(t *testing.T) {
	h := start(t)
	house.Eventually(t, func() string { return h.CLI(t, "ada", "doctor", "report").All() }, func() bool {
		return h.CLI(t, "ada", "doctor", "report").Code == 0
	})
	text := h.CLI(t, "ada", "doctor", "report").Out
	for _, want := range []string{"report/permit[1]", "L3", "select on sales.customers", "pg_hba.conf", "wall-1"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	h.Target(t, `CREATE FUNCTION public.peek() RETURNS SETOF sales.customers LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM sales.customers';
		CREATE FUNCTION hr.peek() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
		GRANT SELECT ON sales.regions TO PUBLIC; GRANT USAGE ON SCHEMA sales TO PUBLIC; GRANT CREATE ON SCHEMA public TO PUBLIC`)
	r := h.CLI(t, "ada", "doctor", "vault-room", "--format", "json")
	var out struct {
		Resources []struct {
			Findings []struct{ Severity, Check, Object string }
			Tasks    []struct {
				Task    string
				Permits []struct {
					Level   string
					Remains []string
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(r.Out), &out); err != nil || r.Code != 6 {
		t.Fatalf("code %d, %v\n%s", r.Code, err, r.All())
	}
	found := map[string]string{}
	for _, f := range out.Resources[0].Findings {
		found[f.Check+" "+strings.Fields(f.Object)[0]] = f.Severity
	}
	for object, severity := range map[string]string{
		"definer-function public.peek()": "weakens", "definer-function hr.peek()": "note", "public-table sales.regions": "weakens",
		"create-schema-object public": "weakens",
	} {
		if found[object] != severity {
			t.Errorf("%s is %q, want %q; all: %v", object, found[object], severity, found)
		}
	}
	levels := map[string]string{}
	for _, task := range out.Resources[0].Tasks {
		levels[task.Task] = task.Permits[0].Level
	}
	if levels["report"] != "L3" || levels["anything"] != "L0" {
		t.Errorf("levels %v", levels)
	}
	if r := h.CLI(t, "ada", "doctor", "sales-report"); r.Code != 0 || !strings.Contains(r.Out, "L2") {
		t.Errorf("of a task at level source: %d %s", r.Code, r.All())
	}
	if r := h.CLI(t, "ada", "doctor", "nothing"); r.Code != 1 {
		t.Errorf("of nothing: %d %s", r.Code, r.All())
	}
	if r := h.CLI(t, "alice", "doctor", "report"); r.Code != 3 {
		t.Errorf("as alice: %d %s", r.Code, r.All())
	}
	// What a definer function shows a session that is past the node is what doctor warns of.
	_ = h.Connect(t, "alice", "report.vault-room")
	if got := h.Psql(t, "alice", "report.vault-room", "SELECT * FROM public.peek();\n"); !strings.Contains(got.All(), "42501") {
		t.Errorf("through the node: %s", got.All())
	}
}
