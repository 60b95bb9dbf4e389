package who

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/deploy/dev/idp"
	"github.com/posterngate/postern/test/e2e/house"
)

// agents lets two workloads act for analysts: nightly, and helper, whose token is what ada
// gets from the provider.
const agents = `
kind: Workload
metadata: {name: nightly}
spec:
  owner: ada
  trust: {issuer: "%[1]s", audience: postern, when: 'claims.sub == "nightly" && claims.environment == "prod"'}
  actsFor: [{group: analysts}]
  expires: 2030-01-01T00:00:00Z
---
kind: Workload
metadata: {name: helper}
spec:
  owner: bob
  trust: {issuer: "%[1]s", audience: postern, when: 'claims.sub == "ada"'}
  actsFor: [{group: analysts}]
  expires: 2030-01-01T00:00:00Z
`

// exchange asks the token endpoint as an OAuth client library does (RFC 8693).
func exchange(t *testing.T, h *house.House, subject, kind, actor, task string) (token, problem string) {
	t.Helper()
	resp, err := h.HTTP().PostForm(h.Addr+"/oauth2/token", url.Values{
		"grant_type":    {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token": {subject}, "subject_token_type": {"urn:ietf:params:oauth:token-type:" + kind},
		"actor_token": {actor}, "actor_token_type": {"urn:ietf:params:oauth:token-type:id_token"},
		"scope": {task},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body struct {
		AccessToken string `json:"access_token"`
		Issued      string `json:"issued_token_type"`
		Type        string `json:"token_type"`
		Expires     int    `json:"expires_in"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	if (resp.StatusCode == http.StatusOK) != (body.AccessToken != "") || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("status %d with %+v", resp.StatusCode, body)
	}
	if body.AccessToken != "" && (body.Type != "N_A" || body.Expires <= 0 || body.Issued != "urn:ietf:params:oauth:token-type:access_token") {
		t.Errorf("the answer is %+v", body)
	}
	return body.AccessToken, body.Error + ": " + body.Description
}

// TestActors: an agent acts for a person, and another one for it; each may what the person
// may and no more, every record says so, and a lock on either agent ends just what they do.
func TestActors(t *testing.T) {
	h := house.Start(t)
	h.Apply(t, "ada", fmt.Sprintf(agents, h.Issuer))
	alice, nightly := h.DataToken(t, "alice"), h.DataToken(t, "nightly")
	helper := house.Must(idp.SignIn(t.Context(), h.Issuer, idp.SharedClient, "ada"))(t)
	var token string
	house.Eventually(t, func() string { return "the agents are known" }, func() bool {
		token, _ = exchange(t, h, alice, "id_token", nightly, "sales-report")
		return token != ""
	})
	if r := h.PsqlWith(t, token, "sales-report", "SELECT email FROM customers LIMIT 1;\n"); strings.TrimSpace(r.Out) != "***" {
		t.Fatalf("the agent for alice: %+v", r)
	}
	second, problem := exchange(t, h, token, "access_token", helper, "sales-report")
	if second == "" {
		t.Fatal(problem)
	}

	for what, c := range map[string]struct{ subject, kind, actor, task, says string }{
		"what the agent alone may":             {alice, "id_token", nightly, "nightly-load", "invalid_scope"},
		"a person for whom it may not act":     {h.DataToken(t, "carol"), "id_token", nightly, "sales-report", "may not act for carol"},
		"a person as the agent":                {alice, "id_token", h.DataToken(t, "carol"), "sales-report", "invalid_grant"},
		"the agent for itself":                 {nightly, "id_token", nightly, "nightly-load", "cannot act for itself"},
		"the agent once more in its chain":     {second, "access_token", nightly, "sales-report", "cannot act for itself"},
		"a grant token for another task":       {token, "access_token", helper, "purge-order", "not for"},
		"the API's token, which nodes see not": {h.APIToken(t, "alice"), "id_token", nightly, "sales-report", "wrong audience"},
		"no such token":                        {"pst_x", "access_token", nightly, "sales-report", "invalid_grant"},
		"another kind of token":                {alice, "refresh_token", nightly, "sales-report", "invalid_request"},
		"a task that needs a yes first":        {alice, "id_token", nightly, "no-such-task", "invalid_scope"},
	} {
		if got, problem := exchange(t, h, c.subject, c.kind, c.actor, c.task); got != "" || !strings.Contains(problem, c.says) {
			t.Errorf("%s: %q, want %q", what, problem, c.says)
		}
	}

	// Every record says who acts for whom.
	own := h.StartPsql(t, "alice", "sales-report")
	own.Say("SELECT 20 + 3;")
	own.Expect("23")
	byHelper := h.Connect(t, "alice", "sales-report", func(c *pgx.ConnConfig) { c.Password = second })
	if err := byHelper.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	id := house.Poll(t, "the chain is in the index", func() (string, bool) {
		var all []struct {
			ID, Subject string
			Actors      []string
		}
		r := h.CLI(t, "bob", "sessions", "list", "--format", "json", "--since", "1h")
		if err := json.Unmarshal([]byte(r.Out), &all); err != nil {
			t.Fatalf("%v: %s", err, r.All())
		}
		for _, s := range all {
			if s.Subject == "alice" && strings.Join(s.Actors, " for ") == "helper for nightly" {
				return s.ID, true
			}
		}
		return "", false
	})
	for _, args := range [][]string{{"sessions", "list", "--since", "1h"}, {"sessions", "show", id}} {
		if r := h.CLI(t, "bob", args...); !strings.Contains(r.Out, "helper") || !strings.Contains(r.Out, "nightly") {
			t.Errorf("%v does not say who acts: %s", args, r.All())
		}
	}
	if r := h.CLI(t, "bob", "sessions", "replay", id); !strings.Contains(r.Out, "alice (analysts), for whom acts helper, for nightly") {
		t.Errorf("the replay: %s", r.All())
	}
	if r := h.CLI(t, "bob", "audit", "log", "--actor", "alice", "--format", "json"); !strings.Contains(r.Out, `\"actors\":[\"helper\",\"nightly\"]`) {
		t.Errorf("the audit log does not say who took the grant: %s", r.All())
	}

	// A lock on one agent ends what both do, and nothing of alice's own.
	if r := h.CLI(t, "ada", "lock", "--subject", "nightly", "--reason", "runs wild"); r.Code != 0 {
		t.Fatal(r.All())
	}
	house.Eventually(t, func() string { return "the session of the second agent has ended" }, func() bool { return byHelper.Ping(t.Context()) != nil })
	own.Say("SELECT 40 + 2;")
	own.Expect("42")
	for _, dead := range []string{token, second} {
		if r := h.PsqlWith(t, dead, "sales-report", "SELECT 1;\n"); r.Code == 0 || !strings.Contains(r.Err, "runs wild") {
			t.Errorf("a locked agent: %+v", r)
		}
	}
	if got, problem := exchange(t, h, alice, "id_token", nightly, "sales-report"); got != "" || !strings.Contains(problem, "runs wild") {
		t.Errorf("a locked agent gets %q: %s", got, problem)
	}
}
