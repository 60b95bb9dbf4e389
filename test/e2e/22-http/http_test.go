// Package http shows HTTP services under a task: stock curl at the sample company's
// orders-api, through a real node, from the daily path to the recording.
package http

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

// service is the house, and how clients of its service speak.
type service struct {
	*house.House
	last http.Header // of what look was answered last
	busy *busy       // what the odd resource has to do
}

// curl runs stock curl as a person at the resource, under a task.
func (s *service) curl(t *testing.T, who, task string, args ...string) house.Result {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("there is no curl: install it")
	}
	words := []string{"--silent", "--show-error", "--max-time", "20", "--cacert", s.CAFile, "--write-out", "\n%{http_code}"}
	if who != "" {
		words = append(words, "--header", "Authorization: Bearer "+s.DataToken(t, who))
	}
	for _, a := range args {
		if strings.HasPrefix(a, "/") {
			a = "https://" + task + "--orders-api." + s.Nodes[0].HTTPDomain + a
		}
		words = append(words, a)
	}
	return house.Finish(t, exec.Command("curl", words...))
}

// TestOrders is what one house shows, in which later parts find what earlier ones left;
// the last one ends alice's rights.
func TestOrders(t *testing.T) {
	b := &busy{}
	s := &service{House: house.Start(t, house.Options{HTTP: true, Extra: fmt.Sprintf(oddWorld, odd(t, b))}), busy: b}
	for _, part := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"stock curl", s.stockCurl}, {"held", s.held}, {"evasions", s.evasions}, {"advisories", s.advisories}, {"CVE-2023-44487 rapid reset, and heads that never end", s.floods}, {"revoked", s.revoked},
	} {
		t.Run(part.name, part.run)
	}
}

// stockCurl does what people do with curl, and looks at the record.
func (s *service) stockCurl(t *testing.T) {
	t.Run("allowed and refused", func(t *testing.T) {
		for _, c := range []struct {
			task string
			args []string
			code string
			says []string
		}{
			{"read-orders", []string{"/api/orders/7/status"}, "200", []string{`"id":7`, `"status":`}},
			{"read-orders", []string{"--http1.1", "/api/orders/7/status"}, "200", []string{`"id":7`}},
			{"read-orders", []string{"-I", "/api/orders/7/status"}, "200", nil},
			{"read-orders", []string{"/api/orders/999999/status"}, "404", []string{"no such order"}},
			{"read-orders", []string{"/api/orders/7"}, "200", []string{`"id":7`, `"email":"***"`}},
			{"read-orders", []string{"--compressed", "/api/orders/" + house.CanaryID}, "200", []string{`"name":"Canary"`, `"email":"***"`, `"note":"***"`}},
			{"read-orders", []string{"--http1.1", "/api/orders/7?expand=lines&page=2"}, "200", []string{`"email":"***"`}},
			{"read-orders", []string{"/api/orders?status=open&limit=3"}, "200", []string{`"orders":[`, `"email":"***"`}},
			{"read-orders", []string{"-H", "Range: bytes=10-40", "/api/orders/7"}, "200", []string{`"email":"***"`}},
			{"read-orders", []string{"-X", "DELETE", "/api/orders/7"}, "403", []string{`postern: task "read-orders" does not allow DELETE /api/orders/7`, "  rule: read-orders/permit", "GET, HEAD on /api/orders"}},
			{"read-orders", []string{"/api/admin/users"}, "403", []string{"does not allow GET /api/admin/users"}},
			{"read-orders", []string{"/api/orders/7?fields=customer.email"}, "403", []string{`does not allow the parameter "fields"`}},
			{"read-orders", []string{"-H", "Accept: application/json", "/api/admin/users"}, "403", []string{`"code":"denied"`, `"rule":"read-orders/permit"`}},
			{"fix-order", []string{"-X", "PATCH", "--json", `{"status":"paid"}`, "/api/orders/7"}, "200", []string{`"status":"paid"`, `"email":"***"`}},
			{"fix-order", []string{"-X", "PATCH", "--json", `{"status":"paid","STATUS":"void"}`, "/api/orders/7"}, "400", []string{"twice in one object"}},
			{"orders-agent", []string{"--json", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, "/mcp"}, "200", []string{`"find_orders"`, `"set_status"`}},
			{"orders-agent", []string{"--json", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"find_orders","arguments":{"status":"open"}}}`, "/mcp"}, "200", []string{`"structuredContent":{"orders":[{`, `"email":"***"`, `\"email\":\"***\"`}},
			{"orders-agent", []string{"--json", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_order","arguments":{"id":7}}}`, "/mcp"}, "200", []string{`"code":-32003`, `does not allow the tool \"delete_order\"`}},
			{"no-such-task", []string{"/api/orders/7"}, "403", []string{"no-such-task"}},
		} {
			r := s.curl(t, "alice", c.task, c.args...)
			if r.Code != 0 || !strings.HasSuffix(r.Out, "\n"+c.code) {
				t.Errorf("%v: %+v, want %s", c.args, r, c.code)
				continue
			}
			house.Has(t, r.Out, c.says...)
			if leaks := house.Leaks(r.Out); len(leaks) > 0 || strings.Contains(r.Out, s.Orders.Key) || strings.Contains(r.Out, "@") {
				t.Errorf("%v leaks: %s", c.args, r.Out)
			}
		}
	})
	t.Run("who", func(t *testing.T) {
		for _, c := range []struct{ who, code, says string }{
			{"", "401", "carries no token"}, {"carol", "403", "your tasks: sales-report"},
		} {
			if r := s.curl(t, c.who, "read-orders", "/api/orders/7"); !strings.HasSuffix(r.Out, "\n"+c.code) || !strings.Contains(r.Out, c.says) {
				t.Errorf("%q: %+v", c.who, r)
			}
		}
		r := s.curl(t, "alice", "", "-H", "Postern-Task: read-orders.orders-api", "https://"+s.Nodes[0].HTTP+"/api/orders/7/status")
		house.Has(t, r.Out, `"id":7`)
	})
	t.Run("the CLI runs curl", func(t *testing.T) {
		r := s.CLI(t, "alice", "curl", "read-orders", "--", "-sS", "/api/orders/7/status")
		if r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		house.Has(t, r.Out, `"id":7`)
	})
	t.Run("the record", func(t *testing.T) {
		replay := house.Poll(t, "a sealed recording", func() (string, bool) {
			var all []struct{ ID, Recording, Task string }
			house.Must(0, json.Unmarshal([]byte(s.CLI(t, "bob", "sessions", "list", "--format", "json").Out), &all))(t)
			for _, x := range all {
				if text := s.CLI(t, "bob", "sessions", "replay", x.ID).Out; x.Task == "read-orders" && x.Recording == "sealed" && strings.Contains(text, "DELETE /api/orders/7") {
					house.Has(t, s.CLI(t, "bob", "sessions", "verify", x.ID).Out, "chain and signature hold")
					return text, true
				}
			}
			return "", false
		})
		house.Has(t, replay, "GET /api/orders/7/status", `"status":`, "DELETE /api/orders/7")
		if strings.Contains(replay, "@") || strings.Contains(replay, s.Orders.Key) {
			t.Errorf("the record has what nobody was shown:\n%s", replay)
		}
		fmt.Fprintln(t.Output(), replay)
		house.Eventually(t, func() string {
			return "who used a path: " + s.CLI(t, "bob", "audit", "who", "orders-api:/api/orders/?/status").All()
		}, func() bool {
			return strings.Contains(s.CLI(t, "bob", "audit", "who", "orders-api:/api/orders/?/status").Out, "read-orders")
		})
		s.archive(t)
	})
}

// archive looks at the sessions of fix-order as an HTTP Archive: what alice changed, masked
// both ways.
func (s *service) archive(t *testing.T) {
	t.Helper()
	r := s.curl(t, "alice", "fix-order", "-X", "PATCH", "--json", `{"status":"paid"}`, "/api/orders/7")
	if !strings.HasSuffix(r.Out, "\n200") {
		t.Fatalf("%+v", r)
	}
	house.Poll(t, "an archive of what was changed", func() (string, bool) {
		var all []struct{ ID, Recording, Task string }
		house.Must(0, json.Unmarshal([]byte(s.CLI(t, "bob", "sessions", "list", "--format", "json").Out), &all))(t)
		for _, x := range all {
			if x.Task != "fix-order" || x.Recording != "sealed" {
				continue
			}
			var har struct {
				Log struct {
					Entries []struct {
						Request struct {
							Method, URL string
							PostData    struct{ Text string }
						}
						Response struct {
							Status  int
							Content struct{ Text string }
						}
					}
				}
			}
			out := s.CLI(t, "bob", "sessions", "export", x.ID, "--as", "har").Out
			house.Must(0, json.Unmarshal([]byte(out), &har))(t)
			if strings.Contains(out, s.Orders.Key) || strings.Contains(out, "@") {
				t.Errorf("the archive has what nobody was shown: %s", out)
			}
			for _, e := range har.Log.Entries {
				if e.Request.Method == http.MethodPatch && e.Request.URL == "https://orders-api/api/orders/7" && e.Request.PostData.Text == `{"status":"paid"}` && e.Response.Status == 200 && strings.Contains(e.Response.Content.Text, `"email":"***"`) {
					return out, true
				}
			}
		}
		return "", false
	})
}
