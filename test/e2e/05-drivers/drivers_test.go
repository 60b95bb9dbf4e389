// Package drivers shows that stock drivers work through a node, unmodified: each connects
// with what it sends at start-up, reads, prepares, streams, fails, writes and asks for
// metadata in its own way, and tells what it saw as facts, one a line. The test compares
// the facts of all drivers with one table.
package drivers

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

// patience bounds one driver's program.
const patience = time.Minute

func TestDrivers(t *testing.T) {
	h := open(t)
	t.Run("psql", func(t *testing.T) {
		compare(t, h.run(t, h.psql(t), "-X", "-q", "-f", "with_psql.sql"), facts{
			"prepared": "20", "columns": "id integer amount numeric(12,2) email text", "after-refused-savepoint": "6",
			"changed.error": "0A000 cached plan must not change result type",
		}, "wrong-ca", "masked.binary", "refused.detail", "refused.hint") // a script cannot tell these
	})
	t.Run("psycopg2", func(t *testing.T) {
		need(t, psycopg2)
		compare(t, h.run(t, debianPython, "with_psycopg2.py"), facts{
			"types": "16 equal", "types.null": "16 equal",
		}, "masked.binary") // it knows text alone
	})
	t.Run("psycopg", func(t *testing.T) {
		need(t, psycopg3)
		compare(t, h.run(t, debianPython, "with_psycopg.py"), facts{
			"types": "16 equal", "types.null": "16 equal", "types.binary": "16 equal", "types.null.binary": "16 equal",
			"enum": "sad glad", "stream.single-row": "401", "copy.binary": "401 (1,)",
			"after-savepoint": "6", "refused-in-savepoint": "42501", "after-refused-savepoint": "6",
			"pipeline": "210", "pipeline.refused": "42501",
			"changed.error": "0A000 cached plan must not change result type",
		})
	})
	t.Run("asyncpg", func(t *testing.T) {
		need(t, asyncpg)
		compare(t, h.run(t, debianPython, "with_asyncpg.py"), facts{
			"types.binary": "16 equal", "types.null.binary": "16 equal", "enums": "['sad', 'glad']",
			"pool": "30s", "cancelled": "on time",
		}, "masked.text") // it asks for binary wherever it can decode it
	})
	t.Run("jdbc", func(t *testing.T) {
		need(t, jdbc, jdk)
		compare(t, h.run(t, "java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", postgresJar, "Main.java"), jdbcFacts)
	})
	t.Run("node-postgres", func(t *testing.T) {
		need(t, node)
		t.Setenv("NODE_PATH", nodeModules(t))
		compare(t, h.run(t, "node", "with_pg.cjs"), facts{
			"types": "14 equal", "types.null": "14 equal", "simple.several": "a,1 b,2",
			"changed.error": "0A000 cached plan must not change result type",
		}, "copy", "cancelled") // both need packages of their own
	})
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run("pgx/"+mode.String(), func(t *testing.T) {
			own := facts{"pipeline": "210", "pipeline.refused": "42501"}
			if mode == pgx.QueryExecModeCacheStatement {
				own["changed.error"] = "0A000" // once; then the driver forgets the statement
			}
			compare(t, h.pgx(t, mode), own)
		})
	}
	t.Run("pgx/TLS at once", h.directly)
	t.Run("database-sql", func(t *testing.T) {
		compare(t, h.databaseSQL(t), facts{"changed.error": "0A000"},
			"masked.text", "stream", "copy", "cancelled", "write", "isolation") // pgx alone has these, or has shown them
	})
	t.Run("lib-pq", func(t *testing.T) {
		compare(t, h.run(t, goDrivers(t), "pq"), facts{"changed.error": "0A000"}, "copy") // it copies in alone
	})
	t.Run("orms", h.orms)
	t.Run("startups", h.startups)
	t.Run("pgbench", h.bench)
	t.Run("pgbench vacuums first", h.unpermitted)
}

// open starts the house with a shop beside the sample company: a database of many types,
// and a task that may write there.
func open(t *testing.T) *shop {
	t.Helper()
	h := house.Start(t)
	h.Target(t, "INSERT INTO sales.customers VALUES (900002, 'Nobody', 'nobody@leak.example', NULL, NULL, NULL, now())")
	h.PG.SQL(t, "CREATE DATABASE shop STRATEGY file_copy")
	h.PG.SQLIn(t, "shop", string(read(t, "testdata/shop.sql")))
	s := &shop{House: h}
	s.pgbench(t, "", "-i", "-q")
	h.PG.SQLIn(t, "shop", "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO warehouse_rw")
	h.Apply(t, "ada", string(read(t, "testdata/shop.yaml")))
	h.Settled(t)
	return s
}

// A shop is the house with the database "shop".
type shop struct {
	*house.House
	direct bool // connections begin with TLS (sslnegotiation=direct) instead of a request for it
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	return house.Must(os.ReadFile(filepath.FromSlash(name)))(t)
}

// environ is what libpq and those who follow it take from the environment, and nothing
// of the machine's own but what programs need to run.
func (s *shop) environ(t *testing.T) []string {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Nodes[0].PG)
	if err != nil {
		t.Fatal(err)
	}
	env := []string{
		"PGHOST=" + host, "PGPORT=" + port, "PGUSER=sales-report.warehouse", "PGDATABASE=warehouse",
		"PGPASSWORD=" + s.DataToken(t, "alice"), "PGSSLMODE=verify-full", "PGSSLROOTCERT=" + s.CAFile,
		"WRONG_CA=" + s.PG.CAFile, "SHOP_USER=shop-keeper.shop",
		"HOME=" + t.TempDir(), "LC_ALL=C.UTF-8", "TZ=UTC", "PYTHONDONTWRITEBYTECODE=1",
	}
	for _, name := range []string{"PATH", "JAVA_HOME", "NODE_PATH", "ODBCINI"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

func (s *shop) psql(t *testing.T) string {
	t.Helper()
	if s.PG.Psql == "" {
		t.Fatal("missing: install the package postgresql-client")
	}
	return s.PG.Psql
}

// run runs a driver's program, and changes the policy when it asks for that.
func (s *shop) run(t *testing.T, program string, args ...string) facts {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = "clients", s.environ(t)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	in := house.Must(cmd.StdinPipe())(t)
	out := house.Must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	got := facts{}
	var all strings.Builder
	lines := bufio.NewScanner(io.TeeReader(out, &all))
	for lines.Scan() {
		switch name, value, ok := strings.Cut(lines.Text(), "\t"); {
		case !ok:
			t.Errorf("not a fact: %s", lines.Text())
		case name == "change-policy":
			s.show(t, "###")
			defer s.show(t, "***")
			if _, err := io.WriteString(in, "\n"); err != nil {
				t.Errorf("the program does not listen: %v", err)
			}
		default:
			got[name] = strings.TrimSpace(value)
		}
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v\n%s%s", program, err, all.String(), errs.String())
	}
	if leaks := house.Leaks(all.String() + errs.String()); len(leaks) > 0 {
		t.Errorf("leaked %q", leaks)
	}
	return got
}

// show makes the mask of e-mail addresses show a value, on every node.
func (s *shop) show(t *testing.T, value string) {
	t.Helper()
	api := s.API("ada")
	applied := house.Must(api.Policy.Apply(t.Context(), house.Request(&apiv1.ApplyRequest{Objects: s.Objects(t,
		`{apiVersion: postern/v1, kind: Mask, metadata: {name: email}, spec: {method: redact, value: "`+value+`"}}`)})))(t)
	house.Poll(t, "the nodes enforce the new mask", func() (bool, bool) {
		resp := house.Must(api.Nodes.ListNodes(t.Context(), house.Request(&apiv1.ListNodesRequest{})))(t)
		return true, !slices.ContainsFunc(resp.Msg.GetNodes(), func(n *apiv1.NodeStatus) bool {
			return n.GetVersion().GetRevision() < applied.Msg.GetVersion().GetRevision()
		})
	})
}

// facts are what a program saw, by name.
type facts map[string]string

// common is what every driver must see.
var common = facts{
	"wrong-ca":           "refused",
	"simple":             "BR=Brazil DE=Germany FR=France JP=Japan US=United States ZA=South Africa",
	"prepared":           "20 rows, 210",
	"parameters":         "3",
	"masked.text":        "*** ************2222",
	"masked.binary":      "*** ************2222",
	"nulls":              "NULL NULL",
	"stream":             "401",
	"copy":               "401",
	"refused.state":      "42501",
	"refused.message":    `postern: task "sales-report" does not allow SELECT on hr.salaries`,
	"refused.detail":     "rule sales-report/permit: allowed: select on sales.orders, sales.customers, sales.regions",
	"refused.hint":       "ask for a task that may: postern tasks",
	"failed-transaction": "25P02",
	"after-rollback":     "6",
	"server-error":       "22012",
	"cancelled":          "57014",
	"changed":            "###",
	"write":              "10 5 10",
	"isolation":          "serializable",
}

// compare compares what a driver saw with what all must see and what it alone tells;
// without are facts that it cannot tell.
func compare(t *testing.T, got, own facts, without ...string) {
	t.Helper()
	want := maps.Clone(common)
	maps.Copy(want, own)
	for _, name := range without {
		delete(want, name)
	}
	got["nulls"] = strings.NewReplacer("None, None", "NULL NULL", "(", "", ")", "", "null", "NULL", "=", " ").Replace(got["nulls"])
	alike(t, got, want)
}

// alike compares facts, of which there may be no others than wanted.
func alike(t *testing.T, got, want facts) {
	t.Helper()
	names := slices.Sorted(maps.Keys(want))
	for name := range got {
		if _, ok := want[name]; !ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if got[name] != want[name] {
			t.Errorf("%s\n\tis   %q\n\twant %q", name, got[name], want[name])
		}
	}
}
