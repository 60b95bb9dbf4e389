package story

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/test/e2e/house"
)

var holdID = regexp.MustCompile(`postern approve (h-[a-z0-9]+)`)

// pending waits for the one hold that bob is asked about.
func pending(t *testing.T, h *house.House) *typesv1.Hold {
	t.Helper()
	return house.Poll(t, "bob is asked about one thing", func() (*typesv1.Hold, bool) {
		resp, err := h.API("bob").Approvals.ListHolds(t.Context(), house.Request(&apiv1.ListHoldsRequest{Pending: true}))
		if err != nil || len(resp.Msg.GetHolds()) != 1 {
			return nil, false
		}
		return resp.Msg.GetHolds()[0], true
	})
}

func holdOf(t *testing.T, h *house.House, id string) *typesv1.Hold {
	t.Helper()
	return house.Must(h.API("bob").Approvals.GetHold(t.Context(), house.Request(&apiv1.GetHoldRequest{Id: id})))(t).Msg.GetHold()
}

func exists(t *testing.T, h *house.House, id int) bool {
	t.Helper()
	return h.Target(t, fmt.Sprintf("SELECT count(*) FROM sales.orders WHERE id = %d", id))[0][0] == "1"
}

// TestHolds: what asks people waits for them, runs once, and only as they saw it.
func TestHolds(t *testing.T) {
	t.Parallel()
	h := house.Start(t)
	for name, part := range map[string]func(*testing.T, *house.House){
		"in psql": heldInPsql, "by parameters": heldParameters, "given up": givenUp, "a session": heldSession,
	} {
		t.Run(name, func(t *testing.T) { part(t, h) })
	}
}

// heldInPsql is the story of purge-order in the stock psql, with bob at the CLI.
func heldInPsql(t *testing.T, h *house.House) {
	const del = "DELETE FROM sales.orders WHERE id = 7;"
	s := h.StartPsql(t, "alice", "purge-order")
	s.Say("SELECT status FROM orders WHERE id = 7;") // needs nobody
	s.Expect("paid")
	s.Say(del)
	id := holdID.FindStringSubmatch(s.Expect("postern approve "))[1]
	if !exists(t, h, 7) {
		t.Fatal("it ran before anybody said yes")
	}
	if hold := holdOf(t, h, id); hold.GetSubject() != "alice" || hold.GetStatement() == "" || hold.GetResource() != "warehouse" {
		t.Errorf("the hold is %v", hold)
	}
	if r := h.CLI(t, "bob", "approvals", id); r.Code != 0 {
		t.Errorf("%+v", r)
	} else { // what bob should know before he answers
		house.Has(t, r.Out, "DELETE FROM sales.orders WHERE id = 7", "about 1, as warehouse estimates", "sessions with this task", "leads by rule leads")
	}

	if r := h.CLI(t, "alice", "approve", id); r.Code != 3 || !exists(t, h, 7) {
		t.Errorf("alice answered her own hold: %+v", r)
	}
	if r := h.CLI(t, "carol", "approve", id); r.Code == 0 || !exists(t, h, 7) {
		t.Errorf("carol, who is no lead, answered: %+v", r)
	}
	r := h.CLI(t, "bob", "approvals")
	house.Has(t, r.Out, id, "alice", "purge-order", "DELETE FROM sales.orders WHERE id = 7")
	if r := h.CLI(t, "bob", "approve", id, "--reason", "a duplicate"); r.Code != 0 {
		t.Fatalf("bob approves: %+v", r)
	}
	s.Expect("DELETE 1")
	if exists(t, h, 7) {
		t.Error("it did not run")
	}
	if r := h.CLI(t, "bob", "approve", id); r.Code == 0 {
		t.Errorf("the same hold was answered twice: %+v", r)
	}

	// The identical statement waits again: a yes is used once. Ctrl-C gives up.
	h.Target(t, "INSERT INTO sales.orders VALUES (7, 1, 'x', 1, 'open', NULL, now())")
	s.Say(del)
	again := pending(t, h)
	if again.GetId() == id || !exists(t, h, 7) {
		t.Errorf("the yes was used again: %s", again.GetId())
	}
	s.Signal(os.Interrupt)
	s.Expect("57014")
	house.Eventually(t, func() string { return "the hold is withdrawn" }, func() bool {
		return holdOf(t, h, again.GetId()).GetState() == typesv1.HoldState_HOLD_STATE_WITHDRAWN
	})
	if r := h.CLI(t, "bob", "approve", again.GetId()); r.Code == 0 || !exists(t, h, 7) {
		t.Errorf("what was given up was approved: %+v", r)
	}

	// A no is told, with its reason. (A script that Ctrl-C has stopped is over.)
	s.End()
	s = h.StartPsql(t, "alice", "purge-order")
	s.Say(del)
	if r := h.CLI(t, "bob", "deny", pending(t, h).GetId(), "--reason", "wrong order"); r.Code != 0 {
		t.Errorf("%+v", r)
	}
	s.Expect("the request was refused by bob: wrong order")
	s.Say("SELECT 'still', count(*) FROM orders WHERE id = 7;")
	s.Expect("still|1")
	if r := s.End(); r.Code != 0 {
		t.Errorf("psql ended with %d", r.Code)
	}
}

// purge starts a deletion by a parameter and gives its outcome.
func purge(ctx context.Context, t *testing.T, h *house.House, id int) <-chan error {
	c := h.Connect(t, "alice", "purge-order")
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, "DELETE FROM sales.orders WHERE id = $1", id)
		done <- err
	}()
	return done
}

func answer(t *testing.T, h *house.House, hold *typesv1.Hold, yes bool) error {
	t.Helper()
	_, err := h.API("bob").Approvals.ReviewHold(t.Context(), house.Request(&apiv1.ReviewHoldRequest{Id: hold.GetId(), Approve: yes, Reason: "said so", Digest: hold.GetDigest()}))
	return err
}

func outcome(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(house.Patience):
		t.Fatal("the statement does not end")
		return nil
	}
}

// heldParameters: a yes is for just the parameters that people were shown.
func heldParameters(t *testing.T, h *house.House) {
	first := purge(t.Context(), t, h, 11)
	hold := pending(t, h)
	if p := hold.GetParameters(); len(p) != 1 || p[0].GetValue() != "11" {
		t.Errorf("people are shown the parameters %v", p)
	}
	if err := answer(t, h, hold, true); err != nil {
		t.Fatal(err)
	}
	if err := outcome(t, first); err != nil || exists(t, h, 11) {
		t.Fatalf("approved: %v", err)
	}
	other := purge(t.Context(), t, h, 12)
	second := pending(t, h)
	if second.GetId() == hold.GetId() || second.GetParameters()[0].GetValue() != "12" || !exists(t, h, 12) {
		t.Errorf("other parameters passed with the same yes: %v", second)
	}
	if err := answer(t, h, second, false); err != nil {
		t.Fatal(err)
	}
	if err := outcome(t, other); house.State(err) != "57014" || !exists(t, h, 12) {
		t.Errorf("denied: %v", err)
	}
	// What was shown must be what is answered.
	third := purge(t.Context(), t, h, 13)
	shown := pending(t, h)
	shown.Digest[0]++
	if err := answer(t, h, shown, true); err == nil {
		t.Error("an answer to something else was taken")
	}
	if err := answer(t, h, pending(t, h), true); err != nil {
		t.Error(err)
	}
	if err := outcome(t, third); err != nil || exists(t, h, 13) {
		t.Errorf("third: %v", err)
	}
}

// givenUp: who goes away while people think has withdrawn.
func givenUp(t *testing.T, h *house.House) {
	c := h.Connect(t, "alice", "purge-order", func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = pgx.QueryExecModeExec })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, "DELETE FROM sales.orders WHERE id = $1", 21)
		done <- err
	}()
	hold := pending(t, h)
	cancel() // pgx closes its connection
	if err := outcome(t, done); err == nil {
		t.Error("no error")
	}
	house.Eventually(t, func() string { return "the hold is withdrawn" }, func() bool {
		return holdOf(t, h, hold.GetId()).GetState() == typesv1.HoldState_HOLD_STATE_WITHDRAWN
	})
	if err := answer(t, h, hold, true); err == nil {
		t.Error("what was given up could be approved")
	}
	if !exists(t, h, 21) {
		t.Error("it ran though its client had gone")
	}
}

// TestTimedOut: nobody answers in time; an identical retry after the yes goes through,
// once.
func TestTimedOut(t *testing.T) {
	t.Parallel()
	h := house.Start(t, house.Options{Extra: `
apiVersion: postern/v1
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}], distinct: true, notRequester: true, timeout: 6s}
`})
	c := h.Connect(t, "alice", "purge-order")
	_, err := c.Exec(t.Context(), "DELETE FROM sales.orders WHERE id = $1", 31)
	pg := house.PgError(t, err)
	if pg.Code != "57014" || !exists(t, h, 31) {
		t.Fatalf("%+v", pg)
	}
	id := regexp.MustCompile(`h-[a-z0-9]+`).FindString(pg.Detail)
	if id == "" || pg.Hint == "" {
		t.Fatalf("the refusal does not say what was asked, and what to do: %+v", pg)
	}
	if err := answer(t, h, holdOf(t, h, id), true); err != nil {
		t.Fatalf("a late yes: %v", err)
	}
	other := h.Connect(t, "alice", "purge-order")
	if s := state(t.Context(), other, "DELETE FROM sales.orders WHERE id = $1", 31); s != "" || exists(t, h, 31) {
		t.Errorf("the identical retry, from another session: %s", s)
	}
	h.Target(t, "INSERT INTO sales.orders VALUES (31, 1, 'x', 1, 'open', NULL, now())")
	if s := state(t.Context(), c, "DELETE FROM sales.orders WHERE id = $1", 31); s != "57014" || !exists(t, h, 31) {
		t.Errorf("the yes was used twice: %s", s)
	}
}

// heldSession: schema-change asks before the session begins, and then no more.
func heldSession(t *testing.T, h *house.House) {
	type connected struct {
		c   *pgx.Conn
		err error
	}
	notices := make(chan string, 10)
	connect := func() <-chan connected {
		cfg := h.Config(t, h.DataToken(t, "alice"), "schema-change")
		cfg.ConnectTimeout = house.Patience
		cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices <- n.Message }
		done := make(chan connected, 1)
		go func() {
			c, err := pgx.ConnectConfig(t.Context(), cfg)
			done <- connected{c, err}
		}()
		return done
	}
	first := connect()
	hold := pending(t, h)
	if hold.GetScope() != "session" {
		t.Errorf("scope %s", hold.GetScope())
	}
	if err := answer(t, h, hold, true); err != nil {
		t.Fatal(err)
	}
	got := <-first
	if got.err != nil {
		t.Fatal(got.err)
	}
	defer got.c.Close(t.Context())
	house.Has(t, <-notices, "waiting for leads to approve", hold.GetId())
	for sql, want := range map[string]string{
		"ALTER TABLE sales.regions ADD COLUMN continent text":                    "",
		"CREATE TABLE sales.notes (id int)":                                      "",
		"CREATE TABLE hr.notes (id int)":                                         "42501",
		"SELECT salary FROM hr.salaries":                                         "42501",
		"SELECT id, status FROM orders LIMIT 1":                                  "",
		"CREATE INDEX ON sales.orders (status)":                                  "",
		"CREATE FUNCTION sales.f() RETURNS int LANGUAGE sql AS 'SELECT 1'":       "42501",
		"ALTER TABLE sales.orders OWNER TO warehouse_catalog; DROP SCHEMA audit": "42501",
	} {
		if s := state(t.Context(), got.c, sql, pgx.QueryExecModeSimpleProtocol); s != want {
			t.Errorf("%s: %q, want %q", sql, s, want)
		}
	}
	if cols := h.Target(t, "SELECT count(*) FROM information_schema.columns WHERE table_name = 'regions'"); cols[0][0] != "3" {
		t.Errorf("columns of regions: %v", cols)
	}
	// The next session asks again, and a no lets nobody in.
	second := connect()
	if err := answer(t, h, pending(t, h), false); err != nil {
		t.Fatal(err)
	}
	refused := <-second
	var pg *pgconn.PgError
	if !errors.As(refused.err, &pg) || pg.Code != "57014" {
		t.Errorf("refused: %v", refused.err)
	}
}
