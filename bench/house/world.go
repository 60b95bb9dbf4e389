package house

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
)

// The database that everything is measured on, and the account that every target logs
// in as. TrustAccount needs no password: what a login costs without a gateway at best.
const (
	Database     = "bench"
	Account      = "bench_app"
	TrustAccount = "bench_trust"
	catalogUser  = "bench_catalog"
)

// The tasks of the benchmark, by what they add.
const (
	TaskPass   = "bench-pass"   // policy and recording
	TaskMasked = "bench-masked" // and a mask on one column of each table
	TaskRows   = "bench-rows"   // and every row recorded
	TaskAsync  = "bench-async"  // records may lag by 200 ms
	TaskDisk   = "bench-disk"   // records are on disk before a statement goes on
	TaskPool   = "bench-pool"   // policy and recording, and sessions share connections
)

// The resources: the server, masked at the source, and the same server behind one that
// answers from memory, masked on the way back.
const (
	Resource      = "bench"
	BlastResource = "blast"
)

// Scale is pgbench's; BigRows and PeopleRows are rows of the two tables beside.
const (
	Scale      = 10
	BigRows    = 100_000
	PeopleRows = 100_000
)

const schema = `
CREATE TABLE big (id int PRIMARY KEY, name text, email text, card text, note text, created timestamptz);
INSERT INTO big SELECT i, 'name ' || i, 'user' || i || '@example.com', lpad((i * 7919)::text, 16, '4'), repeat(md5(i::text), 4), '2026-01-01'::timestamptz + i * interval '1 second'
	FROM generate_series(1, %d) i;
CREATE TABLE people (id int PRIMARY KEY, name text, email text, country text);
INSERT INTO people SELECT i, 'name ' || i, 'user' || i || '@example.com', 'DE' FROM generate_series(1, %d) i;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO %s, %s;
VACUUM ANALYZE;
`

// World is the resource and the tasks, with the passwords of the accounts.
func world(password, catalog, blast string) string {
	secret := func(name, account, password string) string {
		return fmt.Sprintf("apiVersion: postern/v1\nkind: Secret\nmetadata: {name: %s}\nspec: {data: {username: %s, password: %s}}\n---\n", name, account, password)
	}
	var b strings.Builder
	b.WriteString(secret("bench", Account, password))
	b.WriteString(secret("bench-catalog", catalogUser, catalog))
	b.WriteString(Policy("${WAREHOUSE_HOST}", "${WAREHOUSE_PORT}"))
	host, port, _ := net.SplitHostPort(blast)
	b.WriteString("---\n" + resource(BlastResource, host, port, "result"))
	b.WriteString(`---
apiVersion: postern/v1
kind: Binding
metadata: {name: bench}
spec:
  subjects: [{group: analysts}]
  tasks: [bench-pass, bench-masked, bench-rows, bench-async, bench-disk, bench-pool]
`)
	return b.String()
}

// Policy is the resource at an address, its mask and the tasks, as YAML documents.
func Policy(host, port string) string {
	var b strings.Builder
	b.WriteString(`apiVersion: postern/v1
kind: Mask
metadata: {name: bench-email}
spec: {method: redact, value: "***"}
---
`)
	b.WriteString(resource(Resource, host, port, "source"))
	for _, t := range []struct{ name, mask, rest string }{
		{TaskPass, "", ""}, {TaskMasked, ", mask: {email: bench-email}", ""}, {TaskRows, "", "record: {resultRows: 100000}"},
		{TaskAsync, "", "record: {read: async}"}, {TaskDisk, "", "record: {read: disk}"},
		{TaskPool, "", "credential: {reuse: pool}"},
	} {
		fmt.Fprintf(&b, `---
apiVersion: postern/v1
kind: Task
metadata: {name: %[1]s}
spec:
  purpose: to be measured
  resources: {names: [bench, blast]}
  permit:
    - {table: public.pgbench_accounts, verbs: [select], columns: [aid, bid, abalance, filler]}
    - {table: public.big, verbs: [select], columns: [id, name, email, card, note, created]%[2]s}
    - {table: public.people, verbs: [select], columns: [id, name, email, country]%[2]s}
  duration: 8h
  %[3]s
`, t.name, t.mask, t.rest)
	}
	return b.String()
}

func resource(name, host, port, level string) string {
	return fmt.Sprintf(`apiVersion: postern/v1
kind: Resource
metadata: {name: %s}
spec:
  protocol: postgres
  endpoint: {host: "%s", port: %s, database: bench, tls: {mode: disable}}
  credential: {sealed: bench}
  catalog: {sealed: bench-catalog}
  level: {want: %s}
  pin: {search_path: [public]}
`, name, host, port, level)
}

// fill makes the accounts and the tables.
func (h *House) fill(ctx context.Context) error {
	pg := h.PG
	for _, text := range []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", Account, h.Password),
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", catalogUser, h.catalogPassword),
		fmt.Sprintf("CREATE ROLE %s LOGIN", TrustAccount),
		"CREATE DATABASE " + Database,
	} {
		if _, err := pg.Exec(ctx, "postgres", text); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, pg.Pgbench, "-i", "-q", "-I", "dtGp", "-s", fmt.Sprint(Scale), "-h", pg.Host, "-p", fmt.Sprint(pg.Port), "-U", pg.Superuser, Database)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+pg.Password, "PGSSLMODE=require")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench -i: %w\n%s", err, out)
	}
	for _, text := range strings.SplitAfter(fmt.Sprintf(schema, BigRows, PeopleRows, Account, TrustAccount), ";\n") {
		if strings.TrimSpace(text) == "" {
			continue
		}
		if _, err := pg.Exec(ctx, Database, text); err != nil {
			return fmt.Errorf("fill: %w", err)
		}
	}
	return nil
}
