package postgres

import (
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
)

// termed is a session that has terms and nothing else.
type termed struct {
	engine.Session
	terms engine.Terms
}

func (s *termed) ID() postern.SessionID { return "s-1" }

func (s *termed) Terms() *engine.Terms { return &s.terms }

// A client lowers the bound on its statements, and does not lift that of its task.
func TestStatementTimeoutOfAClient(t *testing.T) {
	for _, c := range []struct {
		task      time.Duration
		own, want string
	}{
		{0, "", ""}, {0, "5000", "5000"}, {0, "0", "0"},
		{2 * time.Second, "", "2000"}, {2 * time.Second, "0", "2000"}, {2 * time.Second, "3s", "2000"}, {2 * time.Second, "1s", "1s"},
		{2 * time.Second, "1 min", "2000"}, {2 * time.Second, "500", "500"}, {2 * time.Second, "2000ms", "2000ms"},
	} {
		params := startup{}
		if c.own != "" {
			params["statement_timeout"] = c.own
		}
		checked, err := params.check()
		if err != nil {
			t.Fatal(err)
		}
		s := &termed{terms: engine.Terms{StatementTimeout: c.task}}
		if got := settings(s, engine.PurposeSession, checked)["statement_timeout"]; got != c.want {
			t.Errorf("a task with %s, a client with %q: %q", c.task, c.own, got)
		}
	}
}

// What a resource pins is pinned, however a client spells it.
func TestPinsBeforeChoices(t *testing.T) {
	s := &termed{terms: engine.Terms{Pins: []engine.Setting{{Name: "TimeZone", Value: "UTC"}}}}
	for _, name := range []string{"TimeZone", "TIMEZONE", "timezone"} {
		checked, err := startup{name: "Asia/Tokyo"}.check()
		if err != nil {
			t.Fatal(err)
		}
		out := settings(s, engine.PurposeSession, checked)
		if out["timezone"] != "UTC" || out[name] != "UTC" && out[name] != "" {
			t.Errorf("%s: %v", name, out)
		}
	}
}

// Of several parameters that are refused it is always the same that is named.
func TestRefusedInOrder(t *testing.T) {
	for range 50 {
		_, err := startup{"options": "-c search_path=hr -c role=postgres", "zero_damaged_pages": "on"}.check()
		if err == nil || !strings.Contains(err.Error(), "parameter role is not allowed") {
			t.Fatal(err)
		}
	}
}
