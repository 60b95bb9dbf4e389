// Package usage_test holds two nodes together to the limits of one grant.
package usage_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/test/e2e/fleet"
)

const limited = `
apiVersion: postern/v1
kind: Task
metadata: {name: few-statements, labels: {team: sales}}
spec:
  purpose: ask a few times
  resources: {names: [warehouse]}
  permit: [{table: sales.regions, verbs: [select], columns: [code, name]}]
  limits: {statements: 40, per: grant}
  duration: 1h
---
apiVersion: postern/v1
kind: Task
metadata: {name: few-rows, labels: {team: sales}}
spec:
  purpose: look at a few
  resources: {names: [warehouse]}
  permit: [{table: sales.orders, verbs: [select], columns: [id]}]
  limits: {rows: 100, per: grant}
  duration: 1h
---
apiVersion: postern/v1
kind: Task
metadata: {name: two-sessions, labels: {team: sales}}
spec:
  purpose: two at a time
  resources: {names: [warehouse]}
  permit: [{table: sales.regions, verbs: [select], columns: [code, name]}]
  limits: {sessions: 2}
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: limited, labels: {team: sales}}
spec:
  subjects: [{group: analysts}]
  tasks: [few-statements, few-rows, two-sessions]
`

func TestUsage(t *testing.T) {
	f := fleet.Start(t, fleet.Options{Embedded: true, Sealed: true, World: limited})
	s := &usage{f, f.Nodes["eu-1-a"], f.Nodes["us-1-a"]}
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{{"statements", s.statements}, {"rows", s.rows}, {"sessions", s.sessions}, {"unused", s.unused}, {"killed", s.killed}} {
		if !t.Run(step.name, step.do) {
			t.FailNow()
		}
	}
}

type usage struct {
	*fleet.Fleet
	eu, us *fleet.Node
}

const count = "SELECT code FROM regions"

// statements: two nodes take turns, and have the limit together, to the last one.
func (s *usage) statements(t *testing.T) {
	token := s.Token(t, "alice")
	conns := []*pgx.Conn{s.Connect(t, s.eu, "few-statements.warehouse", token), s.Connect(t, s.us, "few-statements.warehouse", token)}
	done, refused := 0, []bool{false, false}
	for i := 0; !refused[0] || !refused[1]; i++ {
		if done > 40 {
			t.Fatalf("%d statements of 40 went through", done)
		}
		_, err := conns[i%2].Exec(t.Context(), count, pgx.QueryExecModeSimpleProtocol)
		switch {
		case err == nil:
			done++
		case fleet.Code(err) == "53400":
			refused[i%2] = true
			if !strings.Contains(err.Error(), "allows 40 statements") {
				t.Errorf("refused with: %v", err)
			}
		default:
			t.Fatal(err)
		}
	}
	if done != 40 {
		t.Errorf("%d statements of 40 went through", done)
	}
}

// rows: what a session did not use is there for the other node once it has ended, and a
// result is cut where the grant's limit is.
func (s *usage) rows(t *testing.T) {
	token := s.Token(t, "alice")
	first := s.Connect(t, s.eu, "few-rows.warehouse", token)
	got, err := fleet.Query(t.Context(), first, "SELECT id FROM orders LIMIT 30")
	if err != nil || len(got) != 30 {
		t.Fatalf("%d rows, %v", len(got), err)
	}
	if err := first.Close(t.Context()); err != nil {
		t.Error(err)
	}
	second := s.Connect(t, s.us, "few-rows.warehouse", token)
	got, err = fleet.Query(t.Context(), second, "SELECT id FROM orders")
	if fleet.Code(err) != "53400" {
		t.Errorf("a result over the limit ended with %v", err)
	}
	if len(got) > 70 {
		t.Errorf("%d rows of the 70 that were left", len(got))
	}
	if _, err := second.Exec(t.Context(), "SELECT id FROM orders LIMIT 1", pgx.QueryExecModeSimpleProtocol); fleet.Code(err) != "53400" {
		t.Errorf("a row more than all: %v", err)
	}
}

// sessions: two at once, wherever they are.
func (s *usage) sessions(t *testing.T) {
	token := s.Token(t, "alice")
	eu := s.Connect(t, s.eu, "two-sessions.warehouse", token)
	s.Connect(t, s.us, "two-sessions.warehouse", token)
	for _, n := range []*fleet.Node{s.eu, s.us} {
		if _, err := s.Dial(t.Context(), n, "two-sessions.warehouse", token); fleet.Code(err) != "53400" {
			t.Errorf("a third session at %s: %v", n.Name, err)
		}
	}
	if err := eu.Close(t.Context()); err != nil {
		t.Error(err)
	}
	fleet.Eventually(t, 5*time.Second, "a session that ended makes room on the other node", func() error {
		conn, err := s.Dial(t.Context(), s.us, "two-sessions.warehouse", token)
		if err != nil {
			return err
		}
		return conn.Close(t.Context())
	})
}

// unused: bindings that nobody takes are told of with their last use, which comes from the
// recordings of what the steps before did.
func (s *usage) unused(t *testing.T) {
	type binding struct{ Binding, Task, LastTime string }
	list := func(since string) map[string]string {
		out := map[string]string{}
		var all []binding
		if err := json.Unmarshal([]byte(s.Must(t, "ada", "usage", "--unused", since, "--format", "json")), &all); err != nil {
			t.Fatal(err)
		}
		for _, b := range all {
			out[b.Binding+" "+b.Task] = orElse(b.LastTime, "never")
		}
		return out
	}
	fleet.Eventually(t, time.Minute, "what was used is not listed", func() error {
		for task, last := range list("1h") {
			if strings.HasPrefix(task, "limited ") {
				return fmt.Errorf("%s: %s", task, last)
			}
		}
		return nil
	})
	if never := list("1h"); never["nightly nightly-load"] != "never" {
		t.Errorf("what nobody took: %v", never)
	}
	// Whatever was used a moment ago is unused since then, and the last use is told.
	fleet.Eventually(t, time.Minute, "the last use is told", func() error {
		last, err := time.Parse(time.RFC3339, list("1s")["limited few-rows"])
		if age := time.Since(last); err == nil && (age < time.Second || age > time.Hour) {
			err = fmt.Errorf("%s ago", age)
		}
		return err
	})
	if text := s.Must(t, "ada", "usage", "--unused", "1h"); !strings.Contains(text, "nightly-load") || !strings.Contains(text, "never, as far as recordings tell") {
		t.Errorf("as text:\n%s", text)
	}
	if r := s.Run(t, "alice", "usage", "--unused", "1h"); r.Code != 3 {
		t.Errorf("alice may ask: %+v", r)
	}
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// killed: the sessions of a node that died make room once it is back.
func (s *usage) killed(t *testing.T) {
	token := s.Token(t, "alice")
	var conns []*pgx.Conn // kept: one that nobody refers to is closed
	for range 2 {
		fleet.Eventually(t, 5*time.Second, "there is room", func() error {
			conn, err := s.Dial(t.Context(), s.us, "two-sessions.warehouse", token)
			conns = append(conns, conn)
			return err
		})
	}
	if err := s.us.Crash(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Dial(t.Context(), s.eu, "two-sessions.warehouse", token); fleet.Code(err) != "53400" {
		t.Errorf("the sessions of a node that may live were given away: %v", err)
	}
	runtime.KeepAlive(conns)
	if err := s.us.Start(); err != nil {
		t.Fatal(err)
	}
	s.AwaitServing(t, s.us.Name)
	fleet.Eventually(t, 10*time.Second, "the sessions of the process that is gone make room", func() error {
		conn, err := s.Dial(t.Context(), s.eu, "two-sessions.warehouse", token)
		if err != nil {
			return err
		}
		return conn.Close(t.Context())
	})
}
