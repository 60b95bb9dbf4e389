// Package store_test disturbs the way of policy from etcd to the nodes, and asks whether
// every node ends up with the same, and whether anybody decided on something older.
package store_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/posterngate/postern/test/e2e/fleet"
)

// probe is a task that is changed again and again: it shows regions, or it does not.
const probe = `
apiVersion: postern/v1
kind: Task
metadata: {name: probe, labels: {team: sales, change: "%s"}}
spec:
  purpose: show which policy is enforced
  resources: {names: [warehouse]}
  permit:
    - {table: sales.orders, verbs: [select], columns: [id]}
%s
  duration: 1h
`

const binding = `
apiVersion: postern/v1
kind: Binding
metadata: {name: probe, labels: {team: sales}}
spec:
  subjects: [{group: analysts}]
  tasks: [probe]
`

// open and closed are the task with and without the regions.
func open() string {
	return fmt.Sprintf(probe, strings.ToLower(rand.Text()[:8]), "    - {table: sales.regions, verbs: [select], columns: [code, name]}")
}
func closed() string { return fmt.Sprintf(probe, strings.ToLower(rand.Text()[:8]), "") }

// shows says whether a session may see the regions now.
func shows(ctx context.Context, conn *pgx.Conn) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := fleet.Query(ctx, conn, "SELECT count(*) FROM regions")
	if fleet.Code(err) == "42501" {
		return false, nil
	}
	return err == nil, err
}

func want(t *testing.T, what string, conn *pgx.Conn, is bool) {
	t.Helper()
	if got, err := shows(t.Context(), conn); err != nil || got != is {
		t.Errorf("%s: regions are shown: %v (%v), want %v", what, got, err, is)
	}
}

func TestStore(t *testing.T) {
	f := fleet.Start(t, fleet.Options{
		Sealed: true, EtcdProxied: true, LeaseTTL: "30s", World: open() + "---" + binding,
		Nodes: []fleet.NodeSpec{{Name: "eu-1-a", Region: "eu-1"}, {Name: "us-1-a", Region: "us-1", Proxied: true}},
	})
	s := &disturbed{Fleet: f, eu: f.Nodes["eu-1-a"], us: f.Nodes["us-1-a"], asks: map[*fleet.Node]*pgx.Conn{}}
	s.atEU = f.Connect(t, s.eu, "probe.warehouse", f.Token(t, "alice"))
	s.atUS = f.Connect(t, s.us, "probe.warehouse", f.Token(t, "alice"))
	for _, n := range []*fleet.Node{s.eu, s.us} {
		s.asks[n] = f.Connect(t, n, "probe.warehouse", f.Token(t, "alice"))
	}
	var err error
	if s.etcd, err = clientv3.New(clientv3.Config{Endpoints: f.Etcd.Endpoints, TLS: f.Etcd.TLS(), DialTimeout: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.etcd.Close() })
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"compaction while a node is cut off", s.compaction}, {"compaction while the control plane is cut off", s.watch},
		{"a slow node", s.slow}, {"a node that never acks", s.silent}, {"restart of the control plane", s.restart},
		{"restore of an older backup", s.restore},
	} {
		if !t.Run(step.name, step.do) {
			t.FailNow()
		}
	}
	for _, log := range []string{f.Control.Log(), s.eu.Log(), s.us.Log()} {
		if strings.Contains(log, "holds something else than was published") {
			t.Error("a node held something else than was published")
		}
	}
}

type disturbed struct {
	*fleet.Fleet
	eu, us     *fleet.Node
	atEU, atUS *pgx.Conn // sessions that live all the time
	asks       map[*fleet.Node]*pgx.Conn
	etcd       *clientv3.Client
}

// settled waits until both nodes enforce the revision or a later one, and asks both
// sessions: from then on nobody decides on what was before.
func (s *disturbed) settled(t *testing.T, within time.Duration, revision int64, is bool) {
	t.Helper()
	began := time.Now()
	epoch, at := s.AwaitConverged(t, within, revision)
	t.Logf("both nodes at %s/%s after %s", epoch, at, time.Since(began).Round(time.Millisecond))
	want(t, "at eu-1-a", s.atEU, is)
	want(t, "at us-1-a", s.atUS, is)
}

// compact drops all history up to now.
func (s *disturbed) compact(t *testing.T) {
	t.Helper()
	r, err := s.etcd.Get(t.Context(), "/")
	if err == nil {
		_, err = s.etcd.Compact(t.Context(), r.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *disturbed) compaction(t *testing.T) {
	s.us.Proxy.Cut()
	for range 20 {
		s.Apply(t, open())
	}
	revision := s.Apply(t, closed())
	s.compact(t)
	fleet.Eventually(t, time.Minute, "eu-1-a has the change", func() error { return s.at(t, s.eu, false) })
	// Cut off for less than its tasks allow, the node goes on with what it has.
	want(t, "at us-1-a, cut off", s.atUS, true)
	if _, err := s.Dial(t.Context(), s.us, "probe.warehouse", s.Token(t, "alice")); err == nil {
		t.Error("a node that is cut off opened a grant")
	}
	s.us.Proxy.Heal()
	s.settled(t, 30*time.Second, revision, false)
}

// at asks again and again, and so not by a session that lives all the time: what runs when
// it is permitted no more ends its session, and then another one asks.
func (s *disturbed) at(t *testing.T, n *fleet.Node, is bool) error {
	if s.asks[n].IsClosed() {
		conn, err := s.Dial(t.Context(), n, "probe.warehouse", s.Token(t, "alice"))
		if err != nil {
			return err
		}
		s.asks[n] = conn
	}
	got, err := shows(t.Context(), s.asks[n])
	if err == nil && got != is {
		err = fmt.Errorf("regions are shown: %v", got)
	}
	return err
}

// watch: what another replica wrote and compacted meanwhile is not missed.
func (s *disturbed) watch(t *testing.T) {
	const key = "/postern/v1/task/probe"
	before, err := s.etcd.Get(t.Context(), key)
	if err != nil || len(before.Kvs) != 1 {
		t.Fatalf("%s: %v %v", key, before, err)
	}
	s.settled(t, 10*time.Second, s.Apply(t, open()), true)
	for _, p := range s.EtcdProxies {
		p.Cut()
	}
	var revision int64
	for range 20 {
		r, err := s.etcd.Put(t.Context(), key, string(before.Kvs[0].Value))
		if err != nil {
			t.Fatal(err)
		}
		revision = r.Header.Revision
	}
	s.compact(t)
	for _, p := range s.EtcdProxies {
		p.Heal()
	}
	fleet.Eventually(t, 30*time.Second, "the control plane sees what it missed", func() error { return s.at(t, s.eu, false) })
	s.settled(t, 30*time.Second, revision, false)
}

// slow: at 1 KB/s a node takes its time, and nobody else's.
func (s *disturbed) slow(t *testing.T) {
	s.us.Proxy.Throttle(1000)
	defer s.us.Proxy.Heal()
	for range 5 {
		s.Apply(t, closed())
	}
	s.Apply(t, open())
	took := fleet.Eventually(t, 10*time.Second, "eu-1-a is not held up", func() error { return s.at(t, s.eu, true) })
	t.Logf("eu-1-a had the change %s after it was made", took.Round(time.Millisecond))
	took = fleet.Eventually(t, 30*time.Second, "the slow node gets there", func() error { return s.at(t, s.us, true) })
	t.Logf("the slow node had it after %s", took.Round(time.Millisecond))
	// A lock does not wait behind the rest.
	var revision int64
	for range 5 {
		revision = s.Apply(t, closed())
	}
	began := time.Now()
	victim := s.atUS
	lock := s.Must(t, "ada", "lock", "--subject", "alice", "--reason", "laptop stolen")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := victim.WaitForNotification(ctx); fleet.Code(err) != "57P01" || !strings.Contains(err.Error(), "laptop stolen") {
		t.Errorf("the session at the slow node ended with %v", err)
	}
	t.Logf("the lock ended the session at the slow node after %s", time.Since(began).Round(time.Millisecond))
	s.Must(t, "ada", "unlock", lock)
	// And a node that knows nothing gets all there is.
	if code := s.us.Stop(); code != 0 {
		t.Errorf("the node ended with code %d", code)
	}
	if err := s.us.Start(); err != nil {
		t.Fatal(err)
	}
	t.Logf("a cold node at the end of a slow wire serves after %s", s.AwaitServing(t, s.us.Name).Round(time.Millisecond))
	s.us.Proxy.Heal()
	s.AwaitConverged(t, 30*time.Second, revision)
	s.reconnect(t)
	s.settled(t, 10*time.Second, revision, false)
}

// reconnect opens both sessions anew.
func (s *disturbed) reconnect(t *testing.T) {
	t.Helper()
	outer := s.atEU
	_ = outer.Close(t.Context())
	var err error
	for n, c := range map[*fleet.Node]**pgx.Conn{s.eu: &s.atEU, s.us: &s.atUS} {
		fleet.Eventually(t, time.Minute, "alice is let in again", func() error {
			*c, err = s.Dial(context.Background(), n, "probe.warehouse", s.Token(t, "alice"))
			return err
		})
	}
}

// silent: a node that takes nothing and confirms nothing holds nobody up, is shown as
// behind, and comes back.
func (s *disturbed) silent(t *testing.T) {
	s.us.Pause()
	for range 30 {
		s.Apply(t, closed())
	}
	revision := s.Apply(t, open())
	took := fleet.Eventually(t, 10*time.Second, "eu-1-a is not held up", func() error { return s.at(t, s.eu, true) })
	t.Logf("eu-1-a had the change %s after it was made", took.Round(time.Millisecond))
	fleet.Eventually(t, time.Minute, "the lag is shown", func() error {
		all, err := s.Status(t)
		if err == nil && all["us-1-a"].Connected && strings.Trim(all["us-1-a"].Lag, "0s.") == "" {
			err = fmt.Errorf("%+v", all["us-1-a"])
		}
		return err
	})
	s.us.Resume()
	s.settled(t, 30*time.Second, revision, true)
}

// restart: sessions go on, and the nodes are told the difference alone.
func (s *disturbed) restart(t *testing.T) {
	for _, how := range []func(){func() { s.Control.Stop() }, func() {
		if err := s.Control.Crash(); err != nil {
			t.Error(err)
		}
	}} {
		said := len(s.Control.Log())
		how()
		want(t, "at eu-1-a without a control plane", s.atEU, true)
		if err := s.Control.Start(); err != nil {
			t.Fatal(err)
		}
		s.AwaitControl(t)
		// What the dead one knew of the nodes counts until its lease ends, so that the fleet
		// may look whole before they have come back.
		fleet.Eventually(t, 40*time.Second, "both nodes are back", func() error {
			if n := strings.Count(s.Control.Log()[said:], `"msg":"node connected"`); n < 2 {
				return fmt.Errorf("%d of 2 nodes have connected", n)
			}
			return nil
		})
		s.settled(t, 40*time.Second, 0, true)
		if n := strings.Count(s.Control.Log()[said:], `"resumed":true`); n < 2 {
			t.Errorf("%d of 2 nodes went on from what they had", n)
		}
	}
	s.settled(t, 10*time.Second, s.Apply(t, closed()), false)
}
