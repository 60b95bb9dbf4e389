package leaving_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/test/e2e/house"
)

// TestLeavingBehindACutWire is the morning with one of two nodes freshly cut off: the
// receipt says that it is pending, and by when it is over there, and so it is; the job
// goes on, every place is known, and the replay shows the last statement.
func TestLeavingBehindACutWire(t *testing.T) {
	h := house.Start(t, house.Options{
		Nodes: []house.NodeSpec{{Name: "n1", Region: "eu-1"}, {Name: "n2", Region: "eu-2", Behind: true}},
		Extra: world,
	})
	task := h.CLI(t, "ada", "get", "task", "sales-report", "--format", "yaml")
	h.Apply(t, "ada", strings.Replace(task.Out, "\nspec:\n", "\nspec:\n  staleness: {maxStaleness: 3s, sessionGrace: 2s}\n", 1))
	h.Settled(t)

	psql := h.StartPsql(t, "carol", "sales-report") // at n1
	psql.Say("SELECT 'her last', count(*) FROM regions;")
	psql.Expect("her last|6")
	token := house.Must(h.API("carol").Grants.CreateGrant(t.Context(), house.Request(&apiv1.CreateGrantRequest{Task: "sales-report"})))(t).Msg.GetToken()
	far := house.Must(at(t, h, h.Nodes[1], token, "sales-report", func(c *pgx.ConnConfig) { c.RuntimeParams["application_name"] = "far away" }))(t)
	if _, err := far.Exec(t.Context(), "SELECT count(*) FROM sales.regions"); err != nil {
		t.Fatal(err)
	}
	if r := load(t, h, "810001"); r.Out != "INSERT 0 1\n" {
		t.Fatalf("the job under carol: %+v", r)
	}
	ended := watch(t, far)
	h.Nodes[1].Wire.Cut()
	args := []string{"--transfer-to", "bob", "--reason", "contract ended"}
	resp := offboard(t, h, args...)
	locked := resp.GetLocks()[0].GetLock().GetMetadata().GetCreateTime().AsTime()

	// The first answer says by when it is over at n2, which is not counted anew by the next one.
	var bound time.Time
	for _, n := range resp.GetReceipt().GetNodes() {
		switch {
		case n.GetNode() == "n2" && (n.GetEnforcedTime() != nil || n.GetWorstCaseTime() == nil):
			t.Errorf("n2 is cut off, and yet: %v", n)
		case n.GetNode() == "n2":
			bound = n.GetWorstCaseTime().AsTime()
		}
	}
	if !bound.After(locked) {
		t.Fatalf("no bound: %v", resp.GetReceipt())
	}
	known(t, h, resp, 1, []string{"n1"}, args...)
	psql.Say("SELECT 'out';")
	if out := psql.End(); out.Code != 2 || !strings.Contains(out.Out, "contract ended") {
		t.Errorf("her psql: %+v", out)
	}
	if r := load(t, h, "810002"); r.Out != "INSERT 0 1\n" {
		t.Errorf("the job under bob: %+v", r)
	}
	select {
	case e := <-ended:
		if pe := house.PgError(t, e.err); pe.Code != "57P01" {
			t.Errorf("ended with %+v", pe)
		}
		if e.at.After(bound) {
			t.Errorf("it ended at %s, and the receipt said %s at the latest", e.at, bound)
		}
		t.Logf("the session at the cut off node ended %s after the lock; the receipt's bound was %s", e.at.Sub(locked).Round(time.Millisecond), bound.Sub(locked).Round(time.Second))
	case <-time.After(time.Until(bound) + house.Patience):
		t.Fatal("her session at the node that is cut off lives beyond the bound")
	}
	if _, err := at(t, h, h.Nodes[1], token, "sales-report", nil); err == nil {
		t.Error("her token opens at the node that is cut off")
	}

	h.Nodes[1].Wire.Heal()
	last := ""
	house.Eventually(t, func() string { return "usage names both places: " + last }, func() bool {
		last = h.CLI(t, "ada", "usage", "carol").All()
		return strings.Contains(last, "n1") && strings.Contains(last, "n2") && strings.Contains(last, "far away") && strings.Contains(last, "psql")
	})
	house.Eventually(t, func() string { return "usage of the account names her: " + last }, func() bool {
		last = h.CLI(t, "ada", "usage", "warehouse_app").All()
		return strings.Contains(last, "carol") && strings.Contains(last, "nightly-load")
	})
	house.Eventually(t, func() string { return "usage of her heir tells of the job: " + last }, func() bool {
		last = h.CLI(t, "ada", "usage", "bob").All()
		return strings.Contains(last, "nightly, bob's") && strings.Contains(last, "nightly-load")
	})
	id := ""
	house.Eventually(t, func() string { return "her session is on record" }, func() bool {
		for _, s := range offboard(t, h, args...).GetSessions() {
			if s.GetNode() == "n1" {
				id = s.GetId()
			}
		}
		return id != ""
	})
	house.Eventually(t, func() string { return "the replay shows her last statement: " + last }, func() bool {
		last = h.CLI(t, "ada", "sessions", "replay", id).All()
		return strings.Contains(last, "her last") && strings.Contains(last, "contract ended")
	})
}
