package who

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/test/e2e/house"
)

// sharedLoan: sessions that share a loan end together, with the connections that wait, by
// the command that blast has for it, and the login is gone.
func sharedLoan(t *testing.T, h *house.House) {
	var live []*pgx.Conn
	var processes []string
	for range 3 {
		c := h.Connect(t, "alice", "shared-loan.by-loan")
		var pid int
		if err := c.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		live, processes = append(live, c), append(processes, fmt.Sprint(pid))
	}
	if err := live[2].Close(t.Context()); err != nil { // its connection waits for the next session
		t.Fatal(err)
	}
	live = live[:2]
	all := "pid IN (" + strings.Join(processes, ", ") + ")"
	accounts := h.Target(t, "SELECT DISTINCT usename FROM pg_stat_activity WHERE "+all)
	if len(accounts) != 1 {
		t.Fatalf("the sessions have logged in as %v", accounts)
	}
	blast := func(req *apiv1.GetBlastRequest) *apiv1.GetBlastResponse {
		t.Helper()
		return house.Must(h.API("ada").Locks.GetBlast(t.Context(), house.Request(req)))(t).Msg
	}
	lease := house.Poll(t, "the loan is listed", func() (string, bool) {
		for _, r := range blast(&apiv1.GetBlastRequest{Node: h.Nodes[0].Name}).GetReaches() {
			if r.GetTask() == "shared-loan" && r.GetLease() != "" {
				return r.GetLease(), true
			}
		}
		return "", false
	})
	stops := blast(&apiv1.GetBlastRequest{Lease: lease}).GetStops()
	i := slices.IndexFunc(stops, func(s string) bool { return strings.HasPrefix(s, "postern sessions kill p-") })
	if i < 0 {
		t.Fatalf("lease %q is ended by %q", lease, stops)
	}
	if r := h.CLI(t, "ada", strings.Fields(stops[i])[1:]...); r.Code != 0 {
		t.Fatalf("%s: %s", stops[i], r.All())
	}
	for _, c := range live {
		house.Eventually(t, func() string { return "a session of the loan is over" }, func() bool { return c.Ping(t.Context()) != nil })
	}
	house.Eventually(t, func() string { return "its connections are gone" }, func() bool {
		return len(h.Target(t, "SELECT pid FROM pg_stat_activity WHERE "+all)) == 0
	})
	house.Eventually(t, func() string { return "the login is gone" }, func() bool {
		return len(h.Target(t, "SELECT 1 FROM pg_roles WHERE rolname = '"+accounts[0][0]+"'")) == 0
	})
	// The ledger says so once Vault has answered, and that is after the login has gone.
	house.Eventually(t, func() string { return "blast knows that the lease is over" }, func() bool {
		return blast(&apiv1.GetBlastRequest{Lease: lease}).GetDead() != ""
	})
	if err := h.Connect(t, "alice", "shared-loan.by-loan").Ping(t.Context()); err != nil {
		t.Errorf("a new session: %v", err)
	}
}
