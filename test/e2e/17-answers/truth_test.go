// Package answers holds the answers about recorded use to the truth.
package answers

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

// A task with much of the database, through views as well.
const task = `
apiVersion: postern/v1
kind: Task
metadata: {name: truth, labels: {team: sales}}
spec:
  purpose: statements of which is known what they use
  resources: {names: [warehouse]}
  permit:
    - {table: sales.orders, verbs: [select, insert, update, delete], columns: [id, customer_id, customer_email, amount, status, note, created_at], writeColumns: [id, customer_id, customer_email, amount, status, note, created_at], mask: {customer_email: email}}
    - {table: sales.customers, verbs: [select], columns: [id, name, email, phone, card, country, created_at], mask: {email: email}}
    - {table: sales.regions, verbs: [select], columns: [code, name]}
    - {table: sales.contacts, verbs: [select], columns: [id, address]}
    - {table: sales.spending, verbs: [select], columns: [who, total, since]}
  functions: {builtin: pure}
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: truth, labels: {team: sales}}
spec: {subjects: [{group: analysts}], tasks: [truth]}
`

// A shape is a statement with a number in it, and every column that it uses.
type shape struct {
	text string // with one %d, or $1 where it takes a parameter
	uses []string
	copy bool // COPY TO STDOUT
}

func columns(table string, names string) []string {
	var out []string
	for _, n := range strings.Fields(names) {
		out = append(out, table+"."+n)
	}
	return out
}

func all(lists ...[]string) []string { return slices.Concat(lists...) }

var (
	orders    = columns("sales.orders", "id customer_id customer_email amount status note created_at")
	customers = columns("sales.customers", "id name email phone card country created_at")
)

// What is beneath the views: contacts reads two columns, and its country always; spending
// is over contacts and orders, and always reads what it joins, groups and orders by.
const (
	contactsView = `CREATE VIEW sales.contacts AS SELECT id, email AS address FROM sales.customers WHERE country IS NOT NULL`
	spendingView = `CREATE VIEW sales.spending AS SELECT lower(c.address) AS who, sum(o.amount) AS total, min(o.created_at) AS since
		FROM sales.contacts c JOIN sales.orders o ON o.customer_id = c.id WHERE o.status <> 'x' GROUP BY lower(c.address)`
)

var (
	throughContacts = columns("sales.customers", "country")
	throughSpending = all(columns("sales.customers", "country id email"), columns("sales.orders", "customer_id status"), columns("sales.contacts", "id address"))
)

var shapes = []shape{
	{text: "SELECT id FROM sales.orders WHERE id = %d", uses: columns("sales.orders", "id")},
	{text: "SELECT * FROM sales.orders WHERE id = %d", uses: orders},
	{text: "SELECT c.* FROM sales.customers c WHERE c.id = %d", uses: customers},
	{text: "SELECT c FROM sales.customers c WHERE c.id = %d", uses: customers},
	{text: "SELECT count(*) FROM sales.customers WHERE email = 'x%d'", uses: columns("sales.customers", "email")},
	{text: "SELECT 1 FROM sales.customers WHERE country = 'DE' AND id = %d", uses: columns("sales.customers", "country id")},
	{text: "SELECT name FROM sales.customers WHERE id < %d ORDER BY phone LIMIT 1", uses: columns("sales.customers", "name id phone")},
	{text: "SELECT c.name, o.amount FROM sales.customers c JOIN sales.orders o ON o.customer_id = c.id WHERE o.id = %d",
		uses: all(columns("sales.customers", "name id"), columns("sales.orders", "amount customer_id id"))},
	{text: "SELECT upper(c.email) AS e FROM sales.customers AS c WHERE c.id = %d", uses: columns("sales.customers", "email id")},
	{text: "WITH x AS (SELECT id, card FROM sales.customers WHERE id = %d) SELECT id FROM x", uses: columns("sales.customers", "id card")},
	{text: "SELECT (SELECT r.name FROM sales.regions r WHERE r.code = c.country) FROM sales.customers c WHERE c.id = %d",
		uses: all(columns("sales.regions", "name code"), columns("sales.customers", "country id"))},
	{text: "SELECT name FROM sales.regions WHERE code IN (SELECT country FROM sales.customers WHERE id = %d)",
		uses: all(columns("sales.regions", "name code"), columns("sales.customers", "country id"))},
	{text: "SELECT country, max(created_at) FROM sales.customers WHERE id < %d GROUP BY country", uses: columns("sales.customers", "country created_at id")},
	{text: "UPDATE sales.orders SET status = 'paid' WHERE id = %d", uses: columns("sales.orders", "status id")},
	{text: "UPDATE sales.orders SET note = status WHERE id = %d", uses: columns("sales.orders", "note status id")},
	{text: "DELETE FROM sales.orders WHERE id = -%d", uses: columns("sales.orders", "id")},
	{text: "COPY (SELECT id, phone FROM sales.customers WHERE id = %d) TO STDOUT", uses: columns("sales.customers", "id phone"), copy: true},
	{text: "SELECT amount FROM sales.orders WHERE id = $1", uses: columns("sales.orders", "amount id")},
	{text: "SELECT email FROM sales.customers WHERE id = $1", uses: columns("sales.customers", "email id")},
	{text: "SELECT address FROM sales.contacts WHERE id = %d", uses: all(columns("sales.contacts", "address id"), columns("sales.customers", "email id"), throughContacts)},
	{text: "SELECT * FROM sales.contacts WHERE id = %d", uses: all(columns("sales.contacts", "address id"), columns("sales.customers", "email id"), throughContacts)},
	{text: "SELECT 1 FROM sales.contacts WHERE address LIKE 'x%d'", uses: all(columns("sales.contacts", "address"), columns("sales.customers", "email"), throughContacts)},
	{text: "SELECT id FROM sales.contacts WHERE id < %d", uses: all(columns("sales.contacts", "id"), columns("sales.customers", "id"), throughContacts)},
	{text: "SELECT total FROM sales.spending WHERE total > %d", uses: all(columns("sales.spending", "total"), columns("sales.orders", "amount"), throughSpending)},
	{text: "SELECT s.* FROM sales.spending s ORDER BY since LIMIT %d", uses: all(columns("sales.spending", "who total since"), columns("sales.orders", "amount created_at"), throughSpending)},
	{text: "SELECT c.id FROM sales.customers c WHERE c.id = %d AND EXISTS (SELECT 1 FROM sales.spending s WHERE s.since < c.created_at)",
		uses: all(columns("sales.customers", "id created_at"), columns("sales.spending", "since"), columns("sales.orders", "created_at"), throughSpending)},
}

// runs is how many statements are made: some hundreds, or POSTERN_TRUTH_STATEMENTS.
func runs(t *testing.T) int {
	if text := os.Getenv("POSTERN_TRUTH_STATEMENTS"); text != "" {
		return house.Must(strconv.Atoi(text))(t)
	}
	return 400
}

// TestWhoIsTrue runs statements of which is known what they use, and asks for each
// column who used it: precision and recall are to be 1.
func TestWhoIsTrue(t *testing.T) {
	h := house.Start(t)
	h.Target(t, `SET ROLE warehouse_rw; `+contactsView+`; `+spendingView)
	h.Apply(t, "ada", task)
	h.Settled(t)
	house.Eventually(t, func() string {
		return "the view is known: " + h.Psql(t, "alice", "truth", "SELECT * FROM sales.contacts WHERE id = 1;\n").All()
	}, func() bool {
		return h.Psql(t, "alice", "truth", "SELECT 1 FROM sales.contacts, sales.spending WHERE id = 0;\n").Code == 0
	})
	rnd := rand.New(rand.NewPCG(3, 4))
	simple := h.Connect(t, "alice", "truth", func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol })
	prepared := h.Connect(t, "alice", "truth")
	start := time.Now()
	truth, total := map[string]int{}, runs(t)
	for i := range total {
		s := shapes[rnd.IntN(len(shapes))]
		text, args := s.text, []any(nil)
		if strings.Contains(text, "$1") {
			args = []any{1 + rnd.IntN(50)} // prepared once, and cached
		} else {
			text = fmt.Sprintf(text, 1+rnd.IntN(50))
		}
		conn := prepared
		if i%2 == 0 || s.copy {
			conn = simple
		}
		var err error
		if s.copy {
			_, err = conn.PgConn().CopyTo(t.Context(), discard{}, text)
		} else {
			_, err = conn.Exec(t.Context(), text, args...)
		}
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		for _, c := range distinct(s.uses) {
			truth[c]++
		}
		relations := map[string]bool{}
		for _, c := range s.uses {
			relations[c[:strings.LastIndex(c, ".")]] = true
		}
		for r := range relations {
			truth[r]++
		}
	}
	until := time.Now().Add(time.Second)
	for _, c := range []*pgx.Conn{simple, prepared} {
		if err := c.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sealed(t, h)

	names := all(orders, customers, columns("sales.regions", "code name"), columns("sales.contacts", "id address"), columns("sales.spending", "who total since"),
		[]string{"sales.spending", "sales.orders", "sales.customers", "sales.regions", "sales.contacts", "hr.salaries.salary"})
	wrong := 0
	for _, name := range names {
		if truth[name] == 0 {
			if r := h.CLI(t, "bob", "audit", "who", name); r.Code != 1 || !strings.Contains(r.Err, "nothing on record has ever used") {
				t.Errorf("nobody used %s: %s", name, r.All())
			}
			continue
		}
		got := who(t, h, name, start, until)
		if got != truth[name] {
			wrong++
			t.Errorf("%s: %d statements used it, who tells of %d", name, truth[name], got)
		}
	}
	t.Logf("%d statements, %d names: %d wrong", total, len(names), wrong)
	seen(t, h)
}

func distinct(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// sealed waits until all sessions are stored to their end.
func sealed(t *testing.T, h *house.House) {
	t.Helper()
	house.Poll(t, "the recordings are stored", func() (bool, bool) {
		var all []struct{ Recording, Statements string }
		cli(t, h, &all, "sessions", "list", "--task", "truth")
		loads, done := 0, true // before those of the loads came some of one statement
		for _, s := range all {
			if n, err := strconv.Atoi(s.Statements); err == nil && n > 1 {
				loads++
			}
			done = done && s.Recording == "sealed"
		}
		return done && loads == 2, done && loads == 2
	})
}

// cli reads the JSON that a command of bob, who is an auditor, prints.
func cli(t *testing.T, h *house.House, into any, args ...string) {
	t.Helper()
	r := h.CLI(t, "bob", append(args, "--format", "json")...)
	if r.Code != 0 {
		t.Fatalf("%v: %s", args, r.All())
	}
	if err := json.Unmarshal([]byte(r.Out), into); err != nil {
		t.Fatalf("%v: %v in %s", args, err, r.Out)
	}
}

// who counts the statements that used a name: as summed up by session, and one by one.
func who(t *testing.T, h *house.House, name string, since, until time.Time) (n int) {
	t.Helper()
	var uses []struct {
		Subject, Statements string
		Masks               []string
	}
	when := []string{"--since", since.Format(time.RFC3339Nano), "--until", until.Format(time.RFC3339Nano)}
	cli(t, h, &uses, append([]string{"audit", "who", name}, when...)...)
	for _, u := range uses {
		n += house.Must(strconv.Atoi(u.Statements))(t)
		if u.Subject != "alice" || strings.HasSuffix(name, "email") && !slices.Contains(u.Masks, "email") {
			t.Errorf("%s: %+v", name, u)
		}
	}
	var statements []*struct{ Session, Number, Text string }
	cli(t, h, &statements, append([]string{"audit", "who", name, "--statements", "--limit", "1000000"}, when...)...)
	if len(statements) != n {
		t.Errorf("%s: %d statements one by one, %d summed up", name, len(statements), n)
	}
	for _, s := range statements {
		if strings.Contains(s.Text, "email = 'x") {
			t.Errorf("the index tells a literal of a masked column: %s", s.Text)
		}
	}
	return n
}

// seen asks the other questions once, and for the trace that asking leaves.
func seen(t *testing.T, h *house.House) {
	t.Helper()
	var found []struct{ Session, Text, Verdict, Subject string }
	cli(t, h, &found, "audit", "search", "orders", "upd*", "--role", "write", "--table", "sales.orders", "--limit", "5")
	if len(found) != 5 || !strings.Contains(found[0].Text, "UPDATE sales.orders") || found[0].Verdict != "allow" {
		t.Errorf("%+v", found)
	}
	for flag, name := range map[string]string{"--session": found[0].Session, "--node": "node-1"} {
		if r := h.CLI(t, "bob", "audit", "search", "nobody_said_this", flag, name); r.Code != 0 {
			t.Errorf("nothing of %s: %s", name, r.All())
		}
		for range 2 { // the question itself is on the audit log, too
			if r := h.CLI(t, "bob", "audit", "search", flag, name+"x"); r.Code == 0 || !strings.Contains(r.Err, "is known as") {
				t.Errorf("nobody's name %sx: %s", name, r.All())
			}
		}
	}
	var used []struct{ Subject, Task, Resource, Account, ClientHost, Node, Sessions string }
	cli(t, h, &used, "usage", "alice")
	if len(used) == 0 || used[0].Task != "truth" || used[0].Resource != "warehouse" || used[0].ClientHost != "127.0.0.1" || used[0].Node != "node-1" {
		t.Errorf("%+v", used)
	}
	account := used[0].Account
	cli(t, h, &used, "usage", account)
	if account == "" || len(used) == 0 || used[0].Account != account || used[0].Subject != "alice" || used[0].Task != "truth" {
		t.Errorf("usage of the account %q: %+v", account, used)
	}
	var unused []struct{ Binding, Task string }
	cli(t, h, &unused, "usage", "--unused", "1h")
	if !slices.ContainsFunc(unused, func(u struct{ Binding, Task string }) bool { return u.Binding == "nightly" }) ||
		slices.ContainsFunc(unused, func(u struct{ Binding, Task string }) bool { return u.Binding == "truth" }) {
		t.Errorf("%+v", unused)
	}
	r := h.CLI(t, "bob", "sessions", "export", found[0].Session)
	lines := strings.Split(strings.TrimSpace(r.Out), "\n")
	for _, l := range lines {
		if !json.Valid([]byte(l)) {
			t.Fatalf("not JSON: %s", l)
		}
	}
	if r.Code != 0 || len(lines) < 10 || !strings.HasPrefix(lines[0], `{"session":`) {
		t.Errorf("export: %s", r.All())
	}
	for _, args := range [][]string{{"sessions", "hold", found[0].Session, "--reason", "case 7"}, {"sessions", "show", found[0].Session}, {"sessions", "release", found[0].Session}} {
		if r := h.CLI(t, "bob", args...); r.Code != 0 {
			t.Errorf("%v: %s", args, r.All())
		}
	}
	for _, args := range [][]string{{"audit", "who", "sales.orders"}, {"audit", "search", "orders"}, {"usage", "alice"}, {"sessions", "hold", found[0].Session, "--reason", "x"}} {
		if r := h.CLI(t, "alice", args...); r.Code == 0 {
			t.Errorf("alice may %v", args)
		}
	}
	type entry struct{ Action, Detail string }
	var entries []entry
	cli(t, h, &entries, "audit", "log", "--actor", "bob", "--limit", "1000")
	for _, want := range []entry{
		{"login", `"leads"`}, {"AnswerService/WhoUsed", ""}, {"AnswerService/SearchStatements", ""}, {"SessionService/ReadRecording", `"purpose":"export"`},
		{"SessionService/SetLegalHold", `"before":{"legalHold":"case 7"}`},
	} {
		if !slices.ContainsFunc(entries, func(e entry) bool { return e.Action == want.Action && strings.Contains(e.Detail, want.Detail) }) {
			t.Errorf("the audit log has no %+v", want)
		}
	}
	// What is cut says so: nobody takes a page for all there is.
	for _, args := range [][]string{{"sessions", "list"}, {"audit", "log"}, {"audit", "search", "orders"}} {
		if r := h.CLI(t, "bob", append(args, "--limit", "1")...); r.Code != 0 || !strings.Contains(r.Err, "there are more") {
			t.Errorf("%v: %s", args, r.All())
		}
		if r := h.CLI(t, "bob", append(args, "--limit", "0")...); r.Code != 2 {
			t.Errorf("%v --limit 0 ends with %d: %s", args, r.Code, r.All())
		}
	}
}
