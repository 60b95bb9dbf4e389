package drivers

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/test/e2e/house"
)

// outside matches names of the warehouse that sales-report does not know of, and accounts
// of others.
var outside = regexp.MustCompile(`salaries|phone|\bnote\b|\bhr\b|\baudit\b|warehouse_catalog|log_id_seq`)

// TestTools shows that what tools ask to list a database is answered for a task that
// knows little of it, and that they list just that.
func TestTools(t *testing.T) {
	h := house.Start(t)
	h.PG.SQL(t, "CREATE DATABASE hr STRATEGY file_copy")
	h.Target(t, "CREATE INDEX orders_note ON sales.orders (note); CREATE INDEX orders_expr ON sales.orders (lower(note)); COMMENT ON COLUMN sales.orders.note IS 'phone'; COMMENT ON TABLE hr.salaries IS 'hr'")
	h.Target(t, "CREATE TABLE hr.bonus (id int PRIMARY KEY, customer int REFERENCES sales.customers, phone text)")
	h.Target(t, "CREATE FUNCTION hr.phone(int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
	h.Settled(t)
	t.Run("psql", func(t *testing.T) {
		r := h.Psql(t, "alice", "sales-report", strings.Join([]string{
			`\d`, `\d orders`, `\d+ customers`, `\d customers_pkey`, `\dt`, `\dt *.*`, `\df+`, `\dF+`, `\dPt+`, `\copy (SELECT id FROM orders LIMIT 1) TO STDOUT (FORMAT csv, ENCODING 'UTF8')`, `\dv *.*`, `\di *.*`, `\ds *.*`, `\du`, `\df`, `\df *.*`, `\db`, `\l`, `\dn`, `\dn+`,
			`\dT *.*`, `\dp *.*`, `\dx`, `\dy`, `\do`, `\dD`, `\ddp`, `\dc`, `\dC`, `\dA`, `\dL`, `\dO`, `\dE`, `\dm`, `\dP`, `\dRp`, `\dFt`, `\des`, `\dew`, `\dd`, `\conninfo`, `\encoding`, `\z orders`, "",
		}, "\n"))
		if strings.Contains(r.Err, "ERROR") {
			t.Error(r.Err)
		}
		inside(t, "psql", r.Out)
		for _, shown := range []string{"sales|orders|table", "customers_email_key", "warehouse_rw|", "warehouse|postgres|UTF8", "customer_email|text", "orders_customer|index"} {
			if !strings.Contains(r.Out, shown) {
				t.Errorf("psql does not show %q", shown)
			}
		}
	})
	t.Run("counters", func(t *testing.T) {
		for _, view := range []string{"pg_stat_all_tables", "pg_stat_user_tables", "pg_stat_all_indexes", "pg_stat_user_indexes", "pg_statio_all_tables", "pg_statio_user_tables"} {
			columns := "SELECT string_agg(format('count(%I)', attname), '+') FROM pg_attribute WHERE attrelid = '" + view + "'::regclass AND attnum > 0 AND atttypid NOT IN ('oid'::regtype, 'name'::regtype)"
			count := strings.TrimSpace(h.Psql(t, "alice", "sales-report", columns).Out)
			if r := h.Psql(t, "alice", "sales-report", "SELECT count(relid) > 0, "+count+" FROM "+view); strings.TrimSpace(r.Out) != "t|0" {
				t.Errorf("of %s there are %s, %s", view, r.Out, r.Err)
			}
		}
		// Drizzle's kit asks these two when it pulls a schema.
		r := h.Psql(t, "alice", "sales-report", "SELECT indexrelname FROM pg_stat_user_indexes UNION SELECT sequencename FROM pg_sequences ORDER BY 1")
		if strings.Join(strings.Fields(r.Out), " ") != "customers_email_key customers_pkey orders_customer orders_pkey regions_pkey" {
			t.Errorf("of indexes and sequences there are %s, %s", r.Out, r.Err)
		}
	})
	s := tools{&shop{House: h}}
	for _, tool := range []string{"dbeaver", "metabase"} {
		t.Run(tool, func(t *testing.T) { s.recorded(t, tool) })
	}
	t.Run("jdbc", func(t *testing.T) {
		need(t, jdbc, jdk)
		s.lists(t, "", "java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", postgresJar, "tools/Metadata.java")
	})
	t.Run("sqlalchemy", func(t *testing.T) {
		need(t, psycopg2, sqlalchemy)
		s.lists(t, "", debianPython, "tools/sqlalchemy_inspect.py")
	})
	t.Run("django", func(t *testing.T) {
		need(t, psycopg2, djangoORM)
		s.lists(t, "", debianPython, "tools/django_inspect.py")
	})
	t.Run("node", func(t *testing.T) {
		need(t, node)
		t.Setenv("NODE_PATH", nodeModules(t))
		s.lists(t, "", "node", "tools/node_inspect.cjs")
	})
	t.Run("DBI", func(t *testing.T) {
		need(t, perlDBI)
		s.lists(t, "", "perl", "tools/dbi_lists.pl")
	})
	t.Run("ODBC", s.odbc)
	t.Run("psql completes", func(t *testing.T) {
		s.lists(t, completions, debianPython, "tools/typed.py", s.psql(t), "-X", "-P", "pager=off")
	})
	t.Run("pgcli", func(t *testing.T) {
		need(t, part{"pgcli", program("pgcli")})
		s.lists(t, pgcliTypes, debianPython, "tools/typed.py", "/usr/bin/pgcli", "--less-chatty")
	})
	t.Run("nothing was refused", s.nothingRefused)
}

// odbc asks as what reports over ODBC does. The driver takes no setting of libpq from the
// environment but the CA's, and no password but in a file or as an argument.
func (h tools) odbc(t *testing.T) {
	need(t, odbc)
	host, port, err := net.SplitHostPort(h.Nodes[0].PG)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "odbc.ini")
	text := fmt.Sprintf("[warehouse]\nDriver=%s\nServername=%s\nPort=%s\nDatabase=warehouse\nUsername=sales-report.warehouse\nPassword=%s\nSSLmode=verify-full\n",
		odbcDriver, host, port, h.DataToken(t, "alice"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ODBCINI", file)
	const asked = "help\nhelp orders\nselect id, name, email from customers where id < 4;\nselect count(*) from orders;\n"
	h.lists(t, asked, "isql", "warehouse", "-b", "-v")
	// As Tableau asks: by cursors, of which the first rows are fetched as they are declared.
	if err := os.WriteFile(file, []byte(text+"UseDeclareFetch=1\nFetch=2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.lists(t, asked, "isql", "warehouse", "-b", "-v")
}

// completions are typed at psql, which looks up names at each tab.
const completions = `SELECT * FROM \t\t
\x03
SELECT * FROM sales.\t\t
\x03
SELECT id FROM orders WHERE \t\t
\x03
SELECT * FROM o\t\t WHERE customer_e\t IS NOT NULL LIMIT 1;\n
\\d \t\t
\x03
\\df \t\t
\x03
\\dn \t\t
\x03
\\du \t\t
\x03
\\dT \t\t
\x03
SET \t\t
\x03
SET timezone TO \t\t
\x03
UPDATE \t\t
\x03
INSERT INTO \t\t
\x03
ALTER TABLE \t\t
\x03
DROP INDEX \t\t
\x03
COMMENT ON \t\t
\x03
GRANT SELECT ON \t\t
\x03
EXPLAIN \t\t
\x03
\\q\n
`

// pgcliTypes are typed at pgcli, which has looked up everything at its start.
const pgcliTypes = `SELECT customer_email FROM orders LIMIT 1;\r
\\d\r
\\d orders\r
\\dt\r
\\l\r
\\du\r
\\df\r
\\dn\r
\\dT\r
\\q\r
`

// lists runs a tool, and looks at what it shows.
func (h tools) lists(t *testing.T, typed, program string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env, cmd.Stdin = "clients", h.environ(t), strings.NewReader(typed)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	inside(t, program, string(out))
	if !strings.Contains(string(out), "customer_email") || len(house.Leaks(string(out))) > 0 || strings.Contains(string(out), "postern:") {
		t.Errorf("%s shows\n%s", program, out)
	}
}

// nothingRefused looks into the records, which know what a tool does not tell.
func (h tools) nothingRefused(t *testing.T) {
	resp := house.Must(h.API("ada").Sessions.ListSessions(t.Context(), house.Request(&apiv1.ListSessionsRequest{})))(t)
	denied := int64(0)
	for _, s := range resp.Msg.GetSessions() {
		if denied += s.GetDenied(); s.GetDenied() > 0 {
			t.Log(h.CLI(t, "ada", "sessions", "replay", s.GetId()).Out)
		}
	}
	if n := len(resp.Msg.GetSessions()); n < 8 || denied > 0 {
		t.Errorf("%d sessions, %d refusals", n, denied)
	}
}

type tools struct{ *shop }

// recorded asks what stands in a file, by the extended protocol.
func (h tools) recorded(t *testing.T, tool string) {
	c := h.Connect(t, "alice", "sales-report")
	ids := map[string]any{}
	var schema, table uint32
	if err := c.QueryRow(t.Context(), "SELECT relnamespace, oid FROM pg_catalog.pg_class WHERE oid = 'sales.orders'::regclass").Scan(&schema, &table); err != nil {
		t.Fatal(err)
	}
	ids["-- schema"], ids["-- table"] = schema, table
	seen := ""
	for _, text := range strings.Split(string(read(t, "testdata/tools/"+tool+".sql")), ";\n") {
		var args []any
		for line := range strings.Lines(text) {
			if id, ok := ids[strings.TrimSpace(line)]; ok && strings.Contains(text, "$1") {
				args = append(args, id)
			}
		}
		if strings.TrimSpace(text) == "" {
			continue
		}
		out, err := all(t.Context(), c, text, args...)
		if err != nil {
			t.Errorf("%s\n%v", text, err)
		}
		inside(t, text, out)
		seen += out
	}
	for _, name := range []string{"customers", "regions", "customer_email"} {
		if !strings.Contains(seen, name) {
			t.Errorf("%s does not see %s", tool, name)
		}
	}
}

// all is the values of a result as one text.
func all(ctx context.Context, c *pgx.Conn, text string, args ...any) (string, error) {
	rows, err := c.Query(ctx, text, append([]any{pgx.QueryExecModeDescribeExec}, args...)...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var b strings.Builder
	for rows.Next() {
		for _, v := range rows.RawValues() {
			fmt.Fprintf(&b, "%s ", v)
		}
		b.WriteString("\n")
	}
	return b.String(), rows.Err()
}

// inside fails where a tool was shown what the task does not know.
func inside(t *testing.T, ask, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if found := outside.FindString(line); found != "" {
			t.Errorf("%s\nshows %q: %s", ask, found, line)
		}
	}
}
