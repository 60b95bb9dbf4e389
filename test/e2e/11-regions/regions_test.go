// Package regions_test shows that people are sent to a node that can serve them, that
// work goes on through another region when one is gone, and that nobody can send people
// elsewhere by changing the list of nodes.
package regions_test

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/test/e2e/fleet"
)

// far is a resource that only nodes of us-1 reach.
const far = `
apiVersion: postern/v1
kind: Resource
metadata: {name: far, labels: {team: sales}}
spec:
  protocol: postgres
  endpoint: {host: "${WAREHOUSE_HOST}", port: ${WAREHOUSE_PORT}, database: warehouse, tls: {mode: verify-full, ca: {pem: "${WAREHOUSE_CA}"}}}
  reachableFrom: {region: us-1}
  credential: ${WAREHOUSE_CREDENTIAL}
  catalog: ${WAREHOUSE_CATALOG}
  pin: {search_path: [sales]}
---
apiVersion: postern/v1
kind: Task
metadata: {name: far-report, labels: {team: sales}}
spec:
  purpose: figures of a place far away
  resources: {names: [far]}
  permit: [{table: sales.regions, verbs: [select], columns: [code, name]}]
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: far-report, labels: {team: sales}}
spec:
  subjects: [{group: analysts}]
  tasks: [far-report]
`

func TestRegions(t *testing.T) {
	f := fleet.Start(t, fleet.Options{Embedded: true, Sealed: true, World: far})
	s := &regions{f, f.Nodes["eu-1-a"], f.Nodes["us-1-a"]}
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{{"picked", s.picked}, {"reach", s.reach}, {"bench", s.bench}, {"tampered", s.tampered}, {"lost region", s.lost}} {
		if !t.Run(step.name, step.do) {
			t.FailNow()
		}
	}
}

type regions struct {
	*fleet.Fleet
	eu, us *fleet.Node
}

const count = "SELECT count(*) FROM regions"

// picked: both nodes are offered for what both reach.
func (s *regions) picked(t *testing.T) {
	r := s.Run(t, "alice", "connect", "--print", "sales-report")
	_, euPort, _ := strings.Cut(s.eu.PG, ":")
	_, usPort, _ := strings.Cut(s.us.PG, ":")
	if r.Code != 0 || !strings.Contains(r.Stdout, euPort) || !strings.Contains(r.Stdout, usPort) || !strings.Contains(r.Stdout, "host=127.0.0.1,127.0.0.1") {
		t.Errorf("code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	first, _, _ := strings.Cut(r.Stderr, "\n")
	if !strings.HasPrefix(first, "node ") || !strings.Contains(r.Stderr, "eu-1") || !strings.Contains(r.Stderr, "us-1") {
		t.Errorf("what was picked is not said: %s", r.Stderr)
	}
	if r := s.Run(t, "alice", "connect", "sales-report", "--", "-XAtc", count); r.Code != 0 || r.Stdout != "6\n" {
		t.Errorf("code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// reach: a resource that one region alone reaches is served there, and refused elsewhere
// with a text that says so.
func (s *regions) reach(t *testing.T) {
	r := s.Run(t, "alice", "connect", "--print", "far-report")
	_, euPort, _ := strings.Cut(s.eu.PG, ":")
	if r.Code != 0 || strings.Contains(r.Stdout, euPort) || !strings.Contains(r.Stderr, "us-1-a") {
		t.Errorf("code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := s.Run(t, "alice", "connect", "far-report", "--", "-XAtc", count); r.Code != 0 || r.Stdout != "6\n" {
		t.Errorf("code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, permission := range []string{"far-report.far", "far-report"} {
		_, err := s.Dial(t.Context(), s.eu, permission, s.Token(t, "alice"))
		if err == nil {
			t.Fatalf("%s: a node of eu-1 serves a resource of us-1", permission)
		}
		if code := fleet.Code(err); code != "28000" {
			t.Errorf("%s: SQLSTATE %q", permission, code)
		}
		if !strings.Contains(err.Error(), "is not served by this node") || !strings.Contains(fleet.Hint(err), "postern connect") {
			t.Errorf("%s: %v, hint %q", permission, err, fleet.Hint(err))
		}
	}
}

// bench: either node is measured with a statement of alice's, beside the resource itself.
func (s *regions) bench(t *testing.T) {
	direct := fmt.Sprintf("host=%s port=%d user=%s dbname=warehouse sslmode=verify-full sslrootcert=%s options='-c search_path=sales'",
		s.PG.Host, s.PG.Port, fleet.AppAccount, s.PG.CAFile)
	env := []string{"PGPASSWORD=" + s.Password(fleet.AppAccount)}
	for _, n := range []*fleet.Node{s.eu, s.us} {
		r := s.RunEnv(t, "alice", env, "postern", "bench", "sales-report", "--node", n.Name, "--direct", direct,
			"--clients", "2", "--time", "1s", "--rounds", "1", "--sql", count, "--format", "json")
		var got struct {
			Measured []struct {
				Way          string
				Transactions int64
				Rate         []float64
			}
			Ratios []float64
		}
		if err := json.Unmarshal([]byte(r.Stdout), &got); err != nil || r.Code != 0 {
			t.Fatalf("code %d: %v %s%s", r.Code, err, r.Stdout, r.Stderr)
		}
		if len(got.Measured) != 2 || got.Measured[0].Way != n.Name || got.Measured[1].Way != "direct" || len(got.Ratios) != 1 || got.Ratios[0] <= 0 {
			t.Fatalf("measured %+v", got)
		}
		t.Logf("%s: %.2f of direct", n.Name, got.Ratios[0])
		// What was measured is on record, at that node.
		var recorded int64
		for _, one := range s.AwaitSealed(t, time.Minute, "--subject", "alice") {
			if one.Node == n.Name && one.Task == "sales-report" {
				k, _ := strconv.ParseInt("0"+one.Statements, 10, 64)
				recorded += k
			}
		}
		if recorded < got.Measured[0].Transactions || got.Measured[0].Transactions == 0 {
			t.Errorf("%d transactions through %s, and %d statements on record there", got.Measured[0].Transactions, n.Name, recorded)
		}
	}
	for _, c := range []struct {
		want int
		says string
		args []string
	}{
		{3, `task "sales-report" does not allow DELETE`, []string{"sales-report", "--sql", "DELETE FROM orders"}},
		{5, `node "nowhere" does not answer`, []string{"sales-report", "--node", "nowhere", "--sql", count}},
		{2, "--sql STATEMENT", []string{"sales-report"}},
	} {
		if r := s.Run(t, "alice", append([]string{"bench"}, c.args...)...); r.Code != c.want || !strings.Contains(r.Stderr, c.says) {
			t.Errorf("bench %q: code %d, want %d: %s", c.args, r.Code, c.want, r.Stderr)
		}
	}
}

// tampered: a list of nodes that somebody between has changed is refused.
func (s *regions) tampered(t *testing.T) {
	evil := fleet.NewProxy(t, s.us.PG) // where an attacker would like people to go
	for name, change := range map[string]fleet.Change{
		"nothing":                {},
		"another address":        {Address: evil.Addr},
		"a node less":            {DropFirst: true},
		"no signature":           {DropSignature: true},
		"signature of something": {BreakSignature: true},
	} {
		between := s.Between(t, "alice", change)
		r := s.RunWith(t, "alice", "", between.Env(), "connect", "--print", "sales-report")
		switch {
		case name == "nothing" && (r.Code != 0 || !strings.Contains(r.Stdout, "host=")):
			t.Errorf("through an honest middle: code %d: %s%s", r.Code, r.Stdout, r.Stderr)
		case name != "nothing" && (r.Code == 0 || !strings.Contains(r.Stderr, "not signed by the CA") || strings.Contains(r.Stdout, "host=")):
			t.Errorf("%s: code %d: %s%s", name, r.Code, r.Stdout, r.Stderr)
		}
		if between.Changed() == 0 {
			t.Errorf("%s: no list went through the middle", name)
		}
	}
}

// lost: a region goes, and both ways of connecting go on through the other.
func (s *regions) lost(t *testing.T) {
	service := s.File(t, "home-alice/pg_service.conf", "")
	s.Must(t, "alice", "config", "pg", "--file", service)
	libpq := func() fleet.Result {
		return s.RunEnv(t, "alice", []string{"PGSERVICEFILE=" + service, "PGPASSWORD=" + s.Token(t, "alice")}, "psql", "service=sales-report.warehouse", "-XAtc", count)
	}
	if r := libpq(); r.Code != 0 || r.Stdout != "6\n" {
		t.Fatalf("psql with a service: code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	// The same with a client certificate, which any node takes, and no password.
	byCert, certs := s.File(t, "home-alice/cert_service.conf", ""), filepath.Join(s.Home(t, "alice"), "certs")
	s.Must(t, "alice", "config", "pg", "--cert", certs, "--file", byCert)
	s.Must(t, "alice", "grant", "sales-report", "--cert", certs)
	withCert := func() fleet.Result {
		return s.RunEnv(t, "alice", []string{"PGSERVICEFILE=" + byCert}, "psql", "service=sales-report.warehouse", "-wXAtc", count)
	}
	if r := withCert(); r.Code != 0 || r.Stdout != "6\n" {
		t.Fatalf("psql with a certificate: code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	for _, gone := range []*fleet.Node{s.eu, s.us} {
		if err := gone.Crash(); err != nil {
			t.Error(err)
		}
		began := time.Now()
		// The file that was made before names both nodes.
		if r := libpq(); r.Code != 0 || r.Stdout != "6\n" {
			t.Errorf("psql with %s gone: code %d: %s%s", gone.Name, r.Code, r.Stdout, r.Stderr)
		}
		if r := withCert(); r.Code != 0 || r.Stdout != "6\n" {
			t.Errorf("psql with a certificate and %s gone: code %d: %s%s", gone.Name, r.Code, r.Stdout, r.Stderr)
		}
		t.Logf("libpq went on %s after %s was killed", time.Since(began).Round(time.Millisecond), gone.Name)
		began = time.Now()
		if r := s.Run(t, "alice", "connect", "sales-report", "--", "-XAtc", count); r.Code != 0 || r.Stdout != "6\n" {
			t.Errorf("postern connect with %s gone: code %d: %s%s", gone.Name, r.Code, r.Stdout, r.Stderr)
		}
		t.Logf("postern connect took %s", time.Since(began).Round(time.Millisecond))
		fleet.Eventually(t, 30*time.Second, "the loss is seen", func() error {
			all, err := s.Status(t)
			if err == nil && all[gone.Name].Connected {
				err = fmt.Errorf("%s is connected", gone.Name)
			}
			return err
		})
		if gone == s.us {
			r := s.Run(t, "alice", "connect", "far-report", "--", "-XAtc", count)
			if r.Code != 5 || !strings.Contains(r.Stderr, "no node that is connected reaches") {
				t.Errorf("a resource that nobody reaches now: code %d: %s", r.Code, r.Stderr)
			}
		}
		if err := gone.Start(); err != nil {
			t.Fatal(err)
		}
		s.AwaitServing(t, gone.Name)
	}
	// A node that takes connections and says nothing is passed by, too.
	s.eu.Pause()
	began := time.Now()
	if r := libpq(); r.Code != 0 || r.Stdout != "6\n" {
		t.Errorf("psql with a frozen node: code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	t.Logf("libpq went on %s after a node froze (connect_timeout=5)", time.Since(began).Round(time.Millisecond))
	s.eu.Resume()
	s.AwaitServing(t, s.eu.Name)
	// A session on the node that stays is not touched by what happens to the other.
	conn := s.Connect(t, s.us, "sales-report.warehouse", s.Token(t, "alice"))
	if err := s.eu.Crash(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if rows, err := fleet.Query(ctx, conn, count); err != nil || rows[0][0] != "6" {
		t.Errorf("%v %v", rows, err)
	}
}
