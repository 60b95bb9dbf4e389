package story

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/test/e2e/house"
)

// aSecond is what a revocation may take to reach a live session.
const aSecond = time.Second

// cut waits on an idle connection for the end that the node tells, and its time.
func cut(c *pgx.Conn) <-chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), house.Patience)
		defer cancel()
		_, err := c.WaitForNotification(ctx)
		done <- err
	}()
	return done
}

// isCut checks the end of a session that was cut off just now.
func isCut(t *testing.T, began time.Time, ended <-chan error, cause string) {
	t.Helper()
	err := outcome(t, ended)
	if took := time.Since(began); took > aSecond {
		t.Errorf("the session was cut after %s", took)
	}
	if house.State(err) != "57P01" {
		t.Fatalf("the session ended with %v", err)
	}
	house.Has(t, house.PgError(t, err).Message, cause)
}

func create(t *testing.T, h *house.House, o *typesv1.Object) {
	t.Helper()
	house.Must(h.API("ada").Policy.Create(t.Context(), house.Request(&apiv1.CreateRequest{Object: o})))(t)
}

// TestCutOff: each way in which a right ends reaches live sessions within a second.
func TestCutOff(t *testing.T) {
	h := house.Start(t)
	lock := func(name string, set func(*typesv1.LockSpec)) *typesv1.Object {
		o := object.Bare("lock", name)
		o.GetLock().Spec = &typesv1.LockSpec{Reason: "contract ended"}
		set(o.GetLock().Spec)
		return o
	}
	t.Run("subject locked, at the CLI", func(t *testing.T) {
		s := h.StartPsql(t, "carol", "sales-report")
		s.Say("SELECT 'in', count(*) FROM regions;")
		s.Expect("in|6")
		conn := h.Connect(t, "carol", "sales-report")
		other := h.Connect(t, "alice", "sales-report")
		ended := cut(conn)
		r := h.CLI(t, "ada", "lock", "--subject", "carol", "--reason", "contract ended")
		isCut(t, time.Now(), ended, "contract ended")
		const stranger = "nobody called"
		if strings.Contains(r.Err, stranger) {
			t.Errorf("of somebody who is at work it warns: %s", r.Err)
		}
		typo := h.CLI(t, "ada", "lock", "--subject", "carol@sample.example", "--reason", "contract ended")
		house.Has(t, typo.Err, stranger+` "carol@sample.example"`)
		if typo.Code != 0 {
			t.Errorf("%+v", typo)
		}
		s.Say("SELECT 'out', count(*) FROM regions;")
		out := s.End()
		house.Has(t, out.Out, "57P01", "contract ended")
		if out.Code != 2 {
			t.Errorf("psql ended with %d", out.Code)
		}
		if r := h.Psql(t, "carol", "sales-report", "SELECT 1;"); r.Code != 2 {
			t.Errorf("carol came in again: %+v", r)
		} else {
			house.Has(t, r.Err, "contract ended")
		}
		if s := state(t.Context(), other, "SELECT 1"); s != "" {
			t.Errorf("alice was hit too: %s", s)
		}
		if r := h.CLI(t, "ada", "unlock", lines(r.Out)[0]); r.Code != 0 {
			t.Errorf("%+v", r)
		}
		house.Eventually(t, func() string { return "carol may come again" }, func() bool {
			return h.Psql(t, "carol", "sales-report", "SELECT 1;").Code == 0
		})
	})
	t.Run("in the middle of a statement", func(t *testing.T) {
		conn := h.Connect(t, "carol", "sales-report")
		done := make(chan error, 1)
		go func() {
			_, err := conn.Exec(t.Context(), "SELECT count(*) FROM generate_series(1, 2000000000)")
			done <- err
		}()
		house.Eventually(t, func() string { return "the statement runs at the target" }, func() bool {
			return running(t, h) == "1"
		})
		create(t, h, lock("carol-busy", func(s *typesv1.LockSpec) { s.Subject = "carol" }))
		isCut(t, time.Now(), done, "contract ended")
		house.Eventually(t, func() string { return "the target has stopped" }, func() bool { return running(t, h) == "0" })
		h.Delete(t, "lock", "carol-busy")
		h.Settled(t)
	})
	t.Run("while it waits for people", func(t *testing.T) {
		done := purge(t.Context(), t, h, 41)
		hold := pending(t, h)
		create(t, h, lock("alice-waits", func(s *typesv1.LockSpec) { s.Subject = "alice" }))
		isCut(t, time.Now(), done, "contract ended")
		if err := answer(t, h, hold, true); err == nil {
			t.Error("a locked person's hold was approved")
		}
		if !exists(t, h, 41) {
			t.Error("it ran")
		}
		h.Delete(t, "lock", "alice-waits")
		h.Settled(t)
	})
	t.Run("grant revoked", func(t *testing.T) {
		ended := cut(h.Connect(t, "alice", "sales-report"))
		grants := house.Must(h.API("ada").Grants.ListGrants(t.Context(), house.Request(&apiv1.ListGrantsRequest{Subject: "alice", Active: true})))(t)
		for _, g := range grants.Msg.GetGrants() {
			if g.GetTask() == "sales-report" {
				house.Must(h.API("ada").Grants.RevokeGrant(t.Context(), house.Request(&apiv1.RevokeGrantRequest{Id: g.GetId(), Reason: "no longer needed"})))(t)
			}
		}
		isCut(t, time.Now(), ended, "no longer needed")
	})
	t.Run("resource locked", func(t *testing.T) {
		ended := cut(h.Connect(t, "alice", "sales-report"))
		create(t, h, lock("locked", func(s *typesv1.LockSpec) { s.Resource = "warehouse" }))
		isCut(t, time.Now(), ended, "contract ended")
		h.Delete(t, "lock", "locked")
		h.Settled(t)
	})
	t.Run("session killed", func(t *testing.T) {
		conn := h.Connect(t, "bob", "sales-report")
		if s := state(t.Context(), conn, "SELECT 1"); s != "" {
			t.Fatal(s)
		}
		ended := cut(conn)
		id := house.Poll(t, "bob's session is listed", func() (string, bool) {
			resp, err := h.API("ada").Sessions.ListSessions(t.Context(), house.Request(&apiv1.ListSessionsRequest{Subject: "bob", Live: true}))
			if err != nil || len(resp.Msg.GetSessions()) != 1 {
				return "", false
			}
			return resp.Msg.GetSessions()[0].GetId(), true
		})
		house.Must(h.API("ada").Sessions.KillSession(t.Context(), house.Request(&apiv1.KillSessionRequest{Id: id, Reason: "just this one"})))(t)
		isCut(t, time.Now(), ended, "just this one")
	})
	t.Run("task changed", func(t *testing.T) {
		conn := h.Connect(t, "alice", "sales-report")
		ask := func() string {
			return state(t.Context(), conn, "SELECT card FROM customers WHERE id = $1", 900001)
		}
		if s := ask(); s != "" {
			t.Fatal(s)
		}
		began := time.Now()
		h.Apply(t, "ada", `
apiVersion: postern/v1
kind: Task
metadata: {name: sales-report, labels: {team: sales}}
spec:
  purpose: monthly sales figures
  resources: {names: [warehouse]}
  permit:
    - {table: sales.regions, verbs: [select], columns: [code, name]}
  duration: 1h
`)
		house.Eventually(t, func() string { return "the prepared statement is refused" }, func() bool { return ask() == "42501" })
		if took := time.Since(began); took > aSecond {
			t.Errorf("it took %s", took)
		}
		if s := state(t.Context(), conn, "SELECT count(*) FROM regions"); s != "" {
			t.Errorf("what is still permitted: %s", s)
		}
	})
	t.Run("binding deleted", func(t *testing.T) {
		ended := cut(h.Connect(t, "carol", "sales-report"))
		h.Delete(t, "binding", "contractors-report")
		isCut(t, time.Now(), ended, "")
		if r := h.Psql(t, "carol", "sales-report", "SELECT 1;"); r.Code != 2 {
			t.Errorf("carol came in again: %+v", r)
		}
	})
	t.Run("node locked", func(t *testing.T) {
		ended := cut(h.Connect(t, "alice", "sales-report"))
		create(t, h, lock("node", func(s *typesv1.LockSpec) { s.Node = "node-1" }))
		isCut(t, time.Now(), ended, "")
		if r := h.Psql(t, "alice", "sales-report", "SELECT 1;"); r.Code != 2 {
			t.Errorf("a locked node took a session: %+v", r)
		}
		h.Delete(t, "lock", "node")
		h.Settled(t)
		house.Eventually(t, func() string { return "the node takes sessions again" }, func() bool {
			return h.Psql(t, "alice", "sales-report", "SELECT 1;").Code == 0
		})
	})
}

// running counts the sessions of Postern's account that run something at the target.
func running(t *testing.T, h *house.House) string {
	t.Helper()
	return h.Target(t, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'warehouse_app' AND state = 'active'")[0][0]
}
