package account

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// TestWhoIsAround: of the connections at a server those are Postern's that a node says it
// has, or that name a session with a lease; whoever else uses a lent account is told, once.
func TestWhoIsAround(t *testing.T) {
	h := newHouse(t)
	h.lent = []credential.Lent{
		{Resource: "shop", Account: "app", Purpose: "session", Source: "sealed", Where: "app", Session: "s-1", Live: true, Created: h.now},
		{Resource: "shop", Account: "root", Purpose: "admin", Source: "sealed", Where: "admin", Live: true},
	}
	h.server.ports = []string{"10.1.1.1:4001"}
	h.server.sessions = []*nodev1.BackendSession{
		{Account: "app", Host: "10.9.9.9", Port: 4001, Program: "whatever the client says"}, // the node's, seen behind a NAT
		{Account: "app", Host: "10.9.9.9", Port: 4002, Program: "postern/s-1"},              // begins at this moment
		{Account: "root", Host: "10.9.9.9", Port: 4003, Program: "postern-wall"},
		{Account: "app", Host: "10.0.0.7", Port: 4004, Program: "postern/s-2"}, // says it is a session, and has no lease
		{Account: "app", Host: "10.0.0.8", Port: 4005, Program: "cron"},
		{Account: "stranger", Host: "10.0.0.8", Port: 4006, Program: "psql"}, // not lent: nobody's business here
	}
	list := func() *apiv1.AccountStatus {
		t.Helper()
		resp, err := h.List(t.Context(), "shop", time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.GetAccounts()) != 2 || resp.GetWall() != "wall-1" || !resp.GetAccounts()[1].GetSuperuser() {
			t.Fatalf("%v", resp)
		}
		return resp.GetAccounts()[0]
	}
	app := list()
	if app.GetSource() != "secret app" || app.GetLeases() != 1 || app.GetSessions() != 2 || strings.Join(app.GetPurposes(), " ") != "session" || len(app.GetAround()) != 2 {
		t.Errorf("%v", app)
	}
	for range 3 {
		h.now = h.now.Add(look)
		app = list()
	}
	if n := h.told("account.around"); n != 2 {
		t.Errorf("told %d times of two who are around", n)
	}
	for _, u := range app.GetAround() {
		if !u.GetLive() || u.GetLastTime().AsTime().Sub(u.GetFirstTime().AsTime()) < refresh {
			t.Errorf("one who stays: %v", u)
		}
	}
	// They leave, and one comes back after more than a day: that is news.
	h.server.sessions = h.server.sessions[:3]
	if app = list(); len(app.GetAround()) != 2 || app.GetAround()[0].GetLive() {
		t.Errorf("who has left: %v", app)
	}
	h.now = h.now.Add(again + time.Hour)
	h.server.sessions = append(h.server.sessions, &nodev1.BackendSession{Account: "app", Host: "10.0.0.8", Port: 5000, Program: "cron"})
	if app = list(); h.told("account.around") != 3 || !app.GetAround()[0].GetLive() {
		t.Errorf("told %d times, and %v", h.told("account.around"), app)
	}
	// In the end they are forgotten.
	h.server.sessions = nil
	h.now = h.now.Add(keep + time.Hour)
	if app = list(); len(app.GetAround()) != 0 {
		t.Errorf("after %s: %v", keep, app)
	}
}

// TestRefusedAreSummedUp by address, with the program that was seen from there.
func TestRefusedAreSummedUp(t *testing.T) {
	seen := []*sighting{{Account: "app", Host: "10.0.0.8", Program: "cron"}, {Account: "root", Host: "10.0.0.8", Program: "psql"}}
	got := refusals([]*nodev1.RefusedLogin{{Account: "app", Host: "10.0.0.8"}, {Account: "app", Host: "10.0.0.8"}, {Account: "app", Host: "10.0.0.9"}, {Account: "root", Host: "10.0.0.8"}}, "app", seen)
	if len(got) != 2 || got[0].GetCount() != 2 || got[0].GetProgram() != "cron" || got[1].GetProgram() != "" || got[1].GetCount() != 1 {
		t.Errorf("%v", got)
	}
}

func TestWhatCannotBeLookedAt(t *testing.T) {
	h := newHouse(t)
	for name, code := range map[postern.ResourceName]codes.Code{
		"": codes.NotFound, "nothing": codes.NotFound, "alone": codes.FailedPrecondition, "standing": codes.FailedPrecondition,
	} {
		if _, err := h.List(t.Context(), name, time.Time{}); fault.CodeOf(err) != code {
			t.Errorf("%q: %v, want %s", name, err, code)
		}
	}
}
