package secrets_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/test/e2e/fleet"
)

// logins are resources at the same server whose login comes from a sealed secret, from
// Vault's KV, and from a secret that the server refuses.
const logins = `
apiVersion: postern/v1
kind: Secret
metadata: {name: refused}
spec: {data: {username: warehouse_app, password: "%s"}}
---
%s---
apiVersion: postern/v1
kind: Task
metadata: {name: everywhere, labels: {team: sales}}
spec:
  purpose: use every way to log in
  resources: {names: [warehouse, by-sealed, by-kv, by-refused, by-nothing]}
  permit: [{table: sales.regions, verbs: [select], columns: [code, name]}]
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: everywhere, labels: {team: sales}}
spec: {subjects: [{group: analysts}], tasks: [everywhere]}
`

const login = `
apiVersion: postern/v1
kind: Resource
metadata: {name: %s, labels: {team: sales}}
spec:
  protocol: postgres
  endpoint: {host: "${WAREHOUSE_HOST}", port: ${WAREHOUSE_PORT}, database: warehouse, tls: {mode: verify-full, ca: {pem: "${WAREHOUSE_CA}"}}}
  credential: %s
  catalog: {sealed: warehouse-catalog}
  pin: {search_path: [sales]}
---
`

// world makes the resources; refused is the password that the server does not take.
func world(refused string) string {
	var all strings.Builder
	for _, l := range [][2]string{
		{"by-sealed", "{sealed: warehouse}"}, {"by-kv", "{vault: {mount: secret, path: warehouse}}"},
		{"by-refused", "{sealed: refused}"}, {"by-nothing", "{vault: {mount: database, role: is-not-there}}"},
	} {
		fmt.Fprintf(&all, login, l[0], l[1])
	}
	return fmt.Sprintf(logins, refused, strings.TrimSuffix(all.String(), "---\n"))
}

// story does what people do, and what goes wrong for them: each is a place where a
// secret could be told.
func story(t *testing.T, f *fleet.Fleet, c *canaries) {
	alice := f.Token(t, "alice")
	eu, us := f.Nodes["eu-1-a"], f.Nodes["us-1-a"]

	// Every way to log in, on both nodes.
	for _, n := range []*fleet.Node{eu, us} {
		for _, resource := range []string{"warehouse", "by-sealed", "by-kv"} {
			conn := f.Connect(t, n, "everywhere."+resource, alice)
			if rows, err := fleet.Query(t.Context(), conn, "SELECT count(*) FROM regions"); err != nil || rows[0][0] != "6" {
				t.Errorf("%s at %s: %v %v", resource, n.Name, rows, err)
			}
			_ = conn.Close(t.Context())
		}
	}
	// Logins that fail: at the server, and already at Vault.
	for _, resource := range []string{"by-refused", "by-nothing"} {
		fails(t, f, eu, "everywhere."+resource, alice)
	}
	// Tokens that are none, are for something else, or were cut short.
	for what, wrong := range map[string]string{
		"a wrong password":            "canary-wrong-password-8c1f2a",
		"a grant token that is none":  "pst_canary-not-a-token-77b1c0",
		"a token that was cut short":  alice[:len(alice)-20],
		"a token for the API":         f.APIToken(t, "alice"),
		"a token with a wrong end":    alice[:len(alice)-12] + "canaryAAAAAA",
		"somebody else's join token":  eu.JoinToken,
		"a token with a zero byte in": "canary-before\x00canary-after-the-zero",
	} {
		c.add(what, strings.Split(wrong, "\x00")[0])
		fails(t, f, us, "sales-report.warehouse", wrong)
	}

	// Tokens that are made.
	grant := f.Must(t, "alice", "grant", "sales-report")
	c.add("a grant token", grant)
	fails(t, f, eu, "purge-order.warehouse", grant) // for another task
	conn := f.Connect(t, eu, "sales-report.warehouse", grant)
	if _, err := fleet.Query(t.Context(), conn, "SELECT email FROM customers LIMIT 5"); err != nil {
		t.Error(err)
	}
	nightly := f.Must(t, "ada", "grant", "audit-writer", "--token-file", f.Workload(t))
	c.add("a grant token of a workload", nightly)
	writer := f.Connect(t, us, "audit-writer.warehouse", nightly)
	if _, err := writer.Exec(t.Context(), "INSERT INTO audit.log (actor, action) VALUES ($1, $2)", "nightly", "x"); err != nil {
		t.Error(err)
	}
	token := f.Must(t, "ada", "nodes", "enrol", "eu-1-b", "--region", "eu-1") // and never used
	c.add("a join token", token)

	// Policy that is refused, with a secret in it.
	const sealed = "canary-of-a-refused-apply-5d20"
	c.add("a secret in a refused apply", sealed)
	if r := f.RunWith(t, "ada", "apiVersion: postern/v1\nkind: Secret\nmetadata: {name: Not A Name}\nspec: {data: {username: u, password: "+sealed+"}}\n", nil, "apply", "-f", "-"); r.Code == 0 || strings.Contains(r.Stdout+r.Stderr, sealed) {
		t.Errorf("a bad secret: code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if out := f.Must(t, "ada", "get", "secrets", "--format", "yaml"); len(c.in([]byte(out))) > 0 {
		t.Errorf("secrets can be read back:\n%s", out)
	}

	// A session that is cut, and one that is killed.
	lock := f.Must(t, "ada", "lock", "--subject", "alice", "--reason", "a minute")
	fails(t, f, eu, "sales-report.warehouse", grant)
	f.Must(t, "ada", "unlock", lock)
	f.Must(t, "bob", "audit", "log")
	_ = writer.Close(t.Context())
}

// fails connects where that must be refused.
func fails(t *testing.T, f *fleet.Fleet, n *fleet.Node, permission, token string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := f.Dial(ctx, n, permission, token)
	if err == nil {
		_, err = fleet.Query(ctx, conn, "SELECT count(*) FROM regions")
		_ = conn.Close(ctx)
	}
	if err == nil {
		t.Errorf("%s at %s was let in", permission, n.Name)
	}
}
