// Package crash_test kills the binaries at random moments while people work, and then
// asks what is missing: of the records, and of what was lent.
package crash_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/test/e2e/fleet"
)

// runs is how often each is killed; make faults sets POSTERN_FAULTS_RUNS.
func runs(t *testing.T) int {
	t.Helper()
	s := os.Getenv("POSTERN_FAULTS_RUNS")
	if s == "" {
		return 5
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("POSTERN_FAULTS_RUNS=%q is not a number above 0", s)
	}
	return n
}

func TestCrash(t *testing.T) {
	f := fleet.Start(t, fleet.Options{})
	eu, us := f.Nodes["eu-1-a"], f.Nodes["us-1-a"]
	f.Recorder(t) // bob signs in while there is somebody to sign in at
	l := startLoad(t, f, eu, us)
	n := runs(t)
	t.Run("node", func(t *testing.T) {
		for range n {
			l.atWork(t)
			crash(t, eu.Process)
			start(t, eu.Process)
			t.Logf("the node serves %s after it was killed", f.AwaitServing(t, eu.Name).Round(time.Millisecond))
		}
	})
	t.Run("control plane", func(t *testing.T) {
		for range n {
			l.atWork(t)
			lost := l.lost.Load()
			crash(t, f.Control)
			start(t, f.Control)
			took := f.AwaitControl(t)
			f.AwaitConverged(t, 60*time.Second, 0)
			if now := l.lost.Load(); now != lost {
				t.Errorf("%d sessions broke because the control plane was away, the last with: %v", now-lost, *l.cause.Load())
			}
			t.Logf("the control plane is ready %s after it was killed", took.Round(time.Millisecond))
		}
	})
	t.Run("both", func(t *testing.T) {
		for range max(1, n/5) {
			l.atWork(t)
			crash(t, eu.Process)
			crash(t, f.Control)
			start(t, eu.Process)
			start(t, f.Control)
			f.AwaitControl(t)
			f.AwaitServing(t, eu.Name)
		}
	})
	l.atWork(t)
	l.stop(t)
	ended := time.Now()
	t.Run("records", func(t *testing.T) { l.records(t) })
	t.Run("leases", func(t *testing.T) { leases(t, f, ended) })
	t.Run("wiped node", func(t *testing.T) { wiped(t, f, us) })
}

// atWork waits for a random moment in which work goes on.
func (l *load) atWork(t *testing.T) {
	t.Helper()
	begin := l.steps.Load() + 20 + rand.Int64N(200)
	fleet.Eventually(t, 2*time.Minute, "work goes on", func() error {
		if now := l.steps.Load(); now < begin {
			return fmt.Errorf("%d statements are to come", begin-now)
		}
		return nil
	})
	<-time.After(rand.N(300 * time.Millisecond)) // the moment is what is random here
}

func crash(t *testing.T, p *fleet.Process) {
	t.Helper()
	if err := p.Crash(); err != nil {
		t.Error(err)
	}
}

func start(t *testing.T, p *fleet.Process) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
}

var numbered = regexp.MustCompile(`[wr]-\d{8}`)

// records: whatever reached PostgreSQL, or was answered, stands in a recording as an
// intent, and every recording is what a node wrote.
func (l *load) records(t *testing.T) {
	sessions := l.f.AwaitSealed(t, time.Minute)
	recorder := l.f.Recorder(t)
	intents, states := map[string]bool{}, map[string]int{}
	for _, s := range sessions {
		report, err := recorder.Verify(t.Context(), s.ID)
		if err != nil || len(report.Errors) > 0 {
			t.Errorf("session %s at %s: %v %v", s.ID, s.Node, err, report.Errors)
		}
		if string(report.State) != s.Recording {
			t.Errorf("session %s is listed as %s, and its seal says %s", s.ID, s.Recording, report.State)
		}
		states[s.Recording]++
		for e, err := range recorder.Events(t.Context(), s.ID) {
			if err != nil {
				t.Errorf("session %s: %v", s.ID, err)
				break
			}
			if e.Kind != record.KindIntent {
				continue
			}
			if n := numbered.FindString(e.Text); n != "" {
				intents[n] = true
			}
			for _, p := range e.Params {
				intents[p.Value] = true
			}
		}
	}
	// One row went past Postern: so this test is seen to find what has no record.
	const decoy = "w-99999999"
	l.f.PG.SQLIn(t, "warehouse", "INSERT INTO audit.log (actor, action) VALUES ('load', '"+decoy+"')")
	rows := map[string]bool{}
	for _, r := range l.f.PG.SQLIn(t, "warehouse", "SELECT action FROM audit.log WHERE actor = 'load'") {
		if rows[r[0]] {
			t.Errorf("row %s is there twice", r[0])
		}
		rows[r[0]] = true
	}
	if intents[decoy] || !rows[decoy] {
		t.Errorf("a row without a record is not found")
	}
	delete(rows, decoy)
	missing := func(what string, of, in map[string]bool) {
		n := 0
		for k := range of {
			if !in[k] {
				if n++; n <= 5 {
					t.Errorf("%s: %s is missing", what, k)
				}
			}
		}
		if n > 5 {
			t.Errorf("%s: %d are missing", what, n)
		}
	}
	missing("a row that PostgreSQL has, in the recordings", rows, intents)
	missing("a read that was answered, in the recordings", l.reads, intents)
	missing("a write that was acknowledged, in the table", l.writes, rows)
	if len(rows) < 100 || len(l.reads) < 100 || states["truncated"] == 0 {
		t.Errorf("too little happened: %d rows, %d reads, recordings %v", len(rows), len(l.reads), states)
	}
	t.Logf("%d rows and %d reads, all with an intent; recordings: %v; %d sessions broke", len(rows), len(l.reads), states, l.lost.Load())
}

// leases: whatever was lent to sessions that have died is taken back.
func leases(t *testing.T, f *fleet.Fleet, ended time.Time) {
	fleet.Eventually(t, time.Minute, "nothing is lent to a dead session", func() error {
		if n := f.VaultLeases(t); n > 0 {
			return fmt.Errorf("%d leases, users %v", n, f.SessionUsers(t))
		}
		return nil
	})
	t.Logf("nothing was lent to a dead session %s after the last one died", time.Since(ended).Round(time.Millisecond))
	// Vault itself can lose a user that it was making when its caller was killed. It knows
	// no lease of such a user, nobody was told the password, and the server bounds it.
	for _, user := range f.SessionUsers(t) {
		if strings.Contains(f.Control.Log(), user) {
			t.Errorf("user %s was lent, and lives", user)
		}
		if left := f.PG.SQL(t, "SELECT rolvaliduntil < now() + interval '1 hour' FROM pg_roles WHERE rolname = '"+user+"'"); left[0][0] != "t" {
			t.Errorf("user %s has no end", user)
		}
		t.Logf("Vault lost the user %s while it made it", user)
	}
}

// wiped: a node that lost its disk after a drain needs a token and nothing else.
func wiped(t *testing.T, f *fleet.Fleet, n *fleet.Node) {
	if code := n.Stop(); code != 0 {
		t.Errorf("the node ended with code %d", code)
	}
	f.Wipe(t, n)
	token := f.Token(t, "alice")
	began := time.Now()
	start(t, n.Process)
	fleet.Eventually(t, time.Minute, "a wiped node serves", func() error {
		conn, err := f.Dial(t.Context(), n, "sales-report.warehouse", token)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(t.Context()) }()
		rows, err := fleet.Query(t.Context(), conn, "SELECT email FROM customers WHERE id = 7")
		if err == nil && rows[0][0] != "***" {
			t.Errorf("unmasked: %v", rows)
		}
		return err
	})
	t.Logf("a wiped node answered its first statement %s after its start", time.Since(began).Round(time.Millisecond))
}
