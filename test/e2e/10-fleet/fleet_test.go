// Package fleet_test tells the story of Postern in short, on the binaries that are
// shipped: a cluster of etcd, Vault, two nodes in two regions.
package fleet_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/e2e/clients"
	"github.com/posterngate/postern/test/e2e/fleet"
	"github.com/posterngate/postern/test/ports"
	"github.com/posterngate/postern/test/wait"
)

// slow is a statement that does not end by itself, of what sales-report permits.
const slow = "SELECT count(*) FROM orders a, orders b, orders c WHERE a.amount < b.amount AND b.amount < c.amount"

func TestFleet(t *testing.T) {
	f := fleet.Start(t, fleet.Options{})
	s := &story{f, f.Nodes["eu-1-a"], f.Nodes["us-1-a"]}
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"binaries", s.binaries}, {"probes", s.probes}, {"nodes", s.nodes}, {"clients", s.clients}, {"masked", s.masked}, {"refused", s.refused}, {"troubled", s.troubled},
		{"vault", s.vault}, {"held", s.held}, {"cancel", s.cancel}, {"lock", s.lock}, {"recordings", s.recordings},
		{"keys", s.keys}, {"etcd", s.etcd}, {"drain", s.drain}, {"stop", s.stop},
	} {
		if !t.Run(step.name, step.do) {
			t.FailNow() // later steps stand on it
		}
	}
}

type story struct {
	*fleet.Fleet
	eu, us *fleet.Node
}

// binaries: they say their release, and whether a configuration is good.
func (s *story) binaries(t *testing.T) {
	for _, b := range []string{"postern", "postern-control", "postern-node"} {
		if r := s.Exec(t, s.Dir, "", nil, b, "--version"); r.Code != 0 || !strings.HasPrefix(r.Stdout, b+" ") {
			t.Errorf("%s --version: code %d, %q %s", b, r.Code, r.Stdout, r.Stderr)
		}
	}
	for binary, config := range map[string]string{"postern-control": s.ControlConfig(), "postern-node": s.Dir + "/eu-1-a.yaml"} {
		if r := s.Exec(t, s.Dir, "", nil, binary, "--config", config, "--check-config"); r.Code != 0 {
			t.Errorf("%s --check-config: code %d, %s", binary, r.Code, r.Stderr)
		}
		bad := s.File(t, "bad.yaml", "dataDir: /nowhere\nlisteneers: {}\n")
		if r := s.Exec(t, s.Dir, "", nil, binary, "--config", bad, "--check-config"); r.Code != 2 || !strings.Contains(r.Stderr, "listeneers") {
			t.Errorf("%s --check-config of a misspelt key: code %d, %s", binary, r.Code, r.Stderr)
		}
	}
}

// probes: liveness, readiness and metrics of all three processes.
func (s *story) probes(t *testing.T) {
	for name, addr := range map[string]string{"control": s.Debug, "eu": s.eu.Debug, "us": s.us.Debug} {
		for path, want := range map[string]string{"/livez": "ok", "/readyz": "ok", "/metrics": "\npostern_"} {
			status, body, err := fleet.HTTP(addr, path)
			if err != nil || status != http.StatusOK || !strings.Contains(body, want) {
				t.Errorf("%s %s: %d %v, %q is not in it:\n%.2000s", name, path, status, err, want, body)
			}
		}
	}
}

// nodes: both are there, with their version and no lag.
func (s *story) nodes(t *testing.T) {
	epoch, revision := s.AwaitConverged(t, 10*time.Second, 0)
	if epoch == "" || revision == "" {
		t.Errorf("version = %s/%s", epoch, revision)
	}
	out := s.Must(t, "ada", "nodes")
	for _, want := range []string{"eu-1-a  node  eu-1    connected  " + revision, "us-1-a  node  us-1    connected  " + revision, "published: " + epoch + "/"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}

// clients: strangers to Postern speak to its API: create, refused, dry-run, watch.
func (s *story) clients(t *testing.T) {
	api := clients.API{Addr: s.Addr, CAFile: s.CA, HTTP: s.HTTPClient(t), Token: s.APIToken(t, "ada")}
	for name, c := range map[string]clients.Client{"curl": clients.Curl(t, api), "buf-curl": clients.BufCurl(t, api), "grpc-go": clients.DialGRPC(t, api)} {
		t.Run(name, func(t *testing.T) { clients.RoundTrip(t, c, "mask-"+name) })
	}
}

// masked: psql through "postern psql" sees what the task shows.
func (s *story) masked(t *testing.T) {
	r := s.Run(t, "alice", "psql", "sales-report", "--", "-XAtc", "SELECT id, email, card FROM customers WHERE id = 7")
	if r.Code != 0 || r.Stdout != "7|***|************9977\n" && !strings.HasPrefix(r.Stdout, "7|***|****") {
		t.Errorf("code %d: %q %s", r.Code, r.Stdout, r.Stderr)
	}
}

// refused: with the reason and what is allowed, and the session lives on.
// troubled: who connects to a resource that is away is told so, and operators are told why.
func (s *story) troubled(t *testing.T) {
	port, err := ports.Take()
	if err != nil {
		t.Fatal(err)
	}
	good := strings.Replace(s.Must(t, "ada", "get", "resource", "warehouse", "--format", "yaml"), "name: warehouse\n", "name: elsewhere\n", 1)
	good = regexp.MustCompile(`(?m)^  (createTime|createdBy|etag|uid|updateTime): .*\n`).ReplaceAllString(good, "")
	bad := regexp.MustCompile(`(?m)^( +port:) [0-9]+$`).ReplaceAllString(good, fmt.Sprintf("$1 %d", port))
	s.Apply(t, bad+`
---
kind: Task
metadata: {name: elsewhere}
spec: {resources: {names: [elsewhere]}, permit: [{table: sales.regions, verbs: [select], columns: [code]}], duration: 1h}
---
kind: Binding
metadata: {name: elsewhere}
spec: {subjects: [{group: analysts}], tasks: [elsewhere]}
`)
	var r fleet.Result
	wait.For(t, "a node to tell that it serves elsewhere", func() bool {
		r = s.Run(t, "alice", "psql", "elsewhere", "--", "-XAtc", "SELECT code FROM sales.regions LIMIT 1")
		return !strings.Contains(r.Stderr, "no node that is connected reaches elsewhere")
	})
	if r.Code == 0 || !strings.Contains(r.Stderr, `resource "elsewhere" cannot be reached from node `) || strings.Contains(r.Stderr, "connection refused") {
		t.Fatalf("code %d: %s", r.Code, r.Stderr)
	}
	const told = "cannot log in to elsewhere since"
	wait.For(t, "operators to be told", func() bool {
		list := s.Must(t, "ada", "nodes", "list")
		return strings.Contains(list, told) && strings.Contains(list, "connection refused")
	})
	if r := s.Run(t, "ada", "doctor", "elsewhere"); r.Code != 6 || !strings.Contains(r.Stdout, "broken: elsewhere cannot be connected and logged in to by node ") || !strings.Contains(r.Stdout, "connection refused") {
		t.Errorf("doctor: code %d: %s %s", r.Code, r.Stdout, r.Stderr)
	}
	s.Apply(t, good)
	if r := s.Run(t, "alice", "psql", "elsewhere", "--", "-XAtc", "SELECT count(code) FROM sales.regions"); r.Code != 0 || r.Stdout != "6\n" {
		t.Errorf("code %d: %q %s", r.Code, r.Stdout, r.Stderr)
	}
	wait.For(t, "what is mended to be forgotten", func() bool { return !strings.Contains(s.Must(t, "ada", "nodes", "list"), told) })
}

func (s *story) refused(t *testing.T) {
	r := s.Run(t, "alice", "psql", "sales-report.warehouse", "--", "-XAt", "-c", "DROP TABLE orders", "-c", "SELECT count(*) FROM regions")
	if !strings.Contains(r.Stderr, `task "sales-report" does not allow DROP TABLE`) || r.Stdout != "6\n" {
		t.Errorf("code %d: %q %s", r.Code, r.Stdout, r.Stderr)
	}
	if r := s.Run(t, "carol", "psql", "purge-order", "--", "-c", "SELECT 1"); r.Code != 3 || !strings.Contains(r.Stderr, "no binding offers you") {
		t.Errorf("a task that is not hers: code %d: %s", r.Code, r.Stderr)
	}
}

// vault: a user during the session, and none after it.
func (s *story) vault(t *testing.T) {
	s.noSessionUsers(t)
	conn := s.Connect(t, s.eu, "sales-report.warehouse", s.Token(t, "alice"))
	rows, err := fleet.Query(t.Context(), conn, "SELECT count(*) FROM regions")
	if err != nil || rows[0][0] != "6" {
		t.Fatalf("%v %v", rows, err)
	}
	if users := s.SessionUsers(t); len(users) != 1 {
		t.Errorf("users of Vault during a session: %v", users)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
	t.Logf("the user was gone after %s", s.noSessionUsers(t))
}

func (s *story) noSessionUsers(t *testing.T) time.Duration {
	t.Helper()
	return fleet.Eventually(t, 15*time.Second, "users of ended sessions are gone", func() error {
		if users := s.SessionUsers(t); len(users) > 0 {
			return fmt.Errorf("%v", users)
		}
		return nil
	})
}

// held: a delete waits for a lead, who says yes with the command line.
func (s *story) held(t *testing.T) {
	conn := s.Connect(t, s.us, "purge-order.warehouse", s.Token(t, "alice"))
	g := run.New(t.Context())
	tag := ""
	g.Go("delete", func(ctx context.Context) error {
		got, err := conn.Exec(ctx, "DELETE FROM orders WHERE id = 4711")
		tag = got.String()
		return err
	})
	id := s.Hold(t, "bob", "purge-order")
	if r := s.Run(t, "alice", "approve", id); r.Code == 0 {
		t.Errorf("alice approved her own statement: %s", r.Stdout)
	}
	if n := s.PG.SQLIn(t, "warehouse", "SELECT count(*) FROM sales.orders WHERE id = 4711")[0][0]; n != "1" {
		t.Errorf("the order is gone before anybody said yes")
	}
	s.Must(t, "bob", "approve", id, "--reason", "it is a duplicate")
	if err := g.Wait(); err != nil || tag != "DELETE 1" {
		t.Errorf("%q %v", tag, err)
	}
	if n := s.PG.SQLIn(t, "warehouse", "SELECT count(*) FROM sales.orders WHERE id = 4711")[0][0]; n != "0" {
		t.Errorf("the order is still there")
	}
}

// cancel: a cancel request that reaches the other node finds its session.
func (s *story) cancel(t *testing.T) {
	conn := s.Connect(t, s.eu, "sales-report.warehouse", s.Token(t, "alice"))
	g := run.New(t.Context())
	var err error
	g.Go("slow statement", func(ctx context.Context) error {
		_, err = fleet.Query(ctx, conn, slow)
		return nil
	})
	fleet.Eventually(t, time.Minute, "the statement runs", func() error { return s.active(t, 1) })
	began := time.Now()
	if err := fleet.CancelAt(s.us, conn); err != nil {
		t.Error(err)
	}
	_ = g.Wait()
	if fleet.Code(err) != "57014" {
		t.Errorf("error = %v, want 57014", err)
	}
	t.Logf("cancelled through the other node in %s", time.Since(began).Round(time.Millisecond))
	if rows, err := fleet.Query(t.Context(), conn, "SELECT count(*) FROM regions"); err != nil || rows[0][0] != "6" {
		t.Errorf("the session after a cancel: %v %v", rows, err)
	}
}

// active is nil once so many statements of sessions run.
func (s *story) active(t *testing.T, want int) error {
	t.Helper()
	n := s.PG.SQL(t, "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'v-%' AND state = 'active'")[0][0]
	if n != fmt.Sprint(want) {
		return fmt.Errorf("%s statements run", n)
	}
	return nil
}

// lock: ends what runs on both nodes within a second, and lets nobody in again.
func (s *story) lock(t *testing.T) {
	token := s.Token(t, "carol")
	g := run.New(t.Context())
	ends := make(chan error, 4)
	var cut [4]time.Time
	for i, n := range []*fleet.Node{s.eu, s.us, s.eu, s.us} {
		conn := s.Connect(t, n, "sales-report.warehouse", token)
		g.Go("session", func(ctx context.Context) error {
			var err error
			if i < 2 { // at work
				_, err = fleet.Query(ctx, conn, slow)
			} else { // idle: waits for whatever the node says
				_, err = conn.WaitForNotification(ctx)
			}
			cut[i] = time.Now()
			ends <- err
			return nil
		})
	}
	fleet.Eventually(t, time.Minute, "carol is at work", func() error { return s.active(t, 2) })
	began := time.Now()
	lock := s.Must(t, "ada", "lock", "--subject", "carol", "--reason", "contract ended")
	_ = g.Wait()
	close(ends)
	for err := range ends {
		if fleet.Code(err) != "57P01" || !strings.Contains(err.Error(), "contract ended") {
			t.Errorf("a session ended with %v", err)
		}
	}
	for i, at := range cut {
		if took := at.Sub(began); took > time.Second {
			t.Errorf("session %d ended %s after the command began", i, took)
		} else {
			t.Logf("session %d ended %s after the command began", i, took.Round(time.Millisecond))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := s.Dial(ctx, s.us, "sales-report.warehouse", token); err == nil || !strings.Contains(err.Error(), "contract ended") {
		t.Errorf("a new session under a lock: %v", err)
	}
	s.Must(t, "ada", "unlock", lock)
	fleet.Eventually(t, time.Minute, "carol is let in again", func() error {
		conn, err := s.Dial(ctx, s.us, "sales-report.warehouse", token)
		if err == nil {
			err = conn.Close(ctx)
		}
		return err
	})
}

// recordings: what was done is there, as it was seen, and provably whole.
func (s *story) recordings(t *testing.T) {
	s.noSessionUsers(t) // everybody has left
	all := s.AwaitSealed(t, 20*time.Second)
	var told strings.Builder
	for _, one := range all {
		if one.Recording != "sealed" {
			t.Errorf("session %s is %s", one.ID, one.Recording)
		}
		s.Verify(t, one.ID)
		told.WriteString(s.Must(t, "bob", "sessions", "replay", one.ID))
	}
	for _, want := range []string{"SELECT id, email, card FROM customers WHERE id = 7", "***", "DROP TABLE orders", "DELETE FROM orders WHERE id = 4711", "contract ended", "bob"} {
		if !strings.Contains(told.String(), want) {
			t.Errorf("%q is in no recording", want)
		}
	}
	if email := s.PG.SQLIn(t, "warehouse", "SELECT email FROM sales.customers WHERE id = 7")[0][0]; strings.Contains(told.String(), email) {
		t.Errorf("a recording shows %s", email)
	}
	t.Logf("%d recordings verified", len(all))
	if r := s.Run(t, "carol", "sessions", "list"); r.Code == 0 && strings.Contains(r.Stdout, "alice") {
		t.Errorf("carol sees alice's sessions:\n%s", r.Stdout)
	}
}

// keys: the CA and the key of grants are replaced while people work; nodes fetch what
// they need by themselves, and who has the new CA alone reaches all of it.
func (s *story) keys(t *testing.T) {
	conn := s.Connect(t, s.eu, "sales-report.warehouse", s.Token(t, "alice"))
	if r := s.Run(t, "bob", "ca", "rotate", "nodes"); r.Code == 0 {
		t.Errorf("bob replaced the CA")
	}
	s.Must(t, "ada", "ca", "rotate", "grants", "--lead", "5s")
	name := s.Must(t, "ada", "ca", "rotate", "nodes", "--lead", "25s")
	s.File(t, "ca.pem", s.Must(t, "ada", "ca", "bundle")) // what people must have until the new one signs
	fleet.Eventually(t, time.Minute, "the new CA signs", func() error {
		if out := s.Must(t, "ada", "ca"); !regexp.MustCompile(regexp.QuoteMeta(name) + `\s+nodes\s+signing`).MatchString(out) {
			return errors.New(out)
		}
		return nil
	})
	first, _ := pem.Decode([]byte(s.Must(t, "ada", "ca", "bundle")))
	s.File(t, "ca.pem", string(pem.EncodeToMemory(first)))
	visit := func(n *fleet.Node) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		conn, err := s.Dial(ctx, n, "sales-report.warehouse", s.Token(t, "alice"))
		if err != nil {
			return err
		}
		rows, err := fleet.Query(ctx, conn, "SELECT count(*) FROM regions")
		if err == nil && rows[0][0] != "6" {
			err = fmt.Errorf("%v", rows)
		}
		return errors.Join(err, conn.Close(ctx))
	}
	for _, n := range []*fleet.Node{s.eu, s.us} {
		fleet.Eventually(t, time.Minute, n.Name+" has certificates of the new CA", func() error { return visit(n) })
	}
	s.Must(t, "ada", "ca", "retire", "ca")
	s.AwaitConverged(t, time.Minute, 0)
	for _, n := range []*fleet.Node{s.eu, s.us} {
		fleet.Eventually(t, time.Minute, n.Name+" works without the old CA", func() error { return visit(n) })
	}
	if rows, err := fleet.Query(t.Context(), conn, "SELECT count(*) FROM regions"); err != nil || rows[0][0] != "6" {
		t.Errorf("the session that was there: %v %v", rows, err)
	}
	_ = conn.Close(t.Context())
}

// etcd: one member of three may go.
func (s *story) etcd(t *testing.T) {
	s.Etcd.Kill(0)
	took := fleet.Eventually(t, time.Minute, "a new grant with two of three members", func() error {
		r := s.Run(t, "bob", "psql", "sales-report", "--", "-XAtc", "SELECT count(*) FROM regions")
		if r.Code != 0 || r.Stdout != "6\n" {
			return fmt.Errorf("code %d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
		return nil
	})
	t.Logf("a session on a new grant %s after a member died", took.Round(time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Etcd.Restart(ctx, 0); err != nil {
		t.Error(err)
	}
}

// drain: SIGTERM takes no new session, lets what runs end, and says goodbye to the rest.
func (s *story) drain(t *testing.T) {
	token := s.Token(t, "alice")
	busy := s.Connect(t, s.us, "sales-report.warehouse", token)
	idle := s.Connect(t, s.us, "sales-report.warehouse", token)
	if _, err := fleet.Query(t.Context(), busy, "BEGIN"); err != nil {
		t.Fatal(err)
	}
	s.us.Signal(syscall.SIGTERM)
	fleet.Eventually(t, time.Minute, "new sessions go elsewhere", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		conn, err := s.Dial(ctx, s.us, "sales-report.warehouse", token)
		if err == nil {
			_ = conn.Close(ctx)
			return fmt.Errorf("let in")
		}
		return nil
	})
	if rows, err := fleet.Query(t.Context(), busy, "SELECT count(*) FROM regions"); err != nil || rows[0][0] != "6" {
		t.Errorf("a live session while the node drains: %v %v", rows, err)
	}
	if out := s.Must(t, "alice", "connect", "--print", "sales-report"); strings.Contains(out, strings.Split(s.us.PG, ":")[1]) {
		t.Errorf("people are still sent to a node that drains: %s", out)
	}
	began := time.Now()
	if code := s.us.Stop(); code != 0 {
		t.Errorf("the node ended with code %d", code)
	}
	t.Logf("drained in %s (it may take 5s)", time.Since(began).Round(time.Millisecond))
	if _, err := fleet.Query(t.Context(), idle, "SELECT 1"); fleet.Code(err) != "57P01" {
		t.Errorf("an idle session when the time was over: %v", err)
	}
	s.noSessionUsers(t)
	for _, one := range s.AwaitSealed(t, 10*time.Second, "--subject", "alice") {
		if one.Recording != "sealed" {
			t.Errorf("session %s of a node that stopped in order is %s", one.ID, one.Recording)
		}
	}
	if err := s.us.Start(); err != nil {
		t.Fatal(err)
	}
	s.AwaitServing(t, s.us.Name)
}

// stop: the control plane ends in order, too, and the nodes' sessions go on.
func (s *story) stop(t *testing.T) {
	conn := s.Connect(t, s.eu, "sales-report.warehouse", s.Token(t, "alice"))
	if code := s.Control.Stop(); code != 0 {
		t.Errorf("the control plane ended with code %d", code)
	}
	if rows, err := fleet.Query(t.Context(), conn, "SELECT count(*) FROM regions"); err != nil || rows[0][0] != "6" {
		t.Errorf("a live session without a control plane: %v %v", rows, err)
	}
	if r := s.Run(t, "alice", "tasks"); r.Code != 5 {
		t.Errorf("postern without a control plane: code %d, %s", r.Code, r.Stderr)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := s.Dial(ctx, s.eu, "sales-report.warehouse", s.Token(t, "alice")); err == nil {
		t.Error("a session on a grant that nobody could check")
	}
	if err := s.Control.Start(); err != nil {
		t.Fatal(err)
	}
	s.AwaitControl(t)
	s.AwaitConverged(t, 40*time.Second, 0)
	if rows, err := fleet.Query(t.Context(), conn, "SELECT count(*) FROM regions"); err != nil || rows[0][0] != "6" {
		t.Errorf("the session after the restart: %v %v", rows, err)
	}
}
