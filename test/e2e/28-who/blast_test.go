package who

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/protobuf/encoding/protojson"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/test/e2e/house"
)

// stolen is the warehouse once more at level native, and once more for another region.
const stolen = `
kind: Resource
metadata: {name: vault-room}
spec:
  protocol: postgres
  endpoint: {host: "${WAREHOUSE_HOST}", port: ${WAREHOUSE_PORT}, database: warehouse, tls: {mode: verify-full, ca: {pem: "${WAREHOUSE_CA}"}}}
  credential: {sealed: warehouse}
  catalog: {sealed: warehouse-catalog}
  level: {want: native, admin: {sealed: warehouse-admin}}
  pin: {search_path: [sales]}
---
kind: Resource
metadata: {name: far-room}
spec:
  protocol: postgres
  endpoint: {host: "${WAREHOUSE_HOST}", port: ${WAREHOUSE_PORT}, database: warehouse, tls: {mode: verify-full, ca: {pem: "${WAREHOUSE_CA}"}}}
  credential: {sealed: warehouse}
  catalog: {sealed: warehouse-catalog}
  reachableFrom: {region: far}
---
kind: Task
metadata: {name: clerk}
spec:
  purpose: work on orders
  resources: {names: [vault-room]}
  permit:
    - {table: sales.orders, verbs: [select, update, delete], columns: [id, status, customer_email], writeColumns: [status], mask: {customer_email: email}}
    - {table: audit.log, verbs: [insert], writeColumns: [actor, action]}
    - {table: sales.regions, verbs: [select], columns: [code]}
  duration: 1h
---
kind: Binding
metadata: {name: clerks}
spec: {subjects: [{group: analysts}], tasks: [clerk]}
`

// TestBlastIsTrue does what blast lists with each stolen thing, and everything else that
// could be tried with it: what is listed works, and nothing else does.
func TestBlastIsTrue(t *testing.T) {
	h := house.Start(t, house.Options{
		Wall: true, Extra: stolen,
		Nodes: []house.NodeSpec{{Name: "node-1", Region: "near"}, {Name: "node-2", Region: "far"}},
	})
	h.Target(t, "GRANT warehouse_app TO warehouse_admin WITH ADMIN OPTION")
	b := &blaster{House: h, columns: h.Target(t, `SELECT c.table_schema || '.' || c.table_name, c.column_name FROM information_schema.columns c
		JOIN information_schema.tables t USING (table_schema, table_name)
		WHERE t.table_type = 'BASE TABLE' AND c.table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2`)}
	if len(b.columns) < 20 {
		t.Fatalf("the target has no tables to try: %v", b.columns)
	}
	house.Eventually(t, func() string { return "the task at level native is served" }, func() bool {
		return h.Psql(t, "alice", "clerk.vault-room", "SELECT 1;\n").Code == 0
	})
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{{"grant token", b.grantToken}, {"data token", b.dataToken}, {"API token", b.apiToken}, {"what is no thing", b.nothing}, {"node and lease", b.node}} {
		t.Run(step.name, step.do)
	}
}

type blaster struct {
	*house.House
	columns [][]string // of the target: table and column
}

// blast asks as ada does; a token goes in by standard input.
func (b *blaster) blast(t *testing.T, token string, args ...string) *apiv1.GetBlastResponse {
	t.Helper()
	p := b.Person(t)
	p.Env = append(p.Env, "POSTERN_TOKEN="+b.APIToken(t, "ada"))
	if token != "" {
		args = append(args, "--token-file", "-")
	}
	r := p.Run(t, token, append([]string{"blast", "--format", "json"}, args...)...)
	if r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	resp := &apiv1.GetBlastResponse{}
	if err := protojson.Unmarshal([]byte(r.Out), resp); err != nil {
		t.Fatalf("%v: %s", err, r.Out)
	}
	if token != "" && strings.Contains(r.All(), token) {
		t.Error("the answer has the token in it")
	}
	return resp
}

// stop does what blast says will end it.
func (b *blaster) stop(t *testing.T, command string) {
	t.Helper()
	if r := b.CLI(t, "ada", strings.Fields(command)[1:]...); r.Code != 0 {
		t.Fatalf("%s: %+v", command, r)
	}
}

// key is one thing that can be done to a column, or to a table where that is empty.
type key struct{ verb, table, column string }

// listed are the rights of a reach, true where nothing else must be so.
func listed(r *apiv1.Reach) map[key]bool {
	out := map[key]bool{}
	for _, right := range r.GetRights() {
		columns := right.GetColumns()
		if len(columns) == 0 {
			columns = []string{""}
		}
		for _, c := range columns {
			out[key{right.GetVerb(), right.GetObject(), c}] = len(right.GetTerms()) == 0
		}
	}
	return out
}

// held compares what works on a connection with the rights that are listed: every verb on
// every column of every table, and on what is listed itself.
func (b *blaster) held(t *testing.T, conn *pgx.Conn, r *apiv1.Reach) {
	t.Helper()
	rights := listed(r)
	tries := map[key]bool{}
	for k := range rights {
		tries[k] = true
	}
	for _, c := range b.columns {
		for _, verb := range []string{"select", "insert", "update"} {
			tries[key{verb, c[0], c[1]}] = true
		}
		tries[key{"delete", c[0], ""}], tries[key{"truncate", c[0], ""}] = true, true
	}
	worked, refused := 0, 0
	for k := range tries {
		at, is := rights[k]
		if k.verb == "call" || is && !at {
			continue // with a term that this test does not bring about
		}
		_, err := conn.Exec(t.Context(), "BEGIN")
		if err != nil {
			t.Fatal(err)
		}
		if _, err = conn.Exec(t.Context(), statement(k), pgx.QueryExecModeSimpleProtocol); may(err) {
			worked++
		} else {
			refused++
		}
		if may(err) != is {
			t.Errorf("%s.%s: %s: listed %v, and: %v", r.GetTask(), r.GetResource(), statement(k), is, err)
		}
		if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%s %s.%s: %d worked and were listed, %d did not", r.GetAct(), r.GetTask(), r.GetResource(), worked, refused)
	if worked == 0 || refused == 0 {
		t.Errorf("%s.%s: %d worked and %d were refused: this shows nothing", r.GetTask(), r.GetResource(), worked, refused)
	}
}

// statement does what a key says, to no row where there is a choice.
func statement(k key) string {
	column := pgx.Identifier{k.column}.Sanitize()
	switch k.verb {
	case "select":
		return fmt.Sprintf("SELECT %s FROM %s LIMIT 1", column, k.table)
	case "insert":
		return fmt.Sprintf("INSERT INTO %s (%s) VALUES (NULL)", k.table, column)
	case "update":
		return fmt.Sprintf("UPDATE %s SET %s = NULL", k.table, column)
	case "delete":
		return "DELETE FROM " + k.table
	case "truncate":
		return "TRUNCATE " + k.table
	}
	return k.verb
}

// may reports whether an answer is anything but a no: a NULL where none may stand is the
// table's own matter.
func may(err error) bool {
	var pe *pgconn.PgError
	return err == nil || errors.As(err, &pe) && pe.Code != "42501" && pe.Code != "57P01"
}

// open connects with a token as a reach says.
func (b *blaster) open(t *testing.T, n *house.Node, token, task, resource string) (*pgx.Conn, error) {
	t.Helper()
	cfg := house.Must(pgx.ParseConfig(b.Conninfo(n, task+"."+resource)))(t)
	cfg.Password = token
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	}
	return conn, err
}

// everywhere connects with a token for every task at every resource, and compares what
// opens with what is listed. Those that must be approved first are listed with that.
func (b *blaster) everywhere(t *testing.T, token string, resp *apiv1.GetBlastResponse) {
	t.Helper()
	reaches := map[[2]string]*apiv1.Reach{}
	for _, r := range resp.GetReaches() {
		if r.GetAct() == "connect" {
			reaches[[2]string{r.GetTask(), r.GetResource()}] = r
		}
	}
	for _, task := range b.names(t, "task") {
		for _, resource := range b.names(t, "resource") {
			r := reaches[[2]string{task, resource}]
			if r != nil && len(r.GetTerms()) > 0 {
				continue
			}
			n := b.Nodes[0]
			if r != nil && !slices.Contains(r.GetAddresses(), n.PG) {
				t.Errorf("%s.%s: %s is not among %v", task, resource, n.PG, r.GetAddresses())
			}
			conn, err := b.open(t, n, token, task, resource)
			if (err == nil) != (r != nil) {
				t.Errorf("%s.%s: listed %v, and: %v", task, resource, r != nil, err)
			}
			if err != nil {
				continue
			}
			if r != nil {
				b.held(t, conn, r)
			}
			_ = conn.Close(t.Context())
		}
	}
	if err := atAPI(t.Context(), b.House, token); err == nil {
		t.Error("the API takes it, and that is not listed")
	}
}

func (b *blaster) names(t *testing.T, kind string) []string {
	t.Helper()
	var out []string
	for _, o := range house.Must(b.API("ada").Policy.List(t.Context(), house.Request(&apiv1.ListRequest{Kind: kind})))(t).Msg.GetObjects() {
		out = append(out, cmp.Or(o.GetTask().GetMetadata().GetName(), o.GetResource().GetMetadata().GetName()))
	}
	return out
}

func atAPI(ctx context.Context, h *house.House, token string) error {
	_, err := h.APIWith(token).Access.WhoAmI(ctx, house.Request(&apiv1.WhoAmIRequest{}))
	return err
}

func (b *blaster) grantToken(t *testing.T) {
	token := house.Must(b.API("alice").Grants.CreateGrant(t.Context(), house.Request(&apiv1.CreateGrantRequest{Task: "sales-report"})))(t).Msg.GetToken()
	resp := b.blast(t, token)
	if len(resp.GetReaches()) != 1 || resp.GetDead() != "" || resp.GetEndTime() == nil || !strings.Contains(resp.GetThing(), "alice") {
		t.Fatalf("%v", resp)
	}
	b.everywhere(t, token, resp)
	b.stop(t, resp.GetStops()[0])
	if dead := b.blast(t, token); !strings.Contains(dead.GetDead(), "ada") || len(dead.GetReaches()) != 0 {
		t.Errorf("after %q: %v", resp.GetStops()[0], dead)
	}
	b.everywhere(t, token, &apiv1.GetBlastResponse{})
	if r := b.CLI(t, "ada", "audit", "log", "--limit", "1000", "--format", "json"); !strings.Contains(r.Out, "LockService/GetBlast") || strings.Contains(r.Out, token) {
		t.Errorf("the audit log does not tell who asked, or tells the token: %.3000s", r.All())
	}
}

func (b *blaster) dataToken(t *testing.T) {
	token := b.DataToken(t, "alice")
	resp := b.blast(t, token)
	b.everywhere(t, token, resp)
	terms := map[string]string{}
	for _, r := range resp.GetReaches() {
		terms[r.GetTask()] = strings.Join(r.GetTerms(), "; ")
		if r.GetEndTime() == nil || r.GetAct() != "connect" {
			t.Errorf("%v", r)
		}
	}
	if got := terms["schema-change"]; !strings.Contains(got, "1 of leads must approve each session") {
		t.Errorf("a task that asks for every session: %q of %v", got, slices.Sorted(maps.Keys(terms)))
	}
	if r := b.Person(t).Run(t, "", "blast", token); r.Code != 2 || !strings.Contains(r.Err, "can be seen by everybody") || strings.Contains(r.All(), token) {
		t.Errorf("a token on the command line: %+v", r)
	}
}

func (b *blaster) apiToken(t *testing.T) {
	token := b.APIToken(t, "bob")
	resp := b.blast(t, token)
	may := map[string]bool{}
	tasks := map[string]bool{}
	for _, r := range resp.GetReaches() {
		switch r.GetAct() {
		case "call":
			for _, right := range r.GetRights() {
				may[right.GetObject()] = true
			}
		case "take":
			tasks[r.GetTask()] = true
		default:
			t.Errorf("%v", r)
		}
	}
	for _, task := range b.names(t, "task") {
		_, err := b.API("bob").Grants.CreateGrant(t.Context(), house.Request(&apiv1.CreateGrantRequest{Task: task}))
		if (err == nil) != tasks[task] {
			t.Errorf("%s: listed %v, and: %v", task, tasks[task], err)
		}
	}
	for method, call := range map[string]func() error{
		"AccessService/WhoAmI": func() error { return atAPI(t.Context(), b.House, token) },
		"NodeAdminService/ListNodes": func() error {
			_, err := b.API("bob").Nodes.ListNodes(t.Context(), house.Request(&apiv1.ListNodesRequest{}))
			return err
		},
		"NodeAdminService/CreateJoinToken": func() error {
			_, err := b.API("bob").Nodes.CreateJoinToken(t.Context(), house.Request(&apiv1.CreateJoinTokenRequest{Name: "x"}))
			return err
		},
		"LockService/GetBlast": func() error {
			_, err := b.API("alice").Locks.GetBlast(t.Context(), house.Request(&apiv1.GetBlastRequest{Node: "node-1"}))
			return err
		},
	} {
		if method == "LockService/GetBlast" {
			if call() == nil {
				t.Error("alice, who has no role, is told what a thief could do")
			}
			continue
		}
		if (call() == nil) != may[method] {
			t.Errorf("%s: listed %v", method, may[method])
		}
	}
	if _, err := b.open(t, b.Nodes[0], token, "sales-report", "warehouse"); err == nil {
		t.Error("a listener takes it, and that is not listed")
	}
}

// nothing: what was never there is told from what is dead.
func (b *blaster) nothing(t *testing.T) {
	for _, token := range []string{"nonsense", "pst_" + strings.Repeat("a", 49), b.DataToken(t, "alice")[:40] + ".x.y"} {
		if resp := b.blast(t, token); resp.GetDead() == "" || len(resp.GetReaches())+len(resp.GetStops()) != 0 {
			t.Errorf("%v", resp)
		}
	}
	for _, name := range []string{"g-aaaaaaaaaaaaaaaa", "l-000000", "node-9"} {
		if r := b.CLI(t, "ada", "blast", name); r.Code != 1 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// unreadable reads a node's disk and finds none of what went through it.
func (b *blaster) unreadable(t *testing.T, dir string, words ...string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		files++
		for _, w := range words {
			if strings.Contains(string(text), w) {
				t.Errorf("%s has %q in it", path, w)
			}
		}
		return nil
	})
	if err != nil || files < 2 {
		t.Errorf("%d files: %v", files, err)
	}
}

// pose listens with a node's server certificate, as who stole it would, and is believed
// by a client that trusts our CA.
func (b *blaster) pose(t *testing.T, cert *tls.Certificate, address string) error {
	t.Helper()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	ln := house.Must(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*cert}}))(t)
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			_ = c.(*tls.Conn).HandshakeContext(context.Background())
			_ = c.Close()
		}
	}()
	cfg := b.TLS()
	cfg.ServerName = host
	c, err := tls.Dial("tcp", ln.Addr().String(), cfg)
	if err == nil {
		_ = c.Close()
	}
	return err
}
