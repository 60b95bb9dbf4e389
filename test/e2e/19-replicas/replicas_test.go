// Package replicas_test asks two replicas of the control plane for everything, and kills
// one after the other.
package replicas_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/e2e/fleet"
)

// wait is how long anything may take that must come.
const wait = time.Minute

func TestReplicas(t *testing.T) {
	f := fleet.Start(t, fleet.Options{Replicas: 2, Nodes: []fleet.NodeSpec{
		{Name: "eu-1-a", Region: "eu-1", Replica: 0}, {Name: "us-1-a", Region: "us-1", Replica: 1},
	}})
	s := &story{Fleet: f, eu: f.Nodes["eu-1-a"], us: f.Nodes["us-1-a"], one: f.Replicas[0], two: f.Replicas[1]}
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"both know both nodes", s.nodes}, {"lock", s.lock}, {"hold", s.hold}, {"kill and cancel", s.kill},
		{"the first is killed", func(t *testing.T) { s.failover(t, s.one, s.two, 4720) }},
		{"the second is killed", func(t *testing.T) { s.failover(t, s.two, s.one, 4721) }},
		{"recordings", s.recordings}, {"audit log", s.audit},
	} {
		if !t.Run(step.name, step.do) {
			t.FailNow() // later steps stand on it
		}
	}
}

type story struct {
	*fleet.Fleet
	eu, us   *fleet.Node
	one, two *fleet.Replica
}

// connected reports how often a replica has said that a node came to it.
func connected(r *fleet.Replica, n *fleet.Node) (times int) {
	for line := range strings.Lines(r.Log()) {
		if strings.Contains(line, `"msg":"node connected"`) && strings.Contains(line, `"node":"`+n.Name+`"`) {
			times++
		}
	}
	return times
}

// nodes: each replica has one of them, and tells of both.
func (s *story) nodes(t *testing.T) {
	if connected(s.one, s.eu) == 0 || connected(s.two, s.us) == 0 || connected(s.one, s.us)+connected(s.two, s.eu) > 0 {
		t.Errorf("the nodes are not spread over the replicas")
	}
	for _, r := range s.Replicas {
		s.At(r).AwaitConverged(t, wait, 0)
	}
}

// lock: made at one replica, it ends the sessions at the node of the other.
func (s *story) lock(t *testing.T) {
	token := s.Token(t, "carol")
	for _, r := range s.Replicas {
		conns := []*pgx.Conn{s.Connect(t, s.eu, "sales-report.warehouse", token), s.Connect(t, s.us, "sales-report.warehouse", token)}
		ends := make([]error, len(conns))
		g := run.New(t.Context())
		began := time.Now()
		var took [2]time.Duration
		for i, conn := range conns {
			g.Go("session", func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, wait)
				defer cancel()
				_, ends[i] = conn.WaitForNotification(ctx)
				took[i] = time.Since(began)
				return nil
			})
		}
		lock := s.At(r).Must(t, "ada", "lock", "--subject", "carol", "--reason", "contract ended")
		_ = g.Wait()
		for _, err := range ends {
			if fleet.Code(err) != "57P01" || !strings.Contains(err.Error(), "contract ended") {
				t.Errorf("a session ended with %v", err)
			}
		}
		t.Logf("%s: sessions ended %s and %s after the command began", r.Name, took[0].Round(time.Millisecond), took[1].Round(time.Millisecond))
		s.Must(t, "ada", "unlock", lock)
		for _, n := range []*fleet.Node{s.eu, s.us} {
			fleet.Eventually(t, wait, "carol is let in again at "+n.Name, func() error { return s.visit(t, n, token) })
		}
	}
}

// visit opens a session, asks for something, and leaves.
func (s *story) visit(t *testing.T, n *fleet.Node, token string) error {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := s.Dial(ctx, n, "sales-report.warehouse", token)
	if err != nil {
		return err
	}
	rows, err := fleet.Query(ctx, conn, "SELECT count(*) FROM regions")
	if err == nil && rows[0][0] != "6" {
		err = fmt.Errorf("%v", rows)
	}
	return errors.Join(err, conn.Close(ctx))
}

// hold: a statement at the node of one replica is seen and approved at the other.
func (s *story) hold(t *testing.T) {
	for i, c := range []struct {
		node *fleet.Node
		at   *fleet.Replica
	}{{s.eu, s.two}, {s.us, s.one}} {
		conn := s.Connect(t, c.node, "purge-order.warehouse", s.Token(t, "alice"))
		g := run.New(t.Context())
		var tag string
		g.Go("delete", func(ctx context.Context) error {
			got, err := conn.Exec(ctx, fmt.Sprintf("DELETE FROM orders WHERE id = %d", 4711+i))
			tag = got.String()
			return err
		})
		at := s.At(c.at)
		at.Must(t, "bob", "approve", at.Hold(t, "bob", "purge-order"))
		if err := g.Wait(); err != nil || tag != "DELETE 1" {
			t.Errorf("approved at %s: %q %v", c.at.Name, tag, err)
		}
		_ = conn.Close(t.Context())
	}
}

// kill: sessions are listed, followed and ended at the replica that does not have their
// node, and a cancel request reaches a session over two replicas.
func (s *story) kill(t *testing.T) {
	conn := s.Connect(t, s.eu, "sales-report.warehouse", s.Token(t, "alice"))
	g := run.New(t.Context())
	var ended error
	g.Go("slow statement", func(ctx context.Context) error {
		_, ended = fleet.Query(ctx, conn, "SELECT count(*) FROM orders a, orders b, orders c WHERE a.amount < b.amount AND b.amount < c.amount")
		return nil
	})
	fleet.Eventually(t, wait, "the statement runs", func() error {
		if n := s.PG.SQL(t, "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'v-%' AND state = 'active'")[0][0]; n != "1" {
			return fmt.Errorf("%s run", n)
		}
		return nil
	})
	if err := fleet.CancelAt(s.us, conn); err != nil {
		t.Error(err)
	}
	_ = g.Wait()
	if fleet.Code(ended) != "57014" {
		t.Errorf("cancelled through the other node: %v", ended)
	}
	at := s.At(s.two)
	id := ""
	fleet.Eventually(t, wait, "the session is listed", func() error {
		for _, one := range at.Sessions(t, "--live", "--subject", "alice") {
			if one.Node == s.eu.Name {
				id = one.ID
				return nil
			}
		}
		return errors.New("it is not")
	})
	at.Must(t, "ada", "sessions", "kill", id, "--reason", "wrong database")
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if _, err := conn.WaitForNotification(ctx); fleet.Code(err) != "57P01" || !strings.Contains(err.Error(), "wrong database") {
		t.Errorf("the session that was killed: %v", err)
	}
}

// failover: one replica is killed. Sessions do not notice, its node goes on at the other
// without a full resend, and what the leader does is done by the other: what a dead
// session borrowed is taken back, and audit entries are moved to the log.
func (s *story) failover(t *testing.T, gone, stays *fleet.Replica, order int) {
	at := s.At(stays)
	node, other := s.eu, s.us
	if gone == s.two {
		node, other = s.us, s.eu
	}
	token := s.Token(t, "alice")
	kept := s.Connect(t, node, "sales-report.warehouse", token)
	lost := s.Connect(t, other, "sales-report.warehouse", token)
	waiting := s.Connect(t, node, "purge-order.warehouse", token)
	g := run.New(t.Context())
	var tag string
	g.Go("held delete", func(ctx context.Context) error {
		got, err := waiting.Exec(ctx, fmt.Sprintf("DELETE FROM orders WHERE id = %d", order))
		tag = got.String()
		return err
	})
	hold := at.Hold(t, "bob", "purge-order")
	before, said := connected(stays, node), len(stays.Log())
	if err := gone.Crash(); err != nil {
		t.Error(err)
	}
	began := time.Now()
	fleet.Eventually(t, wait, "the node goes on at the other replica", func() error {
		if connected(stays, node) == before {
			return errors.New("it has not come")
		}
		return nil
	})
	t.Logf("%s came to %s %s after %s was killed", node.Name, stays.Name, time.Since(began).Round(time.Millisecond), gone.Name)
	if log := stays.Log()[said:]; !strings.Contains(log, `"resumed":true`) {
		t.Errorf("everything was sent again:\n%s", log)
	}
	if rows, err := fleet.Query(t.Context(), kept, "SELECT count(*) FROM regions"); err != nil || rows[0][0] != "6" {
		t.Errorf("the session that was there: %v %v", rows, err)
	}
	at.Must(t, "bob", "approve", hold)
	if err := g.Wait(); err != nil || tag != "DELETE 1" {
		t.Errorf("what waited while its replica was killed: %q %v", tag, err)
	}
	_ = waiting.Close(t.Context())
	for _, n := range []*fleet.Node{node, other} {
		fleet.Eventually(t, wait, "a new session at "+n.Name, func() error { return s.visit(t, n, token) })
	}
	at.AwaitConverged(t, wait, at.Apply(t, fmt.Sprintf(marker, stays.Name)))
	entries := s.moved(t)
	// The leader's work.
	users := len(s.SessionUsers(t))
	if err := other.Crash(); err != nil {
		t.Error(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	at.AwaitServing(t, other.Name)
	fleet.Eventually(t, wait, "what a dead session had borrowed is taken back", func() error {
		if now := len(s.SessionUsers(t)); now >= users {
			return fmt.Errorf("%d users, and there were %d", now, users)
		}
		return nil
	})
	fleet.Eventually(t, wait, "audit entries are moved to the log", func() error {
		if now := s.moved(t); now <= entries {
			return fmt.Errorf("%d entries, as before", now)
		}
		return nil
	})
	_ = lost.Close(t.Context())
	_ = kept.Close(t.Context())
	if err := gone.Start(); err != nil {
		t.Fatal(err)
	}
	s.At(gone).AwaitControl(t)
	s.At(gone).AwaitConverged(t, wait, 0)
}

// marker is a change that every node must come to have.
const marker = `
apiVersion: postern/v1
kind: Task
metadata: {name: marker, labels: {team: sales, from: %s}}
spec:
  purpose: show which policy is enforced
  resources: {names: [warehouse]}
  permit: [{table: sales.orders, verbs: [select], columns: [id]}]
  duration: 1h
`

// moved is how many entries the audit log's folder vouches for.
func (s *story) moved(t *testing.T) (entries int) {
	t.Helper()
	r := s.verifyAudit(t)
	if _, err := fmt.Sscanf(r, "%d entries", &entries); err != nil {
		t.Fatalf("%v in %q", err, r)
	}
	return entries
}

func (s *story) verifyAudit(t *testing.T) string {
	t.Helper()
	shared := filepath.Join(s.Dir, "shared")
	return s.Must(t, "bob", "audit", "verify", "--dir", filepath.Join(shared, "audit"), "--key", filepath.Join(shared, "audit.key.pub"))
}

// recordings: both replicas serve all of them, and each verifies.
func (s *story) recordings(t *testing.T) {
	all := s.AwaitSealed(t, wait)
	states := map[string]int{}
	for i, one := range all {
		states[one.Recording]++
		report, err := s.At(s.Replicas[i%2]).Recorder(t).Verify(t.Context(), one.ID)
		if err != nil || len(report.Errors) > 0 || string(report.State) != one.Recording {
			t.Errorf("session %s at %s: %v %+v", one.ID, one.Node, err, report)
		}
	}
	if states["sealed"] < 8 || states["truncated"] != 2 {
		t.Errorf("recordings: %v", states)
	}
	for _, r := range s.Replicas {
		if got := s.At(r).Sessions(t); len(got) != len(all) {
			t.Errorf("%s lists %d of %d recordings", r.Name, len(got), len(all))
		}
	}
	t.Logf("recordings: %v", states)
}

// audit: one log of both, without a gap.
func (s *story) audit(t *testing.T) { t.Log(s.verifyAudit(t)) }
